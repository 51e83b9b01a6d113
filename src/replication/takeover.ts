/**
 * How a standby comes to run the guest: by command it asks the arbiter first; then the checkpoint is applied to its end, the
 * primary's leave to speak has run out, and the waiting hypervisor loads the device state and runs.
 */
import { invariant, SubpageError } from '../errors.ts'
import { HeldElsewhere } from './held-elsewhere.ts'
import type { ImageKeeper } from './image-keeper.ts'
import type { Hello } from './messages.ts'
import type { OutputLease } from './output-lease.ts'
import type { Standby } from './standby.ts'
import type { StandbyOptions, StandbyOutcome } from './standby-options.ts'
import type { StandbyMachine } from './standby-state.ts'
import type { Succession } from './succession.ts'

/** What is special about a takeover. */
export interface Takeover {
  /** Nobody else can go on with the guest, or the operator says so: no generation was claimed. */
  unasked?: boolean
  /** By command: from an outdated checkpoint, if there is no other. */
  force?: boolean
  /** Tells a primary that waits for it; before the connection ends. */
  announce?: () => Promise<void>
}

/**
 * Asks the arbiter for a failover by command.
 * @returns false: it gives no answer, and the operator goes on without
 * @throws SubpageError HELD_ELSEWHERE, ARBITER_UNREACHABLE
 */
export async function granted(succession: Succession, name: string, force: boolean): Promise<boolean> {
  try {
    const holder = force ? await succession.claimBeyond() : await succession.claim()
    if (!holder) return true
    throw new SubpageError(
      'HELD_ELSEWHERE',
      `${holder.claimant} goes on with ${name} (generation ${holder.generation}): give --force if you know that it is gone`,
    )
  } catch (error) {
    if (force && error instanceof SubpageError && error.code === 'ARBITER_UNREACHABLE') return false
    throw error
  }
}

/** @throws SubpageError STANDBY_NOT_READY when a failover by command is of no use now */
export function assertTakeable(
  standby: Standby,
  { whole, outdated }: StandbyMachine,
  { arbitrated }: Succession,
  force: boolean,
): void {
  if (!whole && !(force && outdated)) throw nothingToTakeOver(standby, outdated)
  if (!arbitrated && !force)
    throw new SubpageError(
      'STANDBY_NOT_READY',
      'these hosts have no arbiter that could say whether the primary still runs: give --force if you know that it is gone',
    )
}

export function nothingToTakeOver(
  { guestName, state, why: shown }: Pick<Standby, 'guestName' | 'state' | 'why'>,
  outdated: boolean,
): SubpageError {
  const why = outdated
    ? `the checkpoint of ${guestName} on this host is outdated, for the guest has gone on elsewhere (${shown?.message}): if it is gone there, --force goes on from that checkpoint, and what the guest did since is lost`
    : `${guestName} has no whole checkpoint on this host (${state})`
  return new SubpageError('STANDBY_NOT_READY', why)
}

/** To a primary that still speaks for a guest that runs here now. */
export function runsHere(name: string, { claimant, generation }: Succession): HeldElsewhere {
  return new HeldElsewhere(`${name} runs here now, in generation ${generation}`, {
    ...{ claimant, generation, runs: true },
  })
}

/** @throws whatever keeps the guest from running here; then it has not run */
export async function runHere(
  { guest, image, disks, journal, faults, sourceFate, succession }: StandbyOptions,
  keeper: ImageKeeper,
  lease: OutputLease,
  hello: Hello,
  { unasked, force }: Takeover,
): Promise<Omit<Extract<StandbyOutcome, { how: 'took-over' }>, 'reason'>> {
  const startedAt = performance.now()
  await Promise.all([keeper.settle(), image.rest()])
  // What clients have been told is on disk must outlast this host, too, from the first thing that the guest says here.
  await Promise.all(disks.map((disk) => disk.sync()))
  // Played back later it would undo what the guest writes from now on.
  await journal.remove()
  const fate = sourceFate(hello)
  if (fate === undefined || fate === 'runs') await lease.lapsed(hello.settings.suspicionMs)
  const committed = keeper.checkpoint
  invariant(committed, 'only a committed checkpoint is taken over')
  faults('before-load')
  await guest.takeOver(committed.deviceState, committed.suspended, () => {
    succession.use()
    // What becomes of it must not keep the guest waiting.
    if (unasked) void succession.adoptUnasked(force).catch(() => undefined)
  })
  faults('after-load')
  return {
    how: 'took-over',
    at: Date.now(), // the wall clock, for people
    takeoverMs: performance.now() - startedAt,
    committed: { epoch: committed.epoch, consoleBytes: committed.consoleBytes },
  }
}
