/** The map of hot and cold pages: what it says of observations whose truth is known, and that it never calls a page cold too early. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { HotMap } from '../../src/workingset/hot-map.ts'

const runs = (...pairs: [first: number, count: number][]) => PageRanges.of(pairs)
const all = PageRanges.all(8)

function look(map: HotMap, startMs: number, accessed: PageRanges, watched = all, written = PageRanges.empty) {
  map.note({
    startMs,
    endMs: startMs + 1000,
    watched,
    accessed,
    written,
    present: accessed,
    endsInterval: true,
  })
}

test('says for how long a page has been idle, and which are cold', () => {
  const map = new HotMap(8, 5000)
  look(map, 5000, runs([0, 4]))
  look(map, 6000, runs([0, 2]))
  look(map, 7000, runs([0, 1]))
  expect([0, 1, 2, 3, 4].map((page) => map.idleMs(page))).toEqual([0, 1000, 2000, 2000, 3000])
  expect([...map.cold(2000)]).toEqual([{ first: 2, count: 6 }])
  expect([...map.coldestFirst(1)]).toEqual([4, 5, 6, 7, 2, 3, 1])
  expect([...map.hottestFirst(runs([0, 5]))]).toEqual([0, 1, 2, 3, 4])
  expect(map.idleHistogram([0, 1000, 3000])).toEqual([1, 3, 4])
})

test('calls no page cold that nobody has watched', () => {
  const map = new HotMap(8, 0)
  look(map, 0, PageRanges.empty, runs([2, 2]))
  expect([...map.cold(0)]).toEqual([{ first: 2, count: 2 }])
  expect(map.classOf(0, 100, 1000)).toBe('unknown')
  expect(map.classOf(2, 100, 1000)).toBe('cold')
  expect(map.idleHistogram([0, 500])).toEqual([0, 2])
})

test('a page that may have been accessed between two looks is not cold', () => {
  const map = new HotMap(8, 0)
  look(map, 0, PageRanges.empty)
  map.note({
    startMs: 1000,
    endMs: 2000,
    watched: runs([0, 1]),
    accessed: PageRanges.empty,
    written: undefined,
    present: runs([5, 1]),
    endsInterval: true,
  })
  expect(map.idleMs(5)).toBe(0)
  expect(map.idleMs(6)).toBe(2000)
})

test('knows the classes of the clock, and hears of page faults', () => {
  const map = new HotMap(8, 0)
  look(map, 0, runs([0, 3]), all, runs([0, 1]))
  expect([0, 1, 3].map((page) => map.classOf(page, 500, 2000))).toEqual(['modified', 'accessed', 'idle'])
  map.touch(runs([3, 1]), 1500, true)
  expect(map.classOf(3, 400, 2000)).toBe('modified')
  expect(map.classOf(0, 400, 2000)).toBe('idle')
  expect([...map.hottestFirst(runs([2, 2]))]).toEqual([3, 2])
})

test('never calls a page colder than it is, whatever was watched when', () => {
  const step = fc.record({
    watched: fc.array(fc.nat(7), { maxLength: 8 }),
    touched: fc.array(fc.nat(7), { maxLength: 8 }),
  })
  const set = (pages: number[]) => PageRanges.of(pages.map((page) => [page, 1] as const))
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
      const map = new HotMap(8, 0)
      const truth = new Array(8).fill(0)
      // As the kernel does: entries stay until they are forgotten.
      let present = all
      steps.forEach(({ watched, touched }, i) => {
        present = present.subtract(set(watched)).union(set(touched))
        for (const page of touched) truth[page] = (i + 1) * 1000
        map.note({
          startMs: i * 1000,
          endMs: (i + 1) * 1000,
          watched: set(watched),
          accessed: set(watched).intersect(present),
          written: undefined,
          present,
          endsInterval: true,
        })
        for (let page = 0; page < 8; page++)
          expect(map.idleMs(page)).toBeLessThanOrEqual((i + 1) * 1000 - truth[page])
      })
    }),
  )
})
