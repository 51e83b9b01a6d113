/** What a process must survive, each in a process of its own: workers that end, regions that are collected, long runs. */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { median } from '../../lab/src/report/statistics.ts'
import { packageRoot } from '../../src/memory/native.ts'

function child(name: string): string {
  return execFileSync(
    process.execPath,
    ['--expose-gc', join(import.meta.dirname, 'children', `${name}.mjs`)],
    {
      env: { ...process.env, SUBPAGE_ADDON: join(packageRoot, 'build/native/subpage.node') },
      encoding: 'utf8',
    },
  )
}

it('survives workers that end while their captures run', () => {
  expect(child('worker-exit').trim()).toBe('survived')
})

it('unmaps regions that nobody closed, and none that an operation uses', () => {
  const { bytes, during, after, same } = JSON.parse(child('collected'))
  expect(during).toBeGreaterThanOrEqual(bytes)
  expect(after).toBeLessThan(bytes)
  expect(same).toBe(true)
})

it('does not grow over thousands of epochs', () => {
  const { grown, jobs, changed } = JSON.parse(child('steady'))
  expect(changed).toBeGreaterThan(10_000)
  // What jobs leave behind grows in each slice; what the process happens to take once, in one.
  expect(median(grown), JSON.stringify(grown)).toBeLessThan(jobs * 100)
})
