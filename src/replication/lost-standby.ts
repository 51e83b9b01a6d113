/**
 * The primary has lost its standby: who goes on? Nothing has to be asked while no standby can hold a checkpoint, nor in a
 * pair without an arbiter, where only people let a standby take over. Otherwise the next generation is claimed: again and
 * again while a claim may have been granted, and between attempts to reach the standby while none was made. A supervisor that is
 * stopped decides nothing.
 */
import { asSubpageError, type Reason, type SubpageError } from '../errors.ts'
import type { Clock } from './clock.ts'
import type { Guest } from './guest.ts'
import { HeldElsewhere } from './held-elsewhere.ts'
import type { PrimarySession } from './primary-session.ts'
import type { PrimaryMachine } from './primary-state.ts'
import type { Succession } from './succession.ts'

export interface LostStandby {
  /** What the connection was lost of, or the standby refused with. */
  why: SubpageError
  /** The connection that was lost. */
  session: PrimarySession | undefined
  guest: Guest
  succession: Succession
  clock: Clock
  /** Shows why nothing happens yet. */
  machine: PrimaryMachine
}

const retryMs = 500
/** So long a copy that was superseded stays, silent: a standby that cannot run the guest after all gives it back. */
const giveBackMs = 5_000

/**
 * `alone`: the guest goes on here, without the standby. `open`: the arbiter was not asked, for it gives no answer, so the
 * standby may be met again, or has to be. `over`: the guest does not go on here, or somebody else sees to it.
 */
export async function decideAlone({
  why,
  session,
  guest,
  succession,
  clock,
  machine,
}: LostStandby): Promise<'alone' | 'open' | 'over'> {
  const { stopping } = machine
  if (why instanceof HeldElsewhere && succession.yieldsTo(why.copy)) {
    guest.supersede(why.message)
    return 'over'
  }
  // We stood still, and the standby may have gone on: it is heard first, whatever an arbiter remembers.
  if (session?.stalled && !succession.undecided) return 'open'
  let supersededAt: number | undefined
  // A guest that has died is for the standby to go on with: nothing may be claimed against it.
  while (guest.alive && !stopping.aborted) {
    if (!machine.exposed || !succession.arbitrated) return 'alone'
    try {
      // The other host may be about to run the guest, by a decision that an arbiter put back to an older state would make anew.
      if (why instanceof HeldElsewhere && !(await succession.remembers(why.copy, stopping))) {
        machine.show({
          code: why.code,
          message: `${why.message}, which ${succession.arbiter} does not know: what the guest sends is held back`,
        })
        return 'open'
      }
      const holder = await succession.claim(stopping)
      if (!holder) return 'alone'
      supersededAt ??= clock.now()
      const detail = `${holder.claimant} has taken it over (generation ${holder.generation})`
      if (clock.now() - supersededAt >= giveBackMs) guest.supersede(detail)
      else {
        machine.show({
          code: 'HELD_ELSEWHERE',
          message: `${why.message}; ${detail}, or may still give it back`,
        })
        await clock.sleep(retryMs, stopping)
      }
    } catch (error) {
      const { code, message } = asSubpageError(error)
      machine.show({ code, message: `${why.message}; what the guest sends is held back: ${message}` })
      // An arbiter that was replaced meanwhile answers no claim before the hosts have met again.
      if (!succession.undecided || succession.replaced) return 'open'
      await clock.sleep(retryMs, stopping)
    }
  }
  return 'over'
}

/** Why there is no standby, for status, when the guest goes on here. */
export function reasonOf(why: SubpageError): Reason {
  const { code, message } = why
  return why instanceof HeldElsewhere
    ? {
        code,
        message: `${message}: no newer generation than here, so this copy goes on. End one of the two with subpage remove`,
      }
    : why
}
