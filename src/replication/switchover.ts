/**
 * A planned change of hosts: a last checkpoint after which the guest stands still here, and goes on there. Nothing is
 * repeated and nothing is lost. Until the standby has said that it runs, this side keeps the guest, paused; whoever wins
 * the next generation goes on with it.
 */

import { SubpageError } from '../errors.ts'
import { commit, freeze } from './checkpoint.ts'
import type { Pause } from './guest.ts'
import type { PrimarySession } from './primary-session.ts'
import type { Protection } from './protection.ts'

/** The guard lets the guest run again after this long, should this supervisor die in the middle. */
const handoverMs = 10_000

/** @throws SubpageError ARBITER_UNREACHABLE */
export function assertArbitrated({ arbitrated }: { arbitrated: boolean }): void {
  if (!arbitrated)
    throw new SubpageError(
      'ARBITER_UNREACHABLE',
      'a switchover needs an arbiter that both hosts see: should the answer be lost, it says who has the guest',
    )
}

/**
 * Resolves when this copy has ended, or the standby, which runs the guest, has closed the connection: no checkpoint is tried meanwhile.
 * @param held told of the pause as soon as there is one; the caller resumes it when this throws and the guest is ours
 * @throws SubpageError what keeps the standby from taking over
 */
export async function handOver(
  protection: Protection,
  session: PrimarySession,
  epoch: number,
  held: (pause: Pause | undefined) => void,
  done: () => void,
): Promise<void> {
  const frozen = await freeze(protection, session, epoch, handoverMs)
  held(frozen.pause)
  const untilMs = await commit(protection, session, epoch, frozen, await frozen.pause.deviceState())
  await protection.guest.releaseOutputs(untilMs)
  await session.handOver(epoch)
  held(undefined)
  protection.guest.supersede('switched over to the standby')
  done()
  await Promise.race([protection.guest.ended, session.lost])
}
