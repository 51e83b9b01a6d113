/**
 * The study of amplification in its smallest size, on a program whose figures are known: it changes one word in each of some
 * pages, and writes others with what they hold.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { inputKinds, writeInput } from '../../src/amplification/inputs.ts'
import { text } from '../../src/amplification/result.ts'
import { headlineOf, type Lengths, type Measured, measureWorkload } from '../../src/amplification/study.ts'
import { parseWorkload, type Workload, workloadKinds, workloads } from '../../src/amplification/workload.ts'
import { plainTerminal } from '../../src/report/terminal.ts'
import { buildVictim } from '../process/victim.ts'

let folder: string
let victim: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-amplification-'))
  victim = buildVictim(folder)
})
afterAll(() => rmSync(folder, { recursive: true }))

const plan = {
  round: [
    { epochMs: 1, count: 3 },
    { epochMs: 20, count: 3 },
  ],
  rounds: 2,
}
const run = (workload: Workload) =>
  measureWorkload(workload, plan, () => undefined, new AbortController().signal)

const words = (): Workload => ({
  name: 'words',
  kind: 'synthetic',
  about: 'changes one word in each of 64 pages, again and again',
  packages: { 'base-files': 'some other version' },
  files: { 'ready.txt': 'x' },
  setup: ['test -s ready.txt', 'touch was-set-up'],
  run: [victim, 'words', '64'],
  ready: 'test -e was-set-up && grep -q begun output.log',
})

test('a workload whose figures are known', async () => {
  const measured = await run(words())
  expect(measured.missing).toBeUndefined()
  expect(measured.differing[0]).toMatch(/^base-files .* in place of some other version$/)
  expect(measured.endedEarly).toBe(false)
  expect(measured.lengths.map(({ epochMs, count }) => [epochMs, count])).toEqual([
    [1, 6],
    [20, 6],
  ])
  const [, long] = measured.lengths
  // 64 pages with a line each, 64 silent ones; a few of the C library's beside them.
  expect(long!.amplification).toBeGreaterThan(50)
  expect(long!.amplification).toBeLessThanOrEqual(64)
  expect(long!.writtenAmplification! / long!.amplification!).toBeGreaterThan(1.7)
  expect(long!.xorRleGain).toBeGreaterThan(4)
  expect(long!.ranUs / long!.count).toBeGreaterThanOrEqual(20_000)
  expect(headlineOf([measured], 20)).toMatchObject({ workloads: 1, shareAbove10: 1 })
})

test('what is missing or fails is named, and nothing is left behind', async () => {
  expect(await run({ ...words(), packages: { 'no-such-package': '1' } })).toMatchObject({
    missing: 'package no-such-package is not installed',
    lengths: [],
  })
  expect((await run({ ...words(), stdin: 'not-there' })).missing).toMatch(/ENOENT.*not-there/)
  expect((await run({ ...words(), setup: ['echo no luck >&2; false'] })).missing).toMatch(/set up.*no luck/)
  expect(
    (await run({ ...words(), run: ['/bin/sh', '-c', 'echo gone; exit 3'], ready: 'false' })).missing,
  ).toMatch(/ended before it could be recorded · .*gone/)
})

test('the table says what is late, missing or in a guest; guests are no part of the headline', async () => {
  const measured = await run(words())
  const [short, long] = measured.lengths as [Lengths, Lengths]
  const rows: Measured[] = [
    {
      ...measured,
      lengths: [
        { ...short, count: 6, lateCount: 1, ranUs: 12_000 },
        { ...long, lateCount: 0 },
      ],
    },
    {
      ...measured,
      name: 'guest/words',
      inGuest: true,
      lengths: [
        { ...short, lateCount: 0 },
        { ...long, lateCount: 0 },
      ],
    },
    { ...measured, name: 'absent', missing: 'package absent is not installed', lengths: [] },
  ]
  const headline = [1, 20].map((epochMs) => headlineOf(rows, epochMs))
  expect(headline.map(({ workloads }) => workloads)).toEqual([1, 1])
  const lines = text({ measured: rows, headline }, { ...plainTerminal, columns: 120 }).split('\n')
  const row = (name: string) => lines.find((line) => line.startsWith(name))
  expect(row('words ')).toMatch(/\d× ?\*.* late: 1 ms took 2 ms/)
  expect(row('guest/words')).toMatch(/in a guest/)
  expect(row('guest/words')).not.toMatch(/\*|late/)
  expect(lines.join(' ')).toMatch(/Of 1 workloads? a share says little: the paper has 30/)
  expect(row('absent')).toMatch(/package absent is not installed/)
})

test('a child of what was started', async () => {
  const measured = await run({
    ...words(),
    run: ['/bin/sh', '-c', `${victim} words 64 & echo $! > child; wait`],
    ready: 'test -s child && grep -q begun output.log',
    pid: `cat child; cp child ${join(folder, 'child')}`,
  })
  expect(measured.lengths[1]!.amplification).toBeGreaterThan(50)
  const pid = readFileSync(join(folder, 'child'), 'utf8').trim()
  await expect.poll(() => existsSync(`/proc/${pid}/stat`)).toBe(false)
})

test('a part of interest that ends', async () => {
  const measured = await run({ ...words(), until: 'true' })
  expect(measured).toMatchObject({ endedEarly: true })
  expect(measured.lengths[0]!.count).toBe(0)
})

describe('the files in workloads/', () => {
  test('are well-formed, at least 30, of every kind', () => {
    const all = workloads()
    expect(all.length).toBeGreaterThanOrEqual(30)
    expect(new Set(all.map(({ kind }) => kind))).toEqual(new Set(workloadKinds))
    expect(all.filter(({ quick }) => quick)).toHaveLength(3)
  })

  test('one that is not says where', () => {
    expect(() => parseWorkload('x', '{')).toThrow(/x is not JSON/)
    expect(() => parseWorkload('x', '{"kind":"synthetic"}')).toThrow(/workload x: /)
    expect(() => parseWorkload('x', JSON.stringify({ ...words(), name: undefined, extra: 1 }))).toThrow(
      /workload x: /,
    )
  })
})

test.each(inputKinds)('inputs of kind %s are the same each time', (kind) => {
  const [one, two] = [join(folder, 'one'), join(folder, 'two')]
  writeInput(one, kind, 3)
  writeInput(two, kind, 3)
  expect(statSync(one).size).toBeGreaterThan(0)
  expect(readFileSync(one).equals(readFileSync(two))).toBe(true)
})
