/** One watch of a guest for all who ask, with the settings of whoever has listened longest. Its memory is a real process's. */
import { afterAll, expect, test } from 'vitest'
import { MemoryWatch, type WatchQuery } from '../../src/agent/supervisor/memory-watch.ts'
import { faultCosts, openAccesses } from '../../src/tracking/accesses.ts'
import type { Sample } from '../../src/workingset/sample.ts'
import { Victims } from '../tracking/victim.ts'

const victims = new Victims()
afterAll(() => victims.close())

const pages = 4096
const all: WatchQuery = { intervalMs: 50, subIntervals: 1, budget: 1 }
const aPart: WatchQuery = { ...all, budget: 0.0001 }

test('who comes second and stays gets their own settings once the first has left, and what was seen stays', async () => {
  const victim = await victims.start({ pages })
  await victim.run('write 0 4096')
  const watch = new MemoryWatch({
    watchAccesses: () => ({
      accesses: openAccesses(victim.target),
      costs: faultCosts(),
      beginWrites: () => false,
      endWrites: () => undefined,
    }),
  } as ConstructorParameters<typeof MemoryWatch>[0])
  const seen: Sample[] = []
  const failed = (error: Error) => expect.unreachable(error.message)
  const leaveFirst = watch.listen({ sample: () => undefined, failed }, all)
  const leaveSecond = watch.listen({ sample: (sample) => seen.push(sample), failed }, aPart)
  await expect.poll(() => seen.length).toBeGreaterThan(2)
  expect(seen.every(({ watchedPages }) => watchedPages === pages)).toBe(true)
  const { hotMap } = watch
  leaveFirst()
  await expect
    .poll(async () => {
      // All of it is in use, so that forgetting all of it costs more than it may.
      await victim.run('load 0 4096')
      return seen.at(-1)!.watchedPages
    })
    .toBeLessThan(pages)
  expect(watch.hotMap).toBe(hotMap)
  leaveSecond()
  expect(watch.workingSets.watched).toBe(false)
})
