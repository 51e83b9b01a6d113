/** The study of PML on a real guest whose writes are known: 2,048 pages, each written once in 100 ms. */
import { expect, test } from 'vitest'
import { study } from '../../src/pml/study.ts'
import { plainTerminal } from '../../src/report/terminal.ts'

const options = { set: 'quick', note: () => undefined, signal: new AbortController().signal } as const

test('N is that of the pages written, for every size of log', async () => {
  const { json, text, report } = await study.run({ ...options, only: ['write 8 MiB'] })
  const [counted] = json.counted as [
    { name: string; seconds: number; logged: number; full: Record<number, number> },
  ]
  expect(counted.name).toBe('write 8 MiB')
  // Its own pages and a few of the kernel's. On a busy host the guest gets less done, never more.
  const perArm = counted.logged / (counted.seconds * 10)
  expect(perArm).toBeGreaterThan(500)
  expect(perArm).toBeLessThan(3000)
  // The rest of a log when pages are armed is lost to no size more than to a larger one.
  const { full } = counted
  expect(full[128]).toBeLessThanOrEqual(counted.logged / 128)
  expect(full[128]).toBeGreaterThan(0.7 * (counted.logged / 128))
  for (const entries of [128, 256, 512, 1024, 2048])
    expect(2 * full[2 * entries]!).toBeLessThanOrEqual(full[entries]!)
  expect(json.headline).toMatchObject({ workloads: 1, slowdown: {} })
  expect(Object.keys(json).at(-1)).toBe('headline')
  expect(text(plainTerminal)).toMatch(/write 8 MiB +\d{4,5} +\d+/)
  expect(report.sections).toHaveLength(3)
})

test('a part that there is not, and an end before the time', async () => {
  await expect(study.run({ ...options, only: ['hpl'] })).rejects.toThrow(/no part is named hpl.*idle.*prl/)
  const ended = { ...options, only: ['userfault'], signal: AbortSignal.abort() }
  await expect(study.run(ended)).rejects.toThrow()
})
