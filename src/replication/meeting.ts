/**
 * A primary meets its standby: connects, says hello, makes sure that it is the host that may hold a checkpoint, compares
 * arbiters, and finds its generation confirmed by theirs. Until then nothing is sent of the guest.
 */
import { SubpageError } from '../errors.ts'
import { sameHost } from './claimant.ts'
import type { Connection } from './connection.ts'
import type { PrimaryOptions } from './primary-options.ts'
import { PrimarySession, type Senders } from './primary-session.ts'

export interface Meeting {
  options: PrimaryOptions
  /** A standby may hold a checkpoint of this generation. */
  exposed: boolean
  stopping: AbortSignal
  abandoned: AbortSignal
  senders: (connection: Connection) => Senders
}

const triesMax = 3

/** @throws SubpageError what the standby refuses with, PEER_UNREACHABLE, PEER_MISMATCH, HELD_ELSEWHERE, ARBITER_UNREACHABLE */
export async function meet(meeting: Meeting): Promise<PrimarySession> {
  const { options, exposed, stopping, abandoned, senders } = meeting
  const { connect, hello, clock, succession } = options
  let session: PrimarySession | undefined
  for (let tries = 0; !session; tries++) {
    if (tries === triesMax)
      throw new SubpageError(
        'PEER_UNREACHABLE',
        'the other host begins one process after the other for the guest',
      )
    session = await PrimarySession.open(await connect(), hello, clock, abandoned, senders)
  }
  try {
    const { claimant, arbitrated } = session.welcome
    const { peer } = succession
    if (exposed && peer !== undefined && !sameHost(claimant, peer))
      throw new SubpageError(
        'PEER_MISMATCH',
        `the address leads to ${claimant} now, while ${peer} may hold a checkpoint: first it is decided who goes on`,
      )
    await succession.agree(claimant, arbitrated)
    await succession.anchor(stopping)
  } catch (error) {
    session.release()
    throw error
  }
  if (succession.generation === session.hello.generation) return session
  // A claim of ours had been granted, and its answer was lost: the standby has to hear of that first.
  session.release()
  return await meet(meeting)
}
