/**
 * The primary has lost its standby: who goes on? Nothing has to be asked while no standby can hold a checkpoint, nor in a
 * pair without an arbiter, where only people let a standby take over. Otherwise the next generation is claimed: again and
 * again while a claim may have been granted, and between attempts to reach the standby while none was made. A supervisor that is
 * stopped decides nothing.
 */
import { asSubpageError, SubpageError } from '../errors.ts'
import type { Clock } from './clock.ts'
import type { Connection } from './connection.ts'
import { frameType } from './frame.ts'
import type { Guest, Pause } from './guest.ts'
import { HeldElsewhere } from './held-elsewhere.ts'
import { alsoDisks, type DiskCopy } from './messages.ts'
import { farewellMs } from './pace.ts'
import type { PrimarySession } from './primary-session.ts'
import type { Succession } from './succession.ts'
import type { Tasks } from './tasks.ts'

export interface Parting {
  /** What the connection was lost of, or the standby refused with. */
  why: SubpageError
  /** The connection that was lost. */
  session: PrimarySession | undefined
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

/**
 * `alone`: the guest goes on here, without the standby. `open`: the arbiter was not asked, for it gives no answer, so the
 * standby may be met again. `over`: the guest does not go on here, or somebody else sees to it.
 */
export async function part({
  why,
  session,
  guest,
  succession,
  exposed,
  clock,
  stopping,
  waiting,
}: Parting): Promise<'alone' | 'open' | 'over'> {
  if (why instanceof HeldElsewhere && succession.yieldsTo(why.copy)) {
    guest.supersede(why.message)
    return 'over'
  }
  // We stood still, and the standby may have gone on: it is heard first, whatever an arbiter remembers.
  if (session?.stalled && !succession.undecided) return 'open'
  let supersededAt: number | undefined
  // A guest that has died is for the standby to go on with: nothing may be claimed against it.
  while (guest.alive && !stopping.aborted) {
    if (!exposed || !succession.arbitrated) return 'alone'
    try {
      // The other host may be about to run the guest, by a decision that an arbiter put back to an older state would make anew.
      if (why instanceof HeldElsewhere && !(await succession.remembers(why.copy, stopping))) {
        waiting(
          `${why.message}, which ${succession.arbiter} does not know: what the guest sends is held back`,
        )
        return 'open'
      }
      const holder = await succession.claim(stopping)
      if (!holder) return 'alone'
      supersededAt ??= clock.now()
      const detail = `${holder.claimant} has taken it over (generation ${holder.generation})`
      if (clock.now() - supersededAt >= giveBackMs) guest.supersede(detail)
      else {
        waiting(`${why.message}; ${detail}, or may still give it back`)
        await clock.sleep(retryMs, stopping)
      }
    } catch (error) {
      waiting(`${why.message}; what the guest sends is held back: ${asSubpageError(error).message}`)
      if (!succession.undecided) return 'open'
      await clock.sleep(retryMs, stopping)
    }
  }
  return 'over'
}

export interface Dismissal {
  /** A standby is connected over it. */
  session: PrimarySession | undefined
  guest: Guest
  succession: Succession
  clock: Clock
  /** A standby may hold a checkpoint. */
  exposed: () => boolean
  /** Aborted at once when none does any more. */
  stopping: AbortController
  /** Those that wait are over then, too. */
  tasks: Tasks
  /** The standby is to remove its copies of the disks, too. */
  disksToo: boolean
}

/**
 * The protection is ended by command while a standby may hold a checkpoint. A standby that is connected gives it up first: until
 * then it goes on with the guest if this host dies. A claim would leave a moment in which nobody may go on. So the next
 * generation is claimed only against a standby that gives no answer.
 * @returns whether the standby knows
 * @throws SubpageError HELD_ELSEWHERE, ARBITER_UNREACHABLE, GUEST_DIED
 */
export async function dismiss(dismissal: Dismissal): Promise<boolean> {
  const { guest, succession, exposed, stopping } = dismissal
  const assertAlive = () => {
    if (!guest.alive)
      throw new SubpageError(
        'GUEST_DIED',
        'the guest does not run here any more: its standby may go on with it',
      )
  }
  assertAlive()
  if (stopping.signal.aborted) return false
  if (exposed() && (await givenUp(dismissal))) return true
  // A guest that has died is for the standby to go on with: nothing may be claimed against it.
  assertAlive()
  if (exposed() && succession.arbitrated) {
    const holder = await succession.claim()
    if (holder) throw new SubpageError('HELD_ELSEWHERE', `${holder.claimant} has taken the guest over`)
  }
  end(dismissal)
  // One that holds nothing hears it last, without an answer.
  return !exposed() && dismissal.session !== undefined
}

function end({ stopping, tasks }: Dismissal): void {
  stopping.abort()
  tasks.end()
}

async function givenUp(dismissal: Dismissal): Promise<boolean> {
  const { session, clock, disksToo } = dismissal
  if (!session) return false
  const waited = new AbortController()
  // An answer that comes too late does not end what was said to go on.
  const given = session
    .dismiss(disksToo, () => waited.signal.aborted || end(dismissal))
    .then(
      () => true,
      // It was lost, or refuses: then the arbiter decides.
      () => false,
    )
  const late = clock.sleep(farewellMs, waited.signal).then(() => false)
  return await Promise.race([given, late]).finally(() => waited.abort())
}

/** Copies of disks that the standby keeps. @param discarded those that were made for it are gone */
export const staying = (copies: readonly DiskCopy[], discarded: boolean): string[] =>
  copies.filter(({ made }) => !(discarded && made)).map(({ path }) => path)

/** Why there is no standby, for status, when the guest goes on here. */
export function reasonOf(why: SubpageError): string {
  return why instanceof HeldElsewhere
    ? `${why.message}: no newer generation than here, so this copy goes on. End one of the two with subpage remove`
    : why.message
}

/** The guest goes on without a standby. */
export async function letOut(guest: Guest, held: Pause | undefined): Promise<void> {
  await whileAlive(guest, async () => {
    await held?.resume()
    await guest.freeOutputs()
  })
}

/** So long a standby waits for a supervisor that was stopped in an orderly way: a restart takes a second or two. */
export const absenceMs = 5_000

/**
 * The supervisor is stopped in an orderly way. While a standby may hold a checkpoint, nothing is decided: what the guest sends
 * waits, as if it had been killed. Then the next supervisor goes on with the protection, or the standby with the guest. A
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

/** The protection was ended by command: the guest goes on without the standby, which is told to discard its copy. */
export async function unprotect(
  { guest, disksToo }: Pick<Parting, 'guest'> & Pick<Dismissal, 'disksToo'>,
  connection: Connection | undefined,
  held: Pause | undefined,
): Promise<void> {
  // Goes first: whatever the standby hears later, such as that the guest has died, it does not take over an older state than
  // the one that is let out. A standby that has gone already needs no word.
  const told = connection?.send(frameType.unprotect, disksToo ? alsoDisks : 0).catch(() => undefined)
  await letOut(guest, held)
  await told
}

/** A guest that has ended has nothing left to say. */
async function whileAlive(guest: Guest, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    if (guest.alive) throw error
  }
}
