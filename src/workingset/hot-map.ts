/**
 * The map of hot and cold pages of one guest: which pages are cold and for how long, and which to bring back first. It is
 * filled by the live estimator (or by whoever else sees accesses) and asked by what moves memory about.
 *
 * It errs on the safe side: a page that nobody has watched is never called cold, and one that may have been accessed counts
 * as accessed now. Nine bytes a page; every question is linear in the number of pages.
 */
import { PageRanges } from '../memory/page-ranges.ts'
import type { Observation } from './observation.ts'

const never = 0xffff_ffff

/**
 * The classes of Difference Engine's not-recently-used clock: recently modified; accessed, not modified; not recently
 * accessed; long unaccessed. `unknown`: not watched yet, leave it alone.
 */
export type PageClass = 'modified' | 'accessed' | 'idle' | 'cold' | 'unknown'

export class HotMap {
  readonly pages: number
  readonly #originMs: number
  #nowMs: number
  /** Milliseconds since the origin; `never` while nobody has watched the page. */
  readonly #lastAccess: Uint32Array
  readonly #lastWrite: Uint32Array
  /** One bit for each of the latest eight looks at the page, the newest the highest: the aging clock. */
  readonly #history: Uint8Array

  /** @param originMs the clock of the observations, at present */
  constructor(pages: number, originMs: number) {
    this.pages = pages
    this.#originMs = originMs
    this.#nowMs = originMs
    this.#lastAccess = new Uint32Array(pages).fill(never)
    this.#lastWrite = new Uint32Array(pages).fill(never)
    this.#history = new Uint8Array(pages)
  }

  /** Time of the latest note: the present, to this map. */
  get nowMs(): number {
    return this.#nowMs
  }

  /** Takes in what one look has found. */
  note({ startMs, endMs, watched, accessed, written, present }: Observation): void {
    const start = this.#since(startMs)
    const end = this.#since(endMs)
    for (const { first, count } of watched)
      for (let page = first; page < first + count; page++) {
        this.#history[page]! >>= 1
        if (this.#lastAccess[page] === never) this.#lastAccess[page] = start
      }
    for (const { first, count } of accessed)
      for (let page = first; page < first + count; page++) this.#history[page]! |= 0x80
    for (const { first, count } of present)
      for (let page = first; page < first + count; page++)
        if (this.#lastAccess[page] !== never) this.#lastAccess[page] = end
    if (written) this.#fill(this.#lastWrite, written, end)
    this.#nowMs = Math.max(this.#nowMs, endMs)
  }

  /** These pages were accessed just now, as whoever answered their page fault knows. */
  touch(pages: PageRanges, nowMs: number, wrote = false): void {
    const now = this.#since(nowMs)
    this.#fill(this.#lastAccess, pages, now)
    if (wrote) this.#fill(this.#lastWrite, pages, now)
    for (const page of pages.pages()) this.#history[page]! |= 0x80
    this.#nowMs = Math.max(this.#nowMs, nowMs)
  }

  /** For how long the page has certainly not been accessed, in milliseconds; 0 when that is not known. */
  idleMs(page: number): number {
    const last = this.#lastAccess[page]
    return last === undefined || last === never ? 0 : this.#nowMs - this.#originMs - last
  }

  /** For how long the page has not been written, as far as anybody has seen; Infinity when it never was. */
  unwrittenMs(page: number): number {
    const last = this.#lastWrite[page]
    return last === undefined || last === never
      ? Number.POSITIVE_INFINITY
      : this.#nowMs - this.#originMs - last
  }

  /** How hot a page is, 0 to 255: the looks that found it accessed, the newest counting most. */
  heat(page: number): number {
    return this.#history[page] ?? 0
  }

  /**
   * Which class of the clock a page is in.
   * @param recentMs what counts as recent
   * @param coldMs after this long without an access a page is cold
   */
  classOf(page: number, recentMs: number, coldMs: number): PageClass {
    if (this.#lastAccess[page] === never) return 'unknown'
    const idleMs = this.idleMs(page)
    if (idleMs >= coldMs) return 'cold'
    if (idleMs > recentMs) return 'idle'
    return this.unwrittenMs(page) <= recentMs ? 'modified' : 'accessed'
  }

  /** Pages that have certainly not been accessed for this long. */
  cold(idleMsMin: number): PageRanges {
    const latest = this.#nowMs - this.#originMs - idleMsMin
    const runs: [first: number, count: number][] = []
    for (let page = 0; page < this.pages; page++) {
      if (this.#lastAccess[page]! > latest) continue
      const run = runs.at(-1)
      if (run && run[0] + run[1] === page) run[1]++
      else runs.push([page, 1])
    }
    return PageRanges.of(runs)
  }

  /** Pages that have been idle for this long, the longest first, then the less hot: what to put away first. */
  coldestFirst(idleMsMin: number): Uint32Array {
    return this.#sorted(this.cold(idleMsMin), (a, b) => this.#order(a, b))
  }

  /** These pages, or all, in the order in which to bring them back: the hottest first, then the most recent. */
  hottestFirst(among: PageRanges = PageRanges.all(this.pages)): Uint32Array {
    return this.#sorted(among, (a, b) => this.#history[b]! - this.#history[a]! || this.#order(b, a))
  }

  /**
   * How many pages have been idle for how long: one count for each edge, of pages idle for at least that edge and less
   * than the next. Pages that nobody has watched are in none.
   * @param edgesMs ascending, the first one 0
   */
  idleHistogram(edgesMs: readonly number[]): number[] {
    const counts = edgesMs.map(() => 0)
    for (let page = 0; page < this.pages; page++) {
      if (this.#lastAccess[page] === never) continue
      const idleMs = this.idleMs(page)
      let slot = edgesMs.length - 1
      while (slot > 0 && idleMs < edgesMs[slot]!) slot--
      counts[slot]!++
    }
    return counts
  }

  #order(a: number, b: number): number {
    return this.#lastAccess[a]! - this.#lastAccess[b]! || this.#history[a]! - this.#history[b]!
  }

  #sorted(among: PageRanges, order: (a: number, b: number) => number): Uint32Array {
    return Uint32Array.from(among.pages()).sort(order)
  }

  #fill(times: Uint32Array, pages: PageRanges, at: number): void {
    for (const { first, count } of pages) times.fill(at, first, first + count)
  }

  /** Whole milliseconds; 49 days fit. */
  #since(ms: number): number {
    return Math.min(never - 1, Math.max(0, Math.round(ms - this.#originMs)))
  }
}
