/**
 * What a primary says last to its standby: that the protection has ended by command, that the guest has ended, or that its supervisor
 * leaves for a moment. Whatever the standby must not miss it answers; against one that does not, the arbiter decides.
 */
import { asSubpageError, SubpageError } from '../errors.ts'
import type { Clock } from './clock.ts'
import type { Connection } from './connection.ts'
import { frameType } from './frame.ts'
import type { Guest, GuestEnd, Pause } from './guest.ts'
import { alsoDisks, type DiskCopy } from './messages.ts'
import { farewellMs } from './pace.ts'
import type { PrimarySession } from './primary-session.ts'
import type { PrimaryMachine } from './primary-state.ts'
import type { Succession } from './succession.ts'
import type { Tasks } from './tasks.ts'

export interface Dismissal {
  /** A standby is connected over it. */
  session: PrimarySession | undefined
  guest: Guest
  succession: Succession
  clock: Clock
  /** Told at once when no standby holds a checkpoint any more. */
  machine: PrimaryMachine
  /** Those that wait are over then, too. */
  tasks: Tasks
  /** The standby is to remove its copies of the disks, too. */
  disksToo: boolean
}

/**
 * The protection is ended by command. A standby that is connected gives up what it has first: until then it goes on with the guest if
 * this host dies. A claim would leave a moment in which nobody may go on. So the next generation is claimed only against a standby
 * that gives no answer and may hold a checkpoint; and one that gives none learns from the arbiter that nobody needs it.
 * @returns whether the standby knows
 * @throws SubpageError HELD_ELSEWHERE, ARBITER_UNREACHABLE, GUEST_DIED
 */
export async function dismiss(dismissal: Dismissal): Promise<boolean> {
  const { guest, succession, machine } = dismissal
  const assertAlive = () => {
    if (!guest.alive)
      throw new SubpageError(
        'GUEST_DIED',
        'the guest does not run here any more: its standby may go on with it',
      )
  }
  assertAlive()
  if (machine.ending) return false
  if (await givenUp(dismissal)) return true
  // A guest that has died is for the standby to go on with: nothing may be claimed against it.
  assertAlive()
  const holder = succession.arbitrated && machine.exposed ? await succession.claim() : undefined
  if (holder) throw new SubpageError('HELD_ELSEWHERE', `${holder.claimant} has taken the guest over`)
  // One that does not hear of it stays until somebody removes it.
  await inTime(dismissal.clock, () => succession.dismissStandby())
  end(dismissal)
  return false
}

function end({ machine, tasks }: Dismissal): void {
  machine.fire('dismissed')
  tasks.end()
}

async function givenUp(dismissal: Dismissal): Promise<boolean> {
  const { session, clock, disksToo } = dismissal
  if (!session) return false
  return await inTime(clock, (waited) =>
    // An answer that comes too late does not end what was said to go on.
    session.dismiss(disksToo, () => waited.aborted || end(dismissal)),
  )
}

/** The standby is asked to give its checkpoint up, and the protection goes on. @returns whether it has */
export async function giveUp(session: PrimarySession, clock: Clock): Promise<boolean> {
  let given = false
  await inTime(clock, () =>
    session.dismiss(false, () => {
      given = true
    }),
  )
  return given
}

/** Whether the standby answered, before it is taken for one that does not. */
async function inTime(clock: Clock, ask: (waited: AbortSignal) => Promise<void>): Promise<boolean> {
  const waited = new AbortController()
  const answered = ask(waited.signal).then(
    () => true,
    // It was lost, or refuses: then the arbiter decides.
    () => false,
  )
  const late = clock.sleep(farewellMs, waited.signal).then(() => false)
  return await Promise.race([answered, late]).finally(() => waited.abort())
}

/**
 * The guest has ended. A standby that is connected hears how; of an end that was meant it says that it has. Against one that does
 * not, the next generation is claimed: it must not go on with a guest that somebody has shut down, and learns from the arbiter that
 * nobody needs it.
 * @returns what could not be seen to, for people
 */
export async function layDown(
  how: GuestEnd,
  {
    session,
    succession,
    exposed,
    clock,
  }: Pick<Dismissal, 'session' | 'succession' | 'clock'> & { exposed: boolean },
): Promise<SubpageError | undefined> {
  if (how.how === 'died' || how.how === 'superseded') {
    // Without a connection there is nobody to tell.
    await session?.connection.sendJson(frameType.guestEnded, how).catch(() => undefined)
    return undefined
  }
  if (session && (await inTime(clock, () => session.layDown(how)))) return undefined
  if (!succession.arbitrated) {
    // One that is just beginning may see the same arbiter all the same.
    await inTime(clock, () => succession.dismissStandby())
    return undefined
  }
  const late = new AbortController()
  const relax = clock.after(farewellMs, () => late.abort())
  try {
    const holder = exposed ? await succession.claim(late.signal) : undefined
    if (holder)
      return new SubpageError('HELD_ELSEWHERE', `it has ended, and ${holder.claimant} has gone on with it`)
    await succession.dismissStandby(late.signal)
    return undefined
  } catch (error) {
    const { code, message } = asSubpageError(error)
    if (!exposed) return undefined
    return new SubpageError(
      code,
      `its standby was not told that it has ended, and may go on with it: subpage remove there ends that (${message})`,
    )
  } finally {
    relax()
  }
}

/** Copies of disks that the standby keeps. @param discarded those that were made for it are gone */
export const staying = (copies: readonly DiskCopy[], discarded: boolean): string[] =>
  copies.filter(({ made }) => !(discarded && made)).map(({ path }) => path)

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
async function leave(
  { guest, succession, exposed }: Pick<Dismissal, 'guest' | 'succession'> & { exposed: boolean },
  connection: Connection | undefined,
  held: Pause | undefined,
): Promise<void> {
  if (!exposed || !succession.arbitrated) return await letOut(guest, held)
  // A standby that does not hear it waits somewhat shorter.
  await connection?.send(frameType.leave, absenceMs).catch(() => undefined)
  await whileAlive(guest, async () => void (await held?.resume()))
}

/** The protection was ended by command: the guest goes on without the standby, which is told to discard its copy. */
async function unprotect(
  { guest, disksToo }: Pick<Dismissal, 'guest' | 'disksToo'>,
  connection: Connection | undefined,
  held: Pause | undefined,
): Promise<void> {
  // Goes first: whatever the standby hears later, such as that the guest has died, it does not take over an older state than
  // the one that is let out. A standby that has gone already needs no word.
  const told = connection?.send(frameType.unprotect, disksToo ? alsoDisks : 0).catch(() => undefined)
  await letOut(guest, held)
  await told
}

type Farewell = Pick<Dismissal, 'guest' | 'succession' | 'machine' | 'disksToo'>

/** The primary lets go of its guest, which runs: by a command, or because its supervisor ends. */
export async function bidFarewell(
  { guest, succession, machine, disksToo }: Farewell,
  connection: Connection | undefined,
  held: Pause | undefined,
): Promise<void> {
  if (!machine.dismissed) await leave({ guest, succession, exposed: machine.exposed }, connection, held)
  // The answer to a command may have come since.
  if (machine.dismissed) await unprotect({ guest, disksToo }, connection, held)
}

/** A guest that has ended has nothing left to say. */
async function whileAlive(guest: Guest, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    if (guest.alive) throw error
  }
}
