/**
 * A set of pages as sorted runs that neither overlap nor touch: pairs (first page, number of pages) in one Uint32Array,
 * which native code reads as it is. Immutable; every operation is linear in the number of runs.
 */

/** One run of pages. */
export interface PageRun {
  first: number
  count: number
}

const pagesMax = 2 ** 32

export class PageRanges implements Iterable<PageRun> {
  static readonly empty = new PageRanges(new Uint32Array(0), 0, 0)

  /** The pairs, for native code; only the first 2 × runCount elements count. Must not be changed. */
  readonly pairs: Uint32Array
  readonly runCount: number
  readonly pageCount: number

  private constructor(pairs: Uint32Array, runCount: number, pageCount: number) {
    this.pairs = pairs
    this.runCount = runCount
    this.pageCount = pageCount
  }

  /** Pages 0 to pages - 1. */
  static all(pages: number): PageRanges {
    return PageRanges.of([[0, pages]])
  }

  /** From runs in any order; they may overlap, touch or be empty. */
  static of(runs: Iterable<readonly [first: number, count: number]>): PageRanges {
    const sorted = [...runs].filter(([, count]) => count !== 0).sort((a, b) => a[0] - b[0])
    const builder = new Builder(sorted.length)
    for (const [first, count] of sorted) {
      if (!Number.isInteger(first) || !Number.isInteger(count) || first < 0 || count < 0)
        throw new TypeError(`not a run of pages: ${first}, ${count}`)
      if (first + count >= pagesMax) throw new TypeError(`page ${first + count - 1} is beyond 16 TiB`)
      builder.add(first, first + count)
    }
    return builder.finish()
  }

  /**
   * From pairs that a native function filled. Takes the array over when it is sorted already, as native code leaves it.
   * @param runs how many pairs count; all when left out
   */
  static fromPairs(pairs: Uint32Array, runs = pairs.length >>> 1): PageRanges {
    if (!Number.isInteger(runs) || runs < 0 || 2 * runs > pairs.length)
      throw new TypeError(`${runs} runs in an array of ${pairs.length}`)
    let pageCount = 0
    let end = -1
    for (let i = 0; i < 2 * runs; i += 2) {
      const first = pairs[i]!
      const count = pairs[i + 1]!
      if (first <= end || count === 0 || first + count >= pagesMax)
        return PageRanges.of(
          Array.from({ length: runs }, (_, run) => [pairs[2 * run]!, pairs[2 * run + 1]!] as const),
        )
      end = first + count
      pageCount += count
    }
    return runs === 0 ? PageRanges.empty : new PageRanges(pairs, runs, pageCount)
  }

  /** @internal For the builder: runs that are known to be sorted and apart. */
  static trusted(pairs: Uint32Array, runCount: number, pageCount: number): PageRanges {
    return runCount === 0 ? PageRanges.empty : new PageRanges(pairs, runCount, pageCount)
  }

  first(run: number): number {
    return this.pairs[2 * run]!
  }

  /** The page after the last one of a run. */
  end(run: number): number {
    return this.pairs[2 * run]! + this.pairs[2 * run + 1]!
  }

  /** The page after the last one; 0 when empty. */
  get endPage(): number {
    return this.runCount === 0 ? 0 : this.end(this.runCount - 1)
  }

  *[Symbol.iterator](): Generator<PageRun> {
    for (let run = 0; run < this.runCount; run++)
      yield { first: this.first(run), count: this.pairs[2 * run + 1]! }
  }

  /** Every page, ascending. */
  *pages(): Generator<number> {
    for (let run = 0; run < this.runCount; run++)
      for (let page = this.first(run); page < this.end(run); page++) yield page
  }

  has(page: number): boolean {
    let low = 0
    let high = this.runCount
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.end(middle) <= page) low = middle + 1
      else high = middle
    }
    return low < this.runCount && this.first(low) <= page
  }

  union(other: PageRanges): PageRanges {
    if (other.runCount === 0) return this
    if (this.runCount === 0) return other
    const builder = new Builder(this.runCount + other.runCount)
    for (let a = 0, b = 0; a < this.runCount || b < other.runCount; ) {
      const takeA = b === other.runCount || (a < this.runCount && this.first(a) <= other.first(b))
      if (takeA) builder.add(this.first(a), this.end(a++))
      else builder.add(other.first(b), other.end(b++))
    }
    return builder.finish()
  }

  intersect(other: PageRanges): PageRanges {
    const builder = new Builder(this.runCount + other.runCount)
    for (let a = 0, b = 0; a < this.runCount && b < other.runCount; ) {
      const first = Math.max(this.first(a), other.first(b))
      const end = Math.min(this.end(a), other.end(b))
      if (first < end) builder.add(first, end)
      if (this.end(a) < other.end(b)) a++
      else b++
    }
    return builder.finish()
  }

  subtract(other: PageRanges): PageRanges {
    if (other.runCount === 0) return this
    const builder = new Builder(this.runCount + other.runCount)
    for (let a = 0, b = 0; a < this.runCount; a++) {
      let first = this.first(a)
      const end = this.end(a)
      while (b < other.runCount && other.end(b) <= first) b++
      for (let c = b; c < other.runCount && other.first(c) < end; c++) {
        if (first < other.first(c)) builder.add(first, other.first(c))
        first = other.end(c)
      }
      if (first < end) builder.add(first, end)
    }
    return builder.finish()
  }

  /** The first `pages` pages, and the others. */
  take(pages: number): [taken: PageRanges, rest: PageRanges] {
    if (pages >= this.pageCount) return [this, PageRanges.empty]
    if (pages <= 0) return [PageRanges.empty, this]
    let left = pages
    let run = 0
    while (this.pairs[2 * run + 1]! <= left) left -= this.pairs[2 * run++ + 1]!
    const taken = this.pairs.slice(0, 2 * (left > 0 ? run + 1 : run))
    const rest = this.pairs.slice(2 * run, 2 * this.runCount)
    if (left > 0) {
      taken[2 * run + 1] = left
      rest[0] = rest[0]! + left
      rest[1] = rest[1]! - left
    }
    return [
      new PageRanges(taken, taken.length / 2, pages),
      new PageRanges(rest, rest.length / 2, this.pageCount - pages),
    ]
  }
}

/** Collects runs in ascending order of their first page; joins those that overlap or touch. */
class Builder {
  readonly #pairs: Uint32Array
  #runs = 0
  #pages = 0
  #end = -1

  constructor(runsMax: number) {
    this.#pairs = new Uint32Array(2 * runsMax)
  }

  add(first: number, end: number): void {
    if (first > this.#end) {
      this.#pairs[2 * this.#runs] = first
      this.#pairs[2 * this.#runs + 1] = end - first
      this.#runs++
      this.#pages += end - first
    } else if (end > this.#end) {
      this.#pairs[2 * this.#runs - 1]! += end - this.#end
      this.#pages += end - this.#end
    } else return
    this.#end = end
  }

  finish(): PageRanges {
    return PageRanges.trusted(this.#pairs, this.#runs, this.#pages)
  }
}
