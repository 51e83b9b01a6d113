/**
 * A thousand schedules and more of everything that goes wrong between two hosts, over the production code of src/replication.
 * SUBPAGE_SIM_SEED replays one; SUBPAGE_SIM_COUNT and SUBPAGE_SIM_FIRST choose which ones run.
 */
import { expect, test, vi } from 'vitest'
import { numberSetting } from '../../src/environment.ts'
import { describeFailure, simulateMany } from './run-many.ts'

const one = numberSetting('SUBPAGE_SIM_SEED', 0)
const firstOfAll = one ?? numberSetting('SUBPAGE_SIM_FIRST', 0) ?? 1
const countOfAll = one === undefined ? (numberSetting('SUBPAGE_SIM_COUNT', 1) ?? 1_200) : 1

export function testSchedules(half: 'first half' | 'second half'): void {
  const firstCount = Math.ceil(countOfAll / 2)
  const [first, count] =
    half === 'first half' ? [firstOfAll, firstCount] : [firstOfAll + firstCount, countOfAll - firstCount]
  test(`${count} schedules from seed ${first}`, { timeout: 600_000 }, async () => {
    const restore = jumpingDates()
    const startedAt = performance.now()
    const { failed, ...summary } = await simulateMany(first, count).finally(restore)
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(1)
    console.log(JSON.stringify({ ...summary, failed: failed.length, seconds: Number(seconds) }))
    if (count > 100) expect(summary.hotPages).toBeGreaterThan(count)
    const kinds = failed.map(({ seed, failure }) => `${seed}: ${failure?.message}`)
    expect(failed.length === 0 ? '' : [...kinds, describeFailure(failed[0]!)].join('\n')).toBe('')
  })
}

/** No wall clock decides anything: it is another one at each look. @returns ends it */
function jumpingDates(): () => void {
  const { now } = Date
  const jumpsHours = [0, 5, -30, 400, -7, 1]
  let looks = 0
  const spy = vi
    .spyOn(Date, 'now')
    .mockImplementation(() => now() + (jumpsHours[looks++ % jumpsHours.length] ?? 0) * 3_600_000)
  return () => spy.mockRestore()
}
