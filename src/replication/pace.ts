/**
 * When the next checkpoint begins. Fixed: one epoch after the last. Automatic: as soon as the guest has sent something that
 * waits for a commit, but with so much time between two pauses that they, and the faults of armed pages, take no more than a
 * stated share of it, also of the longest epoch; and when nothing waits, after that.
 */
import type { Clock } from './clock.ts'
import type { Guest } from './guest.ts'

export interface Pace {
  /** Fixed: the epoch. Automatic: the longest. Milliseconds. */
  epochMs: number
  /** Automatic: the share of time that pauses and faults may take; absent when the epoch is fixed. */
  pauseShareMax?: number
}

/** What `--epoch auto` means. */
export const automaticPace: Pace = { epochMs: 100, pauseShareMax: 0.4 }

/** A commit that takes longer than this many epochs means that the link or the standby does not keep up. */
const laggingEpochs = 10
/** A single commit may take this long before it counts as too slow, however short the epochs are. */
const lateMsMin = 1_000

export const lateMs = ({ epochMs }: Pace) => Math.max(lateMsMin, epochMs * laggingEpochs)

/** How long a supervisor that ends waits for the arbiter. */
export const detachMs = 1_000
/** How long an end of protection waits for a standby that does not read or answer. */
export const farewellMs = 5_000

/** Between looks at a guest that does not run, of which it is not known yet how it has ended. */
export const aliveLookMs = 20
/** Time between attempts to reach a standby, or an arbiter, that is gone. */
export const retryMs = 500

/** How often to look whether output waits. Looking costs a read of two bytes. */
const lookMs = 1

/** The longest epoch after a checkpoint that has cost so much, milliseconds. */
export const longestMs = ({ epochMs, pauseShareMax }: Pace, costUs: number) =>
  pauseShareMax === undefined ? epochMs : Math.max(epochMs, costUs / 1000 / pauseShareMax)

/** Resolves when it is time, or when interrupted. @param costUs pause and faults of the checkpoint that began at `startedAt` */
export async function nextCheckpoint(
  { epochMs, pauseShareMax }: Pace,
  guest: Guest,
  clock: Clock,
  startedAt: number,
  costUs: number,
  interrupted: AbortSignal,
): Promise<void> {
  const until = async (dueAt: number) => {
    const ms = dueAt - clock.now()
    if (ms > 0) await clock.sleep(ms, interrupted)
  }
  if (pauseShareMax === undefined || guest.outputPending() === undefined)
    return await until(startedAt + epochMs)
  await until(startedAt + costUs / 1000 / pauseShareMax)
  while (!interrupted.aborted && clock.now() < startedAt + epochMs && !guest.outputPending())
    await clock.sleep(lookMs, interrupted)
}

/** Why a protection is Lagging, and why it seeds again. */
export const tooSlow = {
  code: 'STANDBY_LAGS',
  message: 'the standby or the link does not keep up',
} as const
export const backlog = {
  code: 'STANDBY_LAGS',
  message: 'more pages are behind than a pause can take up',
} as const
