/**
 * The guest's machine is made of other parts than its standby's: somebody has plugged a device in or out, or changed a medium. The
 * standby could not load the next checkpoint's devices. So that checkpoint is not sent, the standby gives up what it has, and the
 * guest goes on alone. Once its parts are the standby's again, it is protected as before; where that cannot be, it stays alone.
 */
import { BrokenInvariant, SubpageError } from '../errors.ts'
import type { Clock } from './clock.ts'
import { giveUp } from './farewell.ts'
import type { Difference, Guest } from './guest.ts'
import type { PrimarySession } from './primary-session.ts'

/** So often the machine is looked at, which stops it for some milliseconds. */
const lookMs = 2_000

export class Misfit extends SubpageError {
  /** What the standby is made of. */
  readonly parts: readonly string[]
  /** The standby has given its checkpoint up, and said so. */
  given = false

  /** It stays so while the guest runs. */
  readonly lasting: boolean

  constructor({ what, lasting }: Difference, parts: readonly string[]) {
    super(
      lasting ? 'GUEST_UNPROTECTABLE' : 'DEVICES_DIFFER',
      lasting
        ? `the guest has memory that no standby can have (${what}): shut the guest down and start it, and protect it again`
        : `the guest has other devices than its standby, which cannot take it over (${what}): take that back, and the protection goes on by itself`,
    )
    this.parts = parts
    this.lasting = lasting
  }
}

/** @throws Misfit */
export function assertFits(guest: Guest, { welcome }: PrimarySession, deviceState: Uint8Array): void {
  const { parts } = welcome
  const found = parts && guest.misfit(deviceState, parts)
  if (parts && found !== undefined) throw new Misfit(found, parts)
}

/** Before anything is sent of the guest. @throws Misfit */
export async function assertFitsNow(guest: Guest, { welcome }: PrimarySession): Promise<void> {
  const { parts } = welcome
  const found = parts && (await guest.misfitNow(parts))
  if (parts && found !== undefined) throw new Misfit(found, parts)
}

/** The standby could not take the guest over, and has said that it will not. */
export async function hasGivenUp(
  why: SubpageError,
  session: PrimarySession | undefined,
  clock: Clock,
): Promise<boolean> {
  if (!(why instanceof Misfit)) return false
  return why.given || (session !== undefined && (await giveUp(session, clock)))
}

/** @param told of what differs now, when that is something else, and at last that nothing does */
export async function untilFits(
  { guest, clock }: { guest: Guest; clock: Clock },
  misfit: Misfit,
  stopping: AbortSignal,
  told: (misfit: Misfit | undefined) => void,
): Promise<void> {
  told(misfit)
  for (let { lasting } = misfit; ; ) {
    await clock.sleep(lookMs, stopping)
    if (stopping.aborted) return
    // Its end comes, and stops this.
    if (lasting || !guest.alive) continue
    try {
      const difference = await guest.misfitNow(misfit.parts)
      told(difference === undefined ? undefined : new Misfit(difference, misfit.parts))
      if (difference === undefined) return
      lasting = difference.lasting
    } catch (error) {
      if (error instanceof BrokenInvariant) throw error
      // It ends, or was let run in the middle: the next look tells.
    }
  }
}
