/**
 * The handshake of a primary with its standby: connects, says hello, makes sure that it is the host that may hold a checkpoint, compares
 * arbiters, and finds its generation confirmed by theirs. Until then nothing is sent of the guest.
 */
import { SubpageError } from '../errors.ts'
import { sameHost } from './claimant.ts'
import type { Connection } from './connection.ts'
import type { DiskLineages } from './disk-lineages.ts'
import { giveUp } from './farewell.ts'
import { assertFitsNow, Misfit } from './misfit.ts'
import type { PrimaryOptions } from './primary-options.ts'
import { PrimarySession, type Senders } from './primary-session.ts'
import type { PrimaryMachine } from './primary-state.ts'

export interface Handshake {
  options: PrimaryOptions
  machine: PrimaryMachine
  lineages: DiskLineages
  abandoned: AbortSignal
  /** Nobody comes back to a standby with which it fails. */
  once: boolean
  senders: (connection: Connection) => Senders
}

const triesMax = 3

/** One that could not take the guest over gives up what it may have, before anything is sent. @throws Misfit */
async function fitting({ guest, clock }: PrimaryOptions, session: PrimarySession): Promise<PrimarySession> {
  try {
    await assertFitsNow(guest, session)
    return session
  } catch (error) {
    if (error instanceof Misfit) error.given = await giveUp(session, clock)
    session.release()
    throw error
  }
}

/** @throws SubpageError what the standby refuses with, PEER_UNREACHABLE, PEER_MISMATCH, DEVICES_DIFFER, HELD_ELSEWHERE, ARBITER_UNREACHABLE */
export async function shakeHands(handshake: Handshake): Promise<PrimarySession> {
  const { options, machine, lineages, abandoned, once, senders } = handshake
  const { connect, hello, clock, succession } = options
  let session: PrimarySession | undefined
  for (let tries = 0; !session; tries++) {
    if (tries === triesMax)
      throw new SubpageError(
        'PEER_UNREACHABLE',
        'the other host begins one process after the other for the guest',
      )
    const greeting = async () => ({ ...(await hello()), lineages: lineages.told })
    session = await PrimarySession.open(await connect(), greeting, clock, abandoned, senders)
  }
  try {
    const { claimant, arbitrated } = session.welcome
    const { peer } = succession
    if (machine.exposed && peer !== undefined && !sameHost(claimant, peer))
      throw new SubpageError(
        'PEER_MISMATCH',
        `the address leads to ${claimant} now, while ${peer} may hold a checkpoint: first it is decided who goes on`,
      )
    await succession.agree(claimant, arbitrated)
    await succession.anchor(machine.stopping)
  } catch (error) {
    if (once) await giveUp(session, clock)
    session.release()
    throw error
  }
  if (succession.generation === session.hello.generation) return await fitting(options, session)
  // A claim of ours had been granted, and its answer was lost: the standby has to hear of that first.
  session.release()
  return await shakeHands(handshake)
}
