/**
 * The primary has lost its standby: who goes on? Nothing has to be asked while no standby can hold a checkpoint, nor in a
 * pair without an arbiter, where only people let a standby take over. Otherwise the next generation is claimed, for as
 * long as it takes to get an answer. An agent that is stopped decides nothing.
 */
import { asSubpageError } from '../errors.ts'
import type { Clock } from './clock.ts'
import type { Connection } from './connection.ts'
import { frameType } from './frame.ts'
import type { Guest, Pause } from './guest.ts'
import type { Succession } from './succession.ts'

export interface Parting {
  guest: Guest
  succession: Succession
  /** A standby may hold a checkpoint. */
  exposed: boolean
  clock: Clock
  /** The protection is being ended, or the guest has. */
  stopping: AbortSignal
  /** Told why nothing happens yet. */
  waiting: (reason: string) => void
}

const retryMs = 500
/** So long a copy that was superseded stays, silent: a standby that cannot run the guest after all gives it back. */
const giveBackMs = 5_000

/** `alone`: the guest goes on here, without the standby. `over`: it does not, or somebody else sees to it. */
export async function part({
  guest,
  succession,
  exposed,
  clock,
  stopping,
  waiting,
}: Parting): Promise<'alone' | 'over'> {
  let supersededAt: number | undefined
  // A guest that has died is for the standby to go on with: nothing may be claimed against it.
  while (guest.alive && !stopping.aborted) {
    if (!exposed || !succession.arbitrated) return 'alone'
    try {
      const holder = await succession.claim(stopping)
      if (!holder) return 'alone'
      supersededAt ??= clock.now()
      const detail = `${holder.claimant} has taken it over (generation ${holder.generation})`
      if (clock.now() - supersededAt >= giveBackMs) guest.supersede(detail)
      else {
        waiting(`${detail}, or may still give it back`)
        await clock.sleep(retryMs, stopping)
      }
    } catch (error) {
      waiting(`what the guest sends is held back: ${asSubpageError(error).message}`)
      await clock.sleep(retryMs, stopping)
    }
  }
  return 'over'
}

/** The guest goes on without a standby. */
export async function letOut(guest: Guest, held: Pause | undefined): Promise<void> {
  await whileAlive(guest, async () => {
    await held?.resume()
    await guest.freeOutputs()
  })
}

/** So long a standby waits for an agent that was stopped in an orderly way: a restart takes a second or two. */
export const absenceMs = 5_000

/**
 * The agent is stopped in an orderly way. While a standby may hold a checkpoint, nothing is decided: what the guest sends
 * waits, as if the agent had been killed. Then the next agent goes on with the protection, or the standby with the guest. A
 * decision to go on alone would end with the guest if its host went down next, and nobody could go on.
 */
export async function leave(
  { guest, succession, exposed }: Pick<Parting, 'guest' | 'succession' | 'exposed'>,
  connection: Connection | undefined,
  held: Pause | undefined,
): Promise<void> {
  if (!exposed || !succession.arbitrated) return await letOut(guest, held)
  // A standby that does not hear it waits somewhat shorter.
  await connection?.send(frameType.leave, absenceMs).catch(() => undefined)
  await whileAlive(guest, async () => void (await held?.resume()))
}

/** A guest that has ended has nothing left to say. */
async function whileAlive(guest: Guest, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    if (guest.alive) throw error
  }
}
