/**
 * The primary has lost its standby: who goes on? Nothing has to be asked while no standby can hold a checkpoint, nor in a
 * pair without an arbiter, where only people let a standby take over. Otherwise the next generation is claimed, for as
 * long as it takes to get an answer.
 */
import { asSubpageError } from '../errors.ts'
import type { Clock } from './clock.ts'
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

/** `alone`: the guest goes on here, without the standby. `over`: it does not, or somebody else sees to it. */
export async function part({
  guest,
  succession,
  exposed,
  clock,
  stopping,
  waiting,
}: Parting): Promise<'alone' | 'over'> {
  // A guest that has died is for the standby to go on with: nothing may be claimed against it.
  while (guest.alive && !stopping.aborted) {
    if (!exposed || !succession.arbitrated) return 'alone'
    try {
      const holder = await succession.claim(stopping)
      if (!holder) return 'alone'
      guest.supersede(`${holder.claimant} has taken it over (generation ${holder.generation})`)
    } catch (error) {
      waiting(`what the guest sends is held back: ${asSubpageError(error).message}`)
      await clock.sleep(retryMs, stopping)
    }
  }
  return 'over'
}

/** The guest goes on without a standby. One that has ended meanwhile has nothing left to say. */
export async function letOut(guest: Guest, held: Pause | undefined): Promise<void> {
  try {
    await held?.resume()
    await guest.freeOutputs()
  } catch (error) {
    if (guest.alive) throw error
  }
}
