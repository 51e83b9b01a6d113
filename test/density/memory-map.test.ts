/** The map of a guest's memory: of every state its counts add up to the guest's pages, and each page is what its sources say. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { cellPagesOf, mapMemory, memoryKinds } from '../../src/density/memory-map.ts'
import { heldWays } from '../../src/density/store.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { HotMap } from '../../src/workingset/hot-map.ts'

type Kind = (typeof memoryKinds)[number]
const times = { recentMs: 100, coldMs: 1000 }
const nothing = { hotMap: undefined, changes: undefined, stored: undefined, ...times }
const breathe = () => Promise.resolve()
const sum = (counts: number[]) => counts.reduce((total, count) => total + count, 0)
const of = (cell: number[], kind: Kind) => cell[memoryKinds.indexOf(kind)]!

/** What a store would say of pages that are held so; undefined: not in it. */
function heldOf(ways: (Kind | undefined)[]): number[] {
  const cellPages = cellPagesOf(ways.length)
  const held = new Array<number>(heldWays.length * Math.ceil(ways.length / cellPages)).fill(0)
  for (const [page, way] of ways.entries()) {
    const at = (heldWays as readonly (Kind | undefined)[]).indexOf(way)
    if (at >= 0) held[Math.floor(page / cellPages) * heldWays.length + at]!++
  }
  return held
}

/** @param idle for how long each page has been idle; undefined: nobody has looked */
function hotMapOf(idle: (number | undefined)[], wrote: boolean[]): HotMap {
  const map = new HotMap(idle.length, 0)
  for (const [page, ms] of idle.entries())
    if (ms !== undefined) map.touch(PageRanges.of([[page, 1]]), 5000 - ms, wrote[page])
  map.touch(PageRanges.empty, 5000)
  return map
}

test('a thousand cells are enough for every guest, and no guest has more', () => {
  for (const pages of [1, 2, 1023, 1024, 1025, 40_961, 65_536, 2 ** 24 + 1]) {
    const cells = Math.ceil(pages / cellPagesOf(pages))
    expect(cells).toBeLessThanOrEqual(1024)
    expect(cells).toBeGreaterThan(Math.min(pages, 1024) / 2)
  }
})

test('of whom nothing is known, all pages are unknown', async () => {
  const cells = await mapMemory({ pages: 1500, ...nothing }, breathe)
  expect(cells).toHaveLength(750)
  expect(new Set(cells.map((cell) => of(cell, 'unknown')))).toEqual(new Set([2]))
})

const Page = fc.record({
  way: fc.constantFrom<(Kind | undefined)[]>(undefined, undefined, 'holes', ...heldWays),
  idle: fc.option(fc.constantFrom(0, 50, 500, 2000), { nil: undefined }),
  wrote: fc.boolean(),
  changes: fc.constantFrom(0, 0, 0, 3),
})

test('each page counts once, as what it is', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(Page, { minLength: 1, maxLength: 3000 }), async (pages) => {
      const resident = PageRanges.of(
        pages.flatMap(({ way }, page) => (way === undefined ? [[page, 1] as const] : [])),
      )
      const hotMap = hotMapOf(
        pages.map(({ idle }) => idle),
        pages.map(({ wrote }) => wrote),
      )
      const cells = await mapMemory(
        {
          ...{ pages: pages.length, hotMap, ...times },
          changes: (page) => pages[page]!.changes,
          stored: { held: heldOf(pages.map(({ way }) => way)), resident },
        },
        breathe,
      )
      const expected = (page: (typeof pages)[number]): Kind => {
        if (page.way !== undefined) return page.way
        if (page.changes > 0) return 'modified'
        if (page.idle === undefined) return 'unknown'
        if (page.idle >= times.coldMs) return 'cold'
        if (page.idle > times.recentMs) return 'idle'
        return page.wrote ? 'modified' : 'accessed'
      }
      const cellPages = cellPagesOf(pages.length)
      const model = Array.from({ length: Math.ceil(pages.length / cellPages) }, () =>
        memoryKinds.map(() => 0),
      )
      for (const [page, what] of pages.entries())
        model[Math.floor(page / cellPages)]![memoryKinds.indexOf(expected(what))]!++
      expect(cells).toEqual(model)
    }),
  )
})

test('pages on the move, in the store and in RAM, count in the store; the counts still add up', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.constantFrom(undefined, ...heldWays), fc.boolean(), fc.constantFrom(0, 5000)), {
        minLength: 1,
        maxLength: 3000,
      }),
      async (pages) => {
        const ways = pages.map(([way]) => way)
        const resident = PageRanges.of(
          pages.flatMap(([, there], page) => (there ? [[page, 1] as const] : [])),
        )
        const hotMap = hotMapOf(
          pages.map(([, , idle]) => idle),
          pages.map(() => false),
        )
        const stored = { held: heldOf(ways), resident }
        const cells = await mapMemory({ ...nothing, ...{ pages: pages.length, hotMap, stored } }, breathe)
        const cellPages = cellPagesOf(pages.length)
        for (const [index, cell] of cells.entries()) {
          expect(sum(cell)).toBe(Math.min(cellPages, pages.length - index * cellPages))
          for (const count of cell) expect(count).toBeGreaterThanOrEqual(0)
        }
        for (const way of heldWays)
          expect(sum(cells.map((cell) => of(cell, way)))).toBe(ways.filter((one) => one === way).length)
      },
    ),
  )
})

test('others have their turn while it counts', async () => {
  let turns = 0
  await mapMemory({ pages: 100_000, ...nothing }, async () => void turns++)
  expect(turns).toBe(Math.floor(100_000 / 2048))
})

test('a keeper that says impossible things fails the map, and nothing else', async () => {
  const held = heldOf([heldWays[0], undefined])
  held[0] = 2
  const stored = { held, resident: PageRanges.empty }
  await expect(mapMemory({ ...nothing, pages: 2, stored }, breathe)).rejects.toMatchObject({
    code: 'KEEPER_FAILED',
  })
})
