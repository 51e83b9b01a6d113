/** When the next checkpoint begins, in a time that the test lets pass. */
import { describe, expect, test } from 'vitest'
import type { Clock } from '../../src/replication/clock.ts'
import { EpochStats } from '../../src/replication/epoch-stats.ts'
import type { Guest } from '../../src/replication/guest.ts'
import {
  automaticPace,
  longestMs,
  nextCheckpoint,
  type Pace,
  shortestMs,
} from '../../src/replication/pace.ts'
import { seededRandom } from '../support/random.ts'
import { epochReport as report } from './epoch-report.ts'

/** @returns when it begins, milliseconds after the last, by a guest that sends something at `sendsAtMs` */
async function begins(pace: Pace, costMs: number, sendsAtMs = Number.POSITIVE_INFINITY): Promise<number> {
  const atLeastMs = shortestMs(pace, costMs * 1000, { pausingUs: 0, commitUs: 0 })
  let nowMs = 0
  const clock = {
    now: () => nowMs,
    sleep: async (ms: number) => {
      nowMs += ms
    },
  } as unknown as Clock
  const guest = { outputPending: () => nowMs >= sendsAtMs } as unknown as Guest
  await nextCheckpoint(pace, guest, clock, 0, atLeastMs, new AbortController().signal)
  return nowMs
}

test('fixed: an epoch after the last, whatever it cost', async () => {
  expect(await begins({ epochMs: 25 }, 20, 0)).toBe(25)
})

test('automatic: as soon as something waits, if that costs no more than the stated share', async () => {
  const pace = { epochMs: 100, pauseShareMax: 0.1 }
  expect(await begins(pace, 2, 0)).toBe(20)
  expect(await begins(pace, 2, 37)).toBe(37)
  expect(await begins(pace, 2)).toBe(100)
})

test('automatic: the share counts more than the longest epoch', async () => {
  const pace = { epochMs: 100, pauseShareMax: 0.1 }
  expect(await begins(pace, 30, 0)).toBe(300)
  expect(await begins(pace, 30)).toBe(300)
  // What is later than that is late.
  expect(longestMs(pace, 300)).toBe(300)
  expect(longestMs(pace, 20)).toBe(100)
})

/**
 * A guest that writes all the time, in a model: what a checkpoint takes grows with the epoch before it, and differs from one to the next.
 * @returns means of the last 100 epochs of 400: between two checkpoints, of what is sent at any time, and as `status` has it
 */
function pacedModel(
  pace: Pace,
  takes: (epochMs: number) => { pauseMs: number; commitMs: number },
): { epochMs: number; waitMs: number; statedMs: number; share: number } {
  const stats = new EpochStats()
  const noise = seededRandom(7)
  let [nowMs, epochMs] = [0, pace.epochMs]
  const sums = { epochMs: 0, waitMs: 0, pauseMs: 0 }
  for (let n = 0; n < 400; n++) {
    const much = noise.integer(70, 130) / 100
    const { pauseMs, commitMs } = takes(epochMs * much)
    nowMs += epochMs
    const [pauseUs, commitUs] = [pauseMs * 1000, commitMs * 1000]
    stats.add(report({ pauseUs, pausingUs: pauseUs, commitUs }), nowMs)
    if (n >= 300) {
      sums.epochMs += epochMs / 100
      sums.waitMs += ((epochMs - pauseMs) / 2 + pauseMs + commitMs) / 100
      sums.pauseMs += pauseMs / 100
    }
    // It sends all the time: a checkpoint begins as soon as one may, but not before the last is committed.
    epochMs = Math.max(stats.shortestMs(pace, pauseMs * 1000), pauseMs + commitMs)
  }
  return {
    epochMs: sums.epochMs,
    waitMs: sums.waitMs,
    statedMs: stats.summary(nowMs).cost!.outputWaitMs!,
    share: sums.pauseMs / sums.epochMs,
  }
}

describe('a goal for what clients wait', () => {
  const takes = (epochMs: number) => ({ pauseMs: 0.5 + 0.02 * epochMs, commitMs: 0.3 + 0.03 * epochMs })

  test.each([3, 5, 20, 100])('of %d ms is met, by the longest epochs that allow it', (latencyMs) => {
    const { waitMs, statedMs, epochMs } = pacedModel({ ...automaticPace, latencyMs }, takes)
    expect(waitMs / latencyMs).toBeCloseTo(1, 1)
    expect(statedMs / waitMs).toBeCloseTo(1, 1)
    // As the model has it: what lies between two pauses counts half.
    expect(epochMs / ((2 * latencyMs - 1.1) / 1.08)).toBeCloseTo(1, 1)
  })

  test('that cannot be met costs no more than what may be spent, and what clients wait is stated', () => {
    const slow = (epochMs: number) => ({ pauseMs: 4 + 0.02 * epochMs, commitMs: 3 })
    const { waitMs, statedMs, share } = pacedModel(
      { ...automaticPace, latencyMs: 5, pauseShareMax: 0.25 },
      slow,
    )
    expect(share).toBeCloseTo(0.25, 1)
    expect(waitMs).toBeGreaterThan(10)
    expect(statedMs / waitMs).toBeCloseTo(1, 1)
  })

  test('settles where a commit grows faster than the epoch before it', () => {
    const steep = (epochMs: number) => ({ pauseMs: 0.5, commitMs: 0.5 * epochMs })
    const { waitMs } = pacedModel({ ...automaticPace, latencyMs: 20 }, steep)
    expect(waitMs / 20).toBeCloseTo(1, 1)
  })

  test('counts every epoch where it cannot be seen whether something waits', async () => {
    const slept: number[] = []
    const clock = { now: () => 0, sleep: async (ms: number) => void slept.push(ms) } as unknown as Clock
    const blind = { outputPending: () => undefined } as unknown as Guest
    for (const pace of [automaticPace, { ...automaticPace, latencyMs: 5 }])
      await nextCheckpoint(pace, blind, clock, 0, 8, new AbortController().signal)
    expect(slept).toEqual([100, 8])
  })
})
