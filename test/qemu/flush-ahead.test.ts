/** When disks are flushed before a pause, so that QEMU's own flush in it is short. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, expect, test } from 'vitest'
import { FlushAhead } from '../../src/qemu/flush-ahead.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-flush-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const path = join(directory, 'disk')
writeFileSync(path, 'content')

function flushing(syncMs: number, paths = [path]) {
  const seen = { writes: 0 as number | undefined, syncs: 0, syncMs }
  const ahead = new FlushAhead({ paths, writes: () => seen.writes }, async () => {
    seen.syncs++
    await delay(seen.syncMs)
  })
  return { seen, ahead }
}

test('only after a pause in which the flush was costly, and only of what was written to', async () => {
  const { seen, ahead } = flushing(5)
  await ahead.run()
  ahead.paused(900)
  await ahead.run()
  expect(seen.syncs).toBe(0)
  ahead.paused(1100)
  await ahead.run()
  expect(seen.syncs).toBe(1)
  // It goes on while it is what keeps the pause short.
  ahead.paused(50)
  await ahead.run()
  expect(seen.syncs).toBe(1)
  for (let written = 1; written <= 3; written++) {
    seen.writes = written
    await ahead.run()
    ahead.paused(50)
    expect(seen.syncs).toBe(1 + written)
  }
  seen.writes = undefined
  await ahead.run()
  expect(seen.syncs).toBe(4)
  ahead.close()
})

test('ends when it is cheap itself', async () => {
  const { seen, ahead } = flushing(5)
  ahead.paused(1100)
  seen.syncMs = 0
  // A machine that is busy may take longer, now and then.
  await expect
    .poll(async () => {
      const before = seen.syncs
      seen.writes!++
      await ahead.run()
      ahead.paused(10)
      return seen.syncs - before
    })
    .toBe(0)
  ahead.close()
})

test('a disk that cannot be opened, or fails, costs nothing but that', async () => {
  const { seen, ahead } = flushing(0, [join(directory, 'absent')])
  ahead.paused(1100)
  await ahead.run()
  const failing = new FlushAhead({ paths: [path], writes: () => 1 }, () => Promise.reject(new Error('EIO')))
  failing.paused(1100)
  await failing.run()
  expect(seen.syncs).toBe(0)
  failing.close()
})

test('one that hangs is joined, not repeated', async () => {
  const seen = { writes: 0, syncs: 0 }
  let end: () => void = () => undefined
  const ahead = new FlushAhead({ paths: [path], writes: () => seen.writes++ }, () => {
    seen.syncs++
    return new Promise((resolve) => {
      end = resolve
    })
  })
  ahead.paused(1100)
  const first = ahead.run()
  const second = ahead.run()
  expect(seen.syncs).toBe(1)
  end()
  await Promise.all([first, second])
  ahead.close()
})
