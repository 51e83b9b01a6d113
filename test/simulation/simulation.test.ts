/** The first half of the schedules (many-schedules.ts); and that a seed says all. Those that were bad once: explicit.test.ts. */
import { expect, test } from 'vitest'
import { testSchedules } from './many-schedules.ts'
import { simulate } from './schedule.ts'

testSchedules('first half')

/** The time that people read is that of the wall clock, which the simulation does not have. */
const undated = (log: string[]) => log.map((line) => line.replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'DATE'))

/** One with a takeover; one with a QEMU that hangs. */
test.each([7, 1137])('seed %i gives the same schedule again', async (seed) => {
  const [once, again] = await Promise.all([simulate(seed), simulate(seed)])
  expect(undated(again.log)).toEqual(undated(once.log))
  expect(again.events).toBe(once.events)
})
