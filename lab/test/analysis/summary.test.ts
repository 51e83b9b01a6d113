/** Figures of traces against what the program that made them did, computed by hand. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PageRanges } from 'subpage/memory/page-ranges'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { CleanTimes } from '../../src/analysis/clean-time.ts'
import { Replay } from '../../src/analysis/replay.ts'
import { spans } from '../../src/analysis/spans.ts'
import { amplification, summarize } from '../../src/analysis/summary.ts'
import { lineCount, readTrace, type Trace } from '../../src/trace.ts'
import { makeTrace, small } from './made-trace.ts'

const folder = mkdtempSync(join(tmpdir(), 'subpage-summary-'))
let withContent: Trace
let without: Trace
beforeAll(() => {
  for (const content of [true, false])
    makeTrace({ ...small, path: join(folder, `${content}.trace`), content, written: true })
  withContent = readTrace(join(folder, 'true.trace'))
  without = readTrace(join(folder, 'false.trace'))
})
afterAll(() => rmSync(folder, { recursive: true }))

const lines = (maps: Uint32Array) =>
  Array.from({ length: maps.length / 2 }, (_, page) => lineCount(maps, page)).reduce((a, b) => a + b, 0)

describe('one recorded epoch', () => {
  test('sums are what the program did', () => {
    const { totals, epochs, pagesByLines, gaps, counters } = summarize(without)
    expect(epochs).toHaveLength(40)
    // Four pages an epoch; in one of them three more.
    expect(totals.dirtyPages).toBe(4 * 40 + 3)
    // Counter 1, log 2 (100 bytes), the flip 1 but not in the first epoch, which stores a 0; and three whole pages.
    expect(totals.changedLines).toBe(40 * 3 + 39 + 3 * 64)
    // The same stores: counter, twin, log, flip and the silent page.
    expect(totals.writtenLines).toBe(40 * 6 + 3 * 64)
    // The silent page always, the flip once.
    expect(pagesByLines[0]).toBe(41)
    expect(pagesByLines[64]).toBe(3)
    expect(gaps).toEqual({ late: 1, lost: 0, lateUs: 20_000, lostUs: 0 })
    expect(counters).toEqual({ logFull: 13 + 2 * 13 })
    expect(amplification(totals)).toBeCloseTo((163 * 64) / 351, 10)
  })

  test('content gives the same lines, and the size of each codec', () => {
    const [measured, estimated] = [summarize(withContent).totals, summarize(without).totals]
    expect(measured.changedLines).toBe(estimated.changedLines)
    expect(measured.changedBytes).toBe(estimated.changedBytes)
    expect([measured.codecsExact, estimated.codecsExact]).toEqual([true, false])
    // From the maps: exact but for pages that are all zeros, of which there are the silent one and the flip.
    expect(estimated.codecBytes.page).toBeGreaterThan(measured.codecBytes.page)
    expect(estimated.codecBytes.line).toBeGreaterThanOrEqual(measured.codecBytes.line)
    expect(estimated.codecBytes.line / measured.codecBytes.line).toBeLessThan(1.2)
    for (const codec of ['xor-rle', 'masked'] as const)
      expect(estimated.codecBytes[codec] / measured.codecBytes[codec]).toBeGreaterThan(0.4)
  })
})

describe('merged epochs', () => {
  test('content makes changed lines exact: what flips back has not changed', () => {
    const replay = new Replay(withContent)
    const pairs = [...spans(withContent, 2, replay)].map((span) => lines(span.changedMaps))
    replay.close()
    const union = [...spans(without, 2)].map((span) => lines(span.changedMaps))
    expect(pairs.length).toBe(union.length)
    // Epochs 2 and 3 together: counter 1, two logs of 2; the flip went 1→0→1 and is the same at both ends.
    expect(pairs[1]).toBe(1 + 4)
    expect(union[1]).toBe(1 + 4 + 1)
    expect(pairs.every((count, i) => count <= union[i]!)).toBe(true)
  })

  test('a union is an upper bound of lines and bytes, and dirty pages are equal', () => {
    for (const length of [2, 5, 10]) {
      const replay = new Replay(withContent)
      const exact = [...spans(withContent, length, replay)].map((span) => ({ ...span }))
      replay.close()
      const bound = [...spans(without, length)].map((span) => ({ ...span }))
      expect(exact.map(({ dirty }) => [...dirty.pages()])).toEqual(
        bound.map(({ dirty }) => [...dirty.pages()]),
      )
      exact.forEach((span, i) => {
        // An epoch that stands for several, because the recorder was late, is exact alone.
        expect([span.exact, bound[i]!.exact]).toEqual([true, span.epochCount > length])
        expect(span.changedBytes).toBeLessThanOrEqual(bound[i]!.changedBytes)
        expect(span.changedMaps.every((word, at) => (word & ~bound[i]!.changedMaps[at]!) === 0)).toBe(true)
        expect(span.writtenMaps).toEqual(bound[i]!.writtenMaps)
      })
    }
  })

  test('time is kept: a late epoch counts for those that it let pass', () => {
    const all = [...spans(without, 10)].map(({ epochCount, lengthUs }) => [epochCount, lengthUs])
    // The late epoch 30 stands for three, so the last group has two epochs of its own left over, which are not shown.
    expect(all).toEqual([
      [10, 100_000],
      [10, 100_000],
      [10, 100_000],
      [10, 100_000],
    ])
  })

  test('an epoch of another length is refused unless it is a multiple', () => {
    expect(summarize(without, { epochUs: 50_000 }).epochsPerSpan).toBe(5)
    for (const epochUs of [5_000, 15_000])
      expect(() => summarize(without, { epochUs })).toThrow(/choose a multiple/)
    expect(() => summarize(without, { epochUs: 100_000_000 })).toThrow(/less than one epoch of 100000 ms/)
  })

  test('lost time cuts a group, and what came before is not joined to what comes after', () => {
    const path = join(folder, 'lost.trace')
    makeTrace({
      ...small,
      path,
      content: true,
      written: false,
      gapBefore: { 5: { lengthUs: 70_000, cause: 'lost', epochsMissed: 7, reason: 'detached' } },
    })
    const trace = readTrace(path)
    const replay = new Replay(trace)
    const starts = [...spans(trace, 4, replay)].map(({ startUs, gapBefore }) => [startUs, gapBefore?.cause])
    replay.close()
    expect(starts.slice(0, 3)).toEqual([
      [0, undefined],
      [120_000, 'lost'],
      [160_000, undefined],
    ])
    expect(summarize(trace).gaps.lost).toBe(1)
  })
})

describe('clean times', () => {
  const page = (number: number) => PageRanges.of([[number, 1]])

  test('written every second span: clean for one, never for two', () => {
    const times = new CleanTimes()
    for (let span = 0; span < 100; span++) times.add(span % 2 === 0 ? page(3) : PageRanges.empty)
    const survival = times.survival()
    expect(survival[0]).toEqual([1, 1])
    expect(survival[1]).toEqual([2, 0])
  })

  test('what the end of the recording cuts off counts for as long as it was seen', () => {
    const times = new CleanTimes()
    times.add(PageRanges.of([[0, 4]]))
    times.add(PageRanges.of([[0, 2]]))
    times.add(PageRanges.empty)
    // Two of four writes were followed by another at once; the pages were clean for one span (0, 1) and two (2, 3) when it ended.
    // At 0 spans: 2 of 6 writes ended. At 1: of the four left two are cut off, none of the others ended.
    expect(times.survival()).toEqual([
      [1, 1 - 2 / 6],
      [2, 1 - 2 / 6],
    ])
  })

  test('after lost time nothing is joined', () => {
    const times = new CleanTimes()
    times.add(page(1))
    times.forget()
    times.add(page(1))
    expect(times.survival()).toEqual([])
  })
})
