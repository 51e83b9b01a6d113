/**
 * When the next checkpoint begins. Fixed: one epoch after the last. Automatic: as soon as the guest has sent something that
 * waits for a commit, but with so much time between two pauses that they, and the faults of armed pages, take no more than a
 * stated share of it, also of the longest epoch; and when nothing waits, after that. With a goal for what clients wait, the time between two pauses
 * is as long as that goal allows, for the guest's sake, but no shorter than the stated share asks for.
 */
import type { Clock } from './clock.ts'
import type { Guest } from './guest.ts'

export interface Pace {
  /** Fixed: the epoch. Automatic: the longest. Milliseconds. */
  epochMs: number
  /** Automatic: the share of time that pauses and faults may take; absent when the epoch is fixed. */
  pauseShareMax?: number
  /** Automatic: how long what the guest sends may wait for its commit, on average, when it sends all the time. Milliseconds. */
  latencyMs?: number
}

/** What a checkpoint takes, on average, lately; microseconds. */
export interface Takes {
  pausingUs: number
  commitUs: number
}

/** What is not given is not wanted. */
export const paceOf = ({
  epochMs,
  pauseShareMax,
  latencyMs,
}: { [Of in keyof Pace]: Pace[Of] | undefined } & Pick<Pace, 'epochMs'>): Pace => ({
  epochMs,
  ...(pauseShareMax !== undefined && { pauseShareMax }),
  ...(latencyMs !== undefined && { latencyMs }),
})

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

/**
 * From the beginning of a checkpoint to that of the next one, at least; milliseconds. What is sent at any time between two pauses waits
 * for half of what lies between them, and then for a pause and a commit.
 * @param costUs pause and faults of the checkpoint
 */
export function shortestMs(
  { epochMs, pauseShareMax, latencyMs }: Pace,
  costUs: number,
  takes: Takes,
): number {
  if (pauseShareMax === undefined) return epochMs
  const byCost = costUs / 1000 / pauseShareMax
  if (latencyMs === undefined) return byCost
  return Math.max(byCost, 2 * latencyMs - (takes.pausingUs + 2 * takes.commitUs) / 1000)
}

/** The longest epoch, milliseconds. @param atLeastMs see `shortestMs` */
export const longestMs = ({ epochMs }: Pace, atLeastMs: number) => Math.max(epochMs, atLeastMs)

/** Resolves when it is time, or when interrupted. @param atLeastMs since the last began at `startedAt`: see `shortestMs` */
export async function nextCheckpoint(
  { epochMs, pauseShareMax, latencyMs }: Pace,
  guest: Guest,
  clock: Clock,
  startedAt: number,
  atLeastMs: number,
  interrupted: AbortSignal,
): Promise<void> {
  const until = async (dueAt: number) => {
    const ms = dueAt - clock.now()
    if (ms > 0) await clock.sleep(ms, interrupted)
  }
  if (pauseShareMax === undefined) return await until(startedAt + epochMs)
  // Whether something waits cannot be seen: something always may.
  if (guest.outputPending() === undefined)
    return await until(startedAt + (latencyMs === undefined ? epochMs : atLeastMs))
  await until(startedAt + atLeastMs)
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
