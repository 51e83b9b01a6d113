/** Which pages are left unarmed, and what is counted of them; that no change is missed for it. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { type HotPageCosts, HotPages } from '../../src/tracking/hot-pages.ts'

const pages = 64
/** Much as this kind of machine does them. */
const costs: HotPageCosts = { faultNs: 700, compareNs: 300, runNs: 400 }

const runs = (...pairs: [first: number, count: number][]) => PageRanges.of(pairs)
const list = (ranges: PageRanges) => [...ranges].map(({ first, count }) => [first, count])

/** One epoch, as a checkpoint does it: pages that were left are captured whether they were written or not. */
function epoch(hot: HotPages, changed: PageRanges, written = changed): PageRanges {
  const captured = written.union(hot.leave)
  for (const page of changed.pages()) hot.changed[page] = 1
  return hot.learn(captured)
}

const epochs = (hot: HotPages, count: number, changed: PageRanges) => {
  for (let n = 0; n < count; n++) epoch(hot, changed)
}

test('an area that changes in most epochs is left, and armed again when it rests', () => {
  const hot = new HotPages(pages, costs)
  epochs(hot, 3, runs([8, 16]))
  expect(hot.leave.pageCount).toBe(0)
  epochs(hot, 3, runs([8, 16]))
  expect(list(hot.leave)).toEqual([[8, 16]])
  epochs(hot, 8, PageRanges.empty)
  expect(hot.leave.pageCount).toBe(0)
  expect(hot.figures!.now).toBe(0)
})

test('counts a fault saved for each change of a page that was not armed, and what was compared in vain', () => {
  const hot = new HotPages(pages, costs)
  epochs(hot, 8, runs([8, 16]))
  const left = hot.figures!
  // A page that is left for the first time was armed until it changed.
  expect(left.faultsSaved).toBeGreaterThan(0)
  expect(left).toMatchObject({ now: 16, comparisons: 0 })
  epoch(hot, runs([8, 10]))
  expect(hot.figures).toMatchObject({ faultsSaved: left.faultsSaved + 10, comparisons: 6 })
  // Not armed still: it was written since it was.
  epoch(hot, runs([8, 16]))
  expect(hot.figures).toMatchObject({ faultsSaved: left.faultsSaved + 26, comparisons: 6 })
})

test('says which pages were left and had not changed: those were not dirty', () => {
  const hot = new HotPages(pages, costs)
  epochs(hot, 8, runs([8, 16]))
  // Page 40 was written, with what was there: the tracker vouches for it.
  expect(list(epoch(hot, runs([8, 10]), runs([8, 10], [40, 1])))).toEqual([[18, 6]])
})

test('a page alone is not worth a piece of the scan; a gap that costs less to compare is bridged', () => {
  const hot = new HotPages(pages, costs)
  epochs(hot, 8, runs([3, 1], [20, 4], [25, 4], [40, 3], [45, 3]))
  // 3 is alone; 24 lies between; two pages cost more to compare than the piece that they save.
  expect(list(hot.leave)).toEqual([
    [20, 9],
    [40, 3],
    [45, 3],
  ])
  const dear = new HotPages(pages, { ...costs, runNs: 600 })
  epochs(dear, 8, runs([3, 1], [20, 4], [25, 4], [40, 3], [45, 3]))
  expect(list(dear.leave)).toEqual([
    [20, 9],
    [40, 8],
  ])
})

test('nothing is left where a fault costs next to nothing, and what has changed twice where a comparison does', () => {
  const never = new HotPages(pages, { ...costs, faultNs: 5 })
  epochs(never, 20, runs([0, pages]))
  expect(never.leave.pageCount).toBe(0)
  const always = new HotPages(pages, { faultNs: 2000, compareNs: 50, runNs: 0 })
  epochs(always, 2, runs([7, 1]))
  expect(list(always.leave)).toEqual([[7, 1]])
})

test('a page that changes in every other epoch is not hot: it is chance when it looks so for a while', () => {
  const hot = new HotPages(pages, costs)
  for (let n = 0; n < 20; n++) {
    epoch(hot, n % 2 ? runs([8, 16]) : PageRanges.empty)
    expect(hot.leave.pageCount).toBe(0)
  }
})

test('what was forgotten is armed, and begins anew', () => {
  const hot = new HotPages(pages, costs)
  epochs(hot, 8, runs([8, 16]))
  hot.changed[9] = 1
  hot.forget()
  expect(hot.leave.pageCount).toBe(0)
  expect(hot.changed.every((byte) => byte === 0)).toBe(true)
  const { faultsSaved } = hot.figures!
  epoch(hot, runs([8, 16]))
  expect(hot.figures!.faultsSaved).toBe(faultsSaved)
})

test('whatever is written: every change is captured, and the counts are those of a model of the marks', () => {
  const writes = fc.array(fc.tuple(fc.nat(pages - 9), fc.integer({ min: 1, max: 8 })), { maxLength: 6 })
  const any = fc.record({
    faultNs: fc.integer({ min: 0, max: 2000 }),
    compareNs: fc.integer({ min: 1, max: 1000 }),
    runNs: fc.integer({ min: 0, max: 1000 }),
  })
  fc.assert(
    fc.property(any, fc.array(writes, { minLength: 1, maxLength: 40 }), (drawn, all) => {
      const hot = new HotPages(pages, drawn)
      const unarmed = new Set<number>()
      let [faultsSaved, comparisons] = [0, 0]
      for (const [n, pairs] of all.entries()) {
        // Mostly the same pages: something has to be hot.
        const changed = runs(...(n % 3 === 0 ? pairs : all[0]!))
        const { leave } = hot
        for (const page of changed.pages()) if (unarmed.has(page)) faultsSaved++
        for (const page of changed.pages()) unarmed.add(page)
        comparisons += leave.subtract(changed).pageCount
        // The harvest: what is unarmed or left is captured, and only what is left stays unarmed.
        const captured = PageRanges.of([...unarmed].map((page) => [page, 1] as const)).union(leave)
        expect(changed.subtract(captured).pageCount).toBe(0)
        for (const page of unarmed) if (!leave.has(page)) unarmed.delete(page)
        for (const page of changed.pages()) hot.changed[page] = 1
        expect(list(hot.learn(captured))).toEqual(list(leave.subtract(changed)))
        expect(hot.figures).toMatchObject({ faultsSaved, comparisons, now: hot.leave.pageCount })
      }
    }),
    { numRuns: 300 },
  )
})
