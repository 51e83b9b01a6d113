/** From what was watched to an estimate: scaling up, whose turn it is, stability, phases, outliers. */
import { expect, test } from 'vitest'
import { SamplingEstimator } from '../../lab/src/working-set/sampling.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { DistEstimator } from '../../src/workingset/dist.ts'
import type { Observation } from '../../src/workingset/observation.ts'
import { RandomPagesPlan, RotatingPlan } from '../../src/workingset/plan.ts'
import { scaleUp } from '../../src/workingset/share.ts'

const range = (first: number, count: number) => PageRanges.of([[first, count]])

/** Always the same numbers. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
}

function observation(
  watched: PageRanges,
  accessed: PageRanges,
  sampled?: Observation['sampled'],
): Observation {
  return {
    ...{ startMs: 0, endMs: 1, watched, accessed, written: undefined, present: accessed, endsInterval: true },
    ...(sampled && { sampled }),
  }
}

test('what was watched stands for itself, what was sampled for the others too', () => {
  const blocks = (firsts: number[], count: number) =>
    PageRanges.of(firsts.map((first) => [first, count] as const))
  const sampled = { part: blocks([0, 20, 40, 60], 10), of: 100 }
  const watched = sampled.part.union(range(100, 900))
  const found = blocks([0, 20, 40, 60], 5).union(range(500, 7))
  expect(scaleUp(1000, watched, found, sampled).pages).toBe(50 + 7)
  expect(scaleUp(1000, PageRanges.all(1000), found)).toEqual({ pages: 27, plusMinus: 0 })
  // A sample whose blocks differ is less sure than one whose blocks are alike.
  const differ = scaleUp(1000, watched, blocks([0, 40], 10), sampled)
  expect(differ.pages).toBe(50)
  expect(differ.plusMinus).toBeGreaterThan(scaleUp(1000, watched, found, sampled).plusMinus)
})

test('every page that has an entry has its turn, once in a round; all others are watched always', () => {
  const plan = new RotatingPlan(10_000, seeded(1))
  const present = range(1000, 5000)
  let turns = PageRanges.empty
  let count = 0
  for (let turn = 0; turn < 8; turn++) {
    const { watched, sampled } = plan.next(8, present)
    expect(sampled?.of).toBe(5000)
    expect(watched.subtract(present).pageCount).toBe(5000)
    count += sampled!.part.pageCount
    turns = turns.union(sampled!.part)
  }
  expect(count).toBe(5000)
  expect(turns.pageCount).toBe(5000)
  expect(plan.next(1, present)).toEqual({ watched: PageRanges.all(10_000) })
})

test('the error bar holds the truth about as often as it says', () => {
  const random = seeded(7)
  const pages = 20_000
  const hot = PageRanges.of(
    Array.from({ length: pages }, (_, page) => page)
      .filter((page) => page < 15_000 && random() < 0.7)
      .map((page) => [page, 1] as const),
  )
  let held = 0
  for (let round = 0; round < 60; round++) {
    const { watched, sampled } = new RotatingPlan(pages, random).next(10, range(0, 16_000))
    const { pages: found, plusMinus } = scaleUp(pages, watched, hot.intersect(watched), sampled)
    expect(Math.abs(found - hot.pageCount)).toBeLessThan(0.2 * hot.pageCount)
    if (Math.abs(found - hot.pageCount) <= plusMinus) held++
  }
  expect(held).toBeGreaterThan(50)
})

// Hot: so many blocks of ten pages, of 1600. A sample that finds none, or nothing else, may still have missed some.
test.each([1, 3, 10, 1590, 1597, 1599])(
  'the error bar holds the truth when %i blocks of 1600 are in use',
  (blocks) => {
    const random = seeded(blocks)
    const hot = range(32, blocks * 10)
    let held = 0
    for (let round = 0; round < 60; round++) {
      const { watched, sampled } = new RotatingPlan(20_000, random).next(10, range(0, 16_000))
      const { pages, plusMinus } = scaleUp(20_000, watched, hot.intersect(watched), sampled)
      if (Math.abs(pages - hot.pageCount) <= plusMinus) held++
    }
    expect(held).toBeGreaterThan(50)
  },
)

test('a sample of one block says next to nothing', () => {
  const one = { part: range(160, 16), of: 1000 }
  const { pages, plusMinus } = scaleUp(1000, one.part, PageRanges.empty, one)
  expect(pages + plusMinus).toBe(1000 - 16)
  const { pages: all, plusMinus: doubt } = scaleUp(1000, one.part, one.part, one)
  expect(all - doubt).toBeLessThanOrEqual(16)
})

test('a change of size in two intervals is a phase; one interval is an outlier, unless it keeps coming', () => {
  const estimator = new DistEstimator(100_000)
  const add = (...sizes: number[]) => {
    for (const pages of sizes) estimator.addInterval({ pages, plusMinus: 0 })
  }
  add(10_000, 10_010)
  expect(estimator.estimate?.stable).toBe(false)
  add(9_990)
  expect(estimator.estimate).toMatchObject({ pages: 10_000, stable: true, intervals: 3 })
  add(30_000, 10_000, 10_000, 10_000)
  expect(estimator.estimate).toMatchObject({ pages: 10_000, stable: true })
  expect(estimator.phaseChanges).toBe(0)
  add(50_000, 50_000)
  expect(estimator.phaseChanges).toBe(1)
  expect(estimator.estimate).toMatchObject({ pages: 50_000, stable: false, intervals: 2 })
  add(50_000, 20_000, 50_000, 20_000, 50_000, 20_000)
  expect(estimator.estimate?.stable).toBe(false)
  expect(estimator.estimate?.pages).toBeCloseTo(38_750, -2)
  expect(estimator.estimate?.plusMinus).toBeGreaterThan(5_000)
})

test('until a working set is stable, its estimate is the mean of all intervals since it last was', () => {
  const estimator = new DistEstimator(100_000)
  const add = (...sizes: number[]) => {
    for (const pages of sizes) estimator.addInterval({ pages, plusMinus: 0 })
  }
  add(4000, 8000, 8000, 3000, 3000, 8000)
  expect(estimator.estimate).toMatchObject({ stable: false, intervals: 6 })
  expect(estimator.estimate?.pages).toBeCloseTo(34_000 / 6)
  expect(estimator.phaseChanges).toBe(0)
  add(20_000, 20_000)
  expect(estimator.estimate).toMatchObject({ stable: false, intervals: 8 })
  // The 8000 before them may have been on its way to them: it is no part of their phase.
  add(20_000, 20_000)
  expect(estimator.estimate).toMatchObject({ pages: 20_000, stable: true, intervals: 4 })
})

test('tau asks for more than one touch in an interval', () => {
  const estimator = new DistEstimator(100, { tau: 1, stableIntervals: 1, tolerance: 0.1 })
  estimator.add({ ...observation(PageRanges.all(100), range(0, 30)), endsInterval: false })
  estimator.add(observation(PageRanges.all(100), range(20, 30)))
  expect(estimator.estimate?.pages).toBe(10)
})

test('sampling: the share of random pages that were touched', () => {
  const plan = new RandomPagesPlan(1000, 100, seeded(3))
  const estimator = new SamplingEstimator(1000)
  for (let interval = 0; interval < 30; interval++) {
    const { watched } = plan.next()
    expect(watched.pageCount).toBe(100)
    estimator.add(observation(watched, watched.intersect(range(0, 400))))
  }
  const { pages, plusMinus } = estimator.estimate!
  expect(Math.abs(pages - 400)).toBeLessThan(2 * plusMinus)
  expect(plusMinus).toBeLessThan(25)
})

test('sampling: where none of the pages was touched, or all were, a few in a hundred may be otherwise', () => {
  const watched = PageRanges.of(Array.from({ length: 100 }, (_, n) => [n * 10, 1] as const))
  for (const touched of [PageRanges.empty, watched]) {
    const estimator = new SamplingEstimator(1000)
    estimator.add(observation(watched, touched))
    expect(estimator.estimate?.plusMinus).toBeGreaterThanOrEqual(30)
  }
})
