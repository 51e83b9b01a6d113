/** The study of synchronisation in its smallest size: a recording made here, replayed through the code of protect. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pageBytes } from 'subpage/memory/page'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { plainTerminal } from '../src/report/terminal.ts'
import type { StudyResult } from '../src/study.ts'
import type { Headline } from '../src/sync/headline.ts'
import type { Cell } from '../src/sync/measure.ts'
import { study } from '../src/sync/study.ts'
import { allTogether, techniques } from '../src/sync/technique.ts'
import { makeTrace } from './analysis/made-trace.ts'

const pages = 256
const steps = 90
const text = (seed: number, length: number) =>
  Uint8Array.from({ length }, (_, i) => 97 + ((i * i + seed * 7 + (i >> 5)) % 26))

let folder: string
let result: StudyResult
const options = { set: 'quick', note: () => undefined, signal: new AbortController().signal } as const

/** Counters that never rest, a log that is not touched again, pages that are copied from what is there, a page that is cleared. */
const program = (content: boolean, path: string) =>
  makeTrace({
    path,
    pages,
    epochs: steps,
    content,
    written: false,
    program(store, step) {
      for (let page = 1; page < 5; page++)
        store(page * pageBytes + 8 * (step % 4), Uint8Array.of(step + 1, page))
      for (let n = 0; n < 2; n++) store((10 + 2 * step + n) * pageBytes, text(2 * step + n, pageBytes))
      if (step % 9 === 8) store((230 + Math.floor(step / 9)) * pageBytes, text(3, pageBytes))
      store(250 * pageBytes, new Uint8Array(pageBytes))
    },
  })

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-sync-test-'))
  const path = join(folder, 'made.trace')
  program(true, path)
  result = await study.run({ ...options, traces: [path] })
})
afterAll(() => rmSync(folder, { recursive: true }))

const cells = () => result.json.cells as Cell[]

test('every technique of the set is measured, and the headline comes last', () => {
  expect(cells().map(({ workload, epochMs }) => [workload, epochMs])).toEqual([
    ['made', 25],
    ['made', 100],
  ])
  const quick = techniques.filter(({ quick }) => quick).map(({ name }) => name)
  for (const { costs, epochs } of cells()) {
    expect(Object.keys(costs)).toEqual(quick)
    expect(epochs).toBeGreaterThan(5)
  }
  expect(Object.keys(result.json).at(-1)).toBe('headline')
  const headline = result.json.headline as Headline
  expect(headline.workloads).toBe(1)
  for (const figure of Object.values(headline)) expect(figure).toBeTypeOf('number')
  expect(headline.reductionAll).toBeGreaterThan(headline.reductionFineGrained)
  expect(headline.reductionFineGrained).toBeGreaterThan(1)
})

test('nothing that is added costs more than it saves', () => {
  expect((result.json.judgement as { worst: number }).worst).toBeLessThanOrEqual(1.02)
})

describe('the predictor', () => {
  test('leaves less for the end than sending nothing early, and wastes less than sending all of it', () => {
    for (const { costs, epochMs } of cells()) {
      const [never, predicted, always] = ['+ compression', allTogether, 'all, early always'].map(
        (name) => costs[name]!,
      )
      expect(predicted!.finalPages, `${epochMs} ms`).toBeLessThan(never!.finalPages)
      expect(predicted!.finalBytes, `${epochMs} ms`).toBeLessThan(never!.finalBytes)
      expect(predicted!.wastedPages, `${epochMs} ms`).toBeLessThan(always!.wastedPages)
    }
  })

  test('keeps what is in vain below the stated share', () => {
    for (const { costs } of cells())
      expect(costs[allTogether]!.wastedBytes / costs[allTogether]!.totalBytes).toBeLessThan(0.1)
  })
})

test('smaller blocks send less', () => {
  for (const { blockBytes } of cells()) {
    const sizes = Object.values(blockBytes)
    expect(sizes).toEqual([...sizes].sort((a, b) => a - b))
  }
})

test('the text names what was measured', () => {
  const shown = result.text(plainTerminal)
  for (const word of ['made', '25 ms', 'XOR-RLE', 'in vain']) expect(shown).toContain(word)
})

test('a recording without content is refused', async () => {
  const path = join(folder, 'bare.trace')
  program(false, path)
  await expect(study.run({ ...options, traces: [path] })).rejects.toMatchObject({ code: 'BAD_ARGUMENT' })
})
