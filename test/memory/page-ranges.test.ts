/** PageRanges against plain sets of numbers. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { PageRanges } from '../../src/memory/page-ranges.ts'

const limit = 60
const runs = fc.array(
  fc
    .tuple(fc.nat(limit - 1), fc.nat(9))
    .map(([first, count]) => [first, Math.min(count, limit - first)] as const),
  { maxLength: 8 },
)
type Runs = (readonly [number, number])[]

const setOf = (list: Runs) =>
  new Set(list.flatMap(([first, count]) => Array.from({ length: count }, (_, i) => first + i)))
const sorted = (set: Set<number>) => [...set].sort((a, b) => a - b)

/** What every result must be, whatever made it. */
function expectSound(ranges: PageRanges, pages: number[]): void {
  expect([...ranges.pages()]).toEqual(pages)
  expect(ranges.pageCount).toBe(pages.length)
  expect([...ranges]).toHaveLength(ranges.runCount)
  let end = -1
  for (const { first, count } of ranges) {
    expect(count).toBeGreaterThan(0)
    // Runs that touch would be one run.
    expect(first).toBeGreaterThan(end)
    end = first + count
  }
  expect(ranges.endPage).toBe(Math.max(end, 0))
}

describe('PageRanges is a set of pages', () => {
  it('of, fromPairs, has', () => {
    fc.assert(
      fc.property(runs, (list) => {
        const ranges = PageRanges.of(list)
        const set = setOf(list)
        expectSound(ranges, sorted(set))
        expectSound(PageRanges.fromPairs(Uint32Array.from(list.flat())), sorted(set))
        for (let page = 0; page < limit + 2; page++) expect(ranges.has(page)).toBe(set.has(page))
      }),
    )
  })

  it('union, intersect, subtract', () => {
    fc.assert(
      fc.property(runs, runs, (one, other) => {
        const [a, b] = [setOf(one), setOf(other)]
        const [x, y] = [PageRanges.of(one), PageRanges.of(other)]
        expectSound(x.union(y), sorted(new Set([...a, ...b])))
        expectSound(x.intersect(y), sorted(new Set([...a].filter((page) => b.has(page)))))
        expectSound(x.subtract(y), sorted(new Set([...a].filter((page) => !b.has(page)))))
        // The operands are as they were.
        expectSound(x, sorted(a))
        expectSound(y, sorted(b))
      }),
    )
  })

  it('take', () => {
    fc.assert(
      fc.property(runs, fc.nat(limit), (list, budget) => {
        const pages = sorted(setOf(list))
        const [taken, rest] = PageRanges.of(list).take(budget)
        expectSound(taken, pages.slice(0, budget))
        expectSound(rest, pages.slice(budget))
      }),
    )
  })
})

describe('PageRanges refuses', () => {
  it.each([[[[-1, 1]]], [[[0, -1]]], [[[0.5, 1]]], [[[2 ** 32 - 2, 2]]]] as [Runs][])('%j', (list) => {
    expect(() => PageRanges.of(list)).toThrow(TypeError)
  })

  it('more pairs than the array has', () => {
    expect(() => PageRanges.fromPairs(new Uint32Array(4), 3)).toThrow(TypeError)
    expect(PageRanges.fromPairs(Uint32Array.of(1, 2, 9, 9), 1).pageCount).toBe(2)
  })
})
