/** Which pages a pass takes: by class, by target, by the guest's share of the pass. */
import { expect, test } from 'vitest'
import { choosePass } from '../../src/density/clock.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { HotMap } from '../../src/workingset/hot-map.ts'

const set = (...pages: number[]) => PageRanges.of(pages.map((page) => [page, 1] as const))
const list = (ranges: PageRanges) => [...ranges.pages()]
const clock = { recentMs: 1_000, coldMs: 10_000 }

/** Pages 0–3 unused for 20 s, 4–7 for 5 s, 8–9 used just now; 10–11 were never looked at. */
function map(): HotMap {
  const hotMap = new HotMap(12, 0)
  const look = (startMs: number, endMs: number, touched: PageRanges) =>
    hotMap.note({
      startMs,
      endMs,
      watched: PageRanges.all(10),
      accessed: touched,
      written: touched,
      present: touched,
      endsInterval: true,
    })
  look(0, 1, PageRanges.all(10))
  look(1, 15_000, set(4, 5, 6, 7, 8, 9))
  look(15_000, 20_000, set(8, 9))
  return hotMap
}

const choose = (targetPages: number | undefined, pagesMax = 100, among = PageRanges.all(12)) => {
  const { cold, idle } = choosePass(map(), clock, among, among.pageCount, targetPages, pagesMax)
  return [list(cold), list(idle)]
}

test('cold pages go, idle ones if they become smaller, and what is used or unknown stays', () => {
  expect(choose(undefined)).toEqual([
    [0, 1, 2, 3],
    [4, 5, 6, 7],
  ])
})

test('a target is reached with the coldest pages, then with idle ones, and never passed', () => {
  expect(choose(12)).toEqual([[], []])
  expect(choose(10)).toEqual([[0, 1], []])
  expect(choose(6)).toEqual([[0, 1, 2, 3, 4, 5], []])
  // Recently used pages stay, whatever the target says.
  expect(choose(1)).toEqual([[0, 1, 2, 3, 4, 5, 6, 7], []])
})

test('no guest takes more than its share of a pass, nor what has gone already', () => {
  expect(choose(undefined, 2)).toEqual([[0, 1], []])
  expect(choose(undefined, 6)).toEqual([
    [0, 1, 2, 3],
    [4, 5],
  ])
  expect(choose(undefined, 100, set(2, 3, 5, 9, 11))).toEqual([[2, 3], [5]])
})
