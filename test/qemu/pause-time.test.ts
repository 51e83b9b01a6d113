/** How long a guest stood still, by what QEMU says of it; and what is taken where that cannot be. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { PauseTime } from '../../src/qemu/pause-time.ts'
import type { QmpEvent } from '../../src/qemu/qmp.ts'

const event = (name: string, microseconds: number): QmpEvent => ({
  event: name,
  timestamp: { seconds: 1_700_000_000, microseconds },
})

beforeAll(() => {
  vi.useFakeTimers({ toFake: ['performance'] })
})
afterAll(() => {
  vi.useRealTimers()
})

/** A pause that takes us 20 ms. @param said by QEMU, before and meanwhile */
function pause(before: QmpEvent[], meanwhile: QmpEvent[]) {
  const heard = new Map(before.map((one) => [one.event, one]))
  const time = new PauseTime({ last: (name) => heard.get(name) })
  vi.advanceTimersByTime(20)
  for (const one of meanwhile) heard.set(one.event, one)
  return time.ended()
}
/** Whether it ran until it was stopped. */
const stopped = (...meanwhile: QmpEvent[]) => {
  const heard = new Map(earlier.map((one) => [one.event, one]))
  const time = new PauseTime({ last: (name) => heard.get(name) })
  for (const one of meanwhile) heard.set(one.event, one)
  return time.stopped
}

const earlier = [event('STOP', 1_000), event('RESUME', 3_000)]

test('from when it had stopped until it ran, whatever it took to hear of it', () => {
  const { pauseUs, pausingUs } = pause(earlier, [event('STOP', 50_000), event('RESUME', 52_500)])
  expect(pauseUs).toBe(2_500)
  expect(pausingUs).toBeGreaterThan(15_000)
})

test.each([
  ['it stood before', earlier, []],
  ['it has not said that it ran again', [], [event('STOP', 50_000)]],
  ['what it said last is of an earlier pause', earlier, [event('STOP', 50_000)]],
  ['the clock was set back', [], [event('STOP', 50_000), event('RESUME', 49_000)]],
  ['the clock was set ahead', [], [event('STOP', 50_000), event('RESUME', 999_000_000)]],
])('as long as we took: %s', (_, before, meanwhile) => {
  const { pauseUs, pausingUs } = pause(before, meanwhile)
  expect(pauseUs).toBe(pausingUs)
})

test('of a guest that stood still already, and of one that somebody let run just before', () => {
  expect(stopped()).toBe(false)
  expect(stopped(event('RESUME', 49_000))).toBe(false)
  expect(stopped(event('RESUME', 49_000), event('STOP', 50_000))).toBe(true)
})
