/** The study of amplification with a real guest as the workload. */
import { readdirSync } from 'node:fs'
import { expect, test } from 'vitest'
import { chosenInGuest, type MeasuredGuest, measureInGuest } from '../../src/amplification/in-guest.ts'

const plan = {
  round: [
    { epochMs: 10, count: 4 },
    { epochMs: 100, count: 3 },
  ],
  rounds: 1,
}

test('a guest with a database changes pages, and not all of their lines', async () => {
  const chosen = chosenInGuest(['guest/sqlite'])
  const lacking = { ...chosen[0]!, needs: ['no-such-program'] }
  const found: MeasuredGuest[] = []
  const rams = () => readdirSync('/dev/shm').filter((file) => /^subpage-.*-study\.ram$/.test(file))
  const before = rams()
  await measureInGuest(
    [lacking, ...chosen],
    plan,
    () => undefined,
    new AbortController().signal,
    (one) => found.push(one),
  )
  expect(found[0]).toMatchObject({ failed: "the guest's image lacks no-such-program", epochs: [] })
  const { epochs, memoryBytes } = found[1]!
  expect(epochs.map(({ epochMs, count }) => [epochMs, count])).toEqual([
    [10, 4],
    [100, 3],
  ])
  const [, long] = epochs
  expect(long!.ranUs).toBeGreaterThanOrEqual(300_000)
  expect(long!.dirtyPages).toBeGreaterThan(0)
  expect(long!.dirtyPages).toBeLessThan(memoryBytes / 4096)
  expect(long!.changedLines).toBeGreaterThan(0)
  expect(long!.changedLines).toBeLessThan(64 * long!.changedPages)
  expect(rams().filter((file) => !before.includes(file))).toEqual([])
  expect(long!.changedBytes).toBeLessThanOrEqual(64 * long!.changedLines)
})
