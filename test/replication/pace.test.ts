/** When the next checkpoint begins, in a time that the test lets pass. */
import { expect, test } from 'vitest'
import type { Clock } from '../../src/replication/clock.ts'
import type { Guest } from '../../src/replication/guest.ts'
import { longestMs, nextCheckpoint, type Pace } from '../../src/replication/pace.ts'

/** @returns when it begins, milliseconds after the last, by a guest that sends something at `sendsAtMs` */
async function begins(pace: Pace, costMs: number, sendsAtMs = Number.POSITIVE_INFINITY): Promise<number> {
  let nowMs = 0
  const clock = {
    now: () => nowMs,
    sleep: async (ms: number) => {
      nowMs += ms
    },
  } as unknown as Clock
  const guest = { outputPending: () => nowMs >= sendsAtMs } as unknown as Guest
  await nextCheckpoint(pace, guest, clock, 0, costMs * 1000, new AbortController().signal)
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
  expect(longestMs(pace, 30_000)).toBe(300)
  expect(longestMs(pace, 2_000)).toBe(100)
  expect(longestMs({ epochMs: 25 }, 30_000)).toBe(25)
})
