/**
 * Pages that change in most epochs stay unarmed: their next write costs the guest no fault, and each checkpoint compares them
 * with the shadow, written or not. Nothing is missed for it: the tracker reports every page that it was asked to leave.
 *
 * Of each page it is remembered in which of the last eight epochs its content changed. What leaving it gains follows from that
 * share and from what this host takes for a fault and for a comparison. The pages in between are armed and read in pieces, and
 * each further piece costs the pause a step of the kernel: so hot pages are left in runs that are worth their piece, over gaps
 * that cost less to compare.
 */
import { PageRanges } from '../memory/page-ranges.ts'

/** In nanoseconds, on this host. */
export interface HotPageCosts {
  /** The first write to an armed page. */
  faultNs: number
  /** To compare a page with its shadow that has not changed. */
  compareNs: number
  /** Another piece of a scan. */
  runNs: number
}

export interface HotPageFigures {
  /** Left unarmed at the next harvest. */
  now: number
  /** Changes of unarmed pages: each would have cost the guest a fault. */
  faultsSaved: number
  /** Of pages that were left and had not changed: each is time of a pause. */
  comparisons: number
}

/** A fault delays one virtual CPU; a pause stops all of them, and what they have sent waits for its end. */
const pauseWeight = 2
/** Epochs that are taken from a history, for what was chance in it: a page that changes in every other one is not hot. */
const doubt = 1

const left = 1
/** Left, and written since it was armed last. */
const unarmed = 2

/** By eight bits. */
const onesOf = Uint8Array.from({ length: 256 }, (_, bits) => bits.toString(2).replaceAll('0', '').length)

/** Of the last epochs, for who foretells the next one. */
export interface ChangeHistory {
  /** How many are remembered. */
  readonly epochs: number
  /** In how many of them the content of a page changed. */
  changes(page: number): number
}

const epochsMax = 8

export class HotPages implements ChangeHistory {
  /** What a capture says of each page (CaptureOptions.changed), until it is learned. */
  readonly changed: Uint8Array
  readonly #history: Uint8Array
  readonly #marks: Uint8Array
  readonly #costs: HotPageCosts | undefined
  /** What leaving a page gains in an epoch, by its history. */
  readonly #gainNs: Float64Array
  #epochs = 0
  /** Pages with a history. */
  #known = PageRanges.empty
  #leave = PageRanges.empty
  #faultsSaved = 0
  #comparisons = 0

  /** @param costs undefined: the history is kept, and every page is armed */
  constructor(pages: number, costs: HotPageCosts | undefined) {
    this.changed = new Uint8Array(pages)
    this.#history = new Uint8Array(pages)
    this.#marks = new Uint8Array(pages)
    this.#costs = costs
    this.#gainNs = Float64Array.from({ length: 1 << epochsMax }, (_, history) => {
      const share = Math.max(0, onesOf[history]! - doubt) / epochsMax
      return costs ? share * costs.faultNs - (1 - share) * pauseWeight * costs.compareNs : 0
    })
  }

  get epochs(): number {
    return this.#epochs
  }

  changes(page: number): number {
    return onesOf[this.#history[page]!]!
  }

  /** Not to be armed by the next harvest. */
  get leave(): PageRanges {
    return this.#leave
  }

  /** Null where every page is armed. */
  get figures(): HotPageFigures | null {
    if (!this.#costs) return null
    return { now: this.#leave.pageCount, faultsSaved: this.#faultsSaved, comparisons: this.#comparisons }
  }

  /**
   * A harvest left what `leave` said, and these pages were captured since the last one.
   * @returns those of them that were left and had not changed: not dirty
   */
  learn(captured: PageRanges): PageRanges {
    this.#epochs = Math.min(epochsMax, this.#epochs + 1)
    const [known, equal, leave] = [new Runs(), new Runs(), new WorthwhileRuns(this.#costs)]
    const [history, marks, changed, gainNs] = [this.#history, this.#marks, this.changed, this.#gainNs]
    for (const { first, count } of this.#known.union(captured))
      for (let page = first; page < first + count; page++) {
        const mark = marks[page]!
        const now = ((history[page]! << 1) | changed[page]!) & 0xff
        if (mark & unarmed) this.#faultsSaved += changed[page]!
        if (mark & left && !changed[page]) equal.add(page, 1)
        marks[page] = mark & left && (changed[page] || mark & unarmed) ? unarmed : 0
        changed[page] = 0
        history[page] = now
        if (now > 0) known.add(page, 1)
        if (gainNs[now]! > 0) leave.add(page, gainNs[now]!)
      }
    this.#known = known.ranges()
    this.#leave = leave.ranges()
    for (const { first, count } of this.#leave)
      for (let page = first; page < first + count; page++) marks[page]! |= left
    const same = equal.ranges()
    this.#comparisons += same.pageCount
    return same
  }

  /** A harvest has armed every page, or what was captured is not what had changed. */
  forget(): void {
    for (const array of [this.changed, this.#history, this.#marks]) array.fill(0)
    this.#epochs = 0
    this.#known = PageRanges.empty
    this.#leave = PageRanges.empty
  }
}

/** Collects runs in ascending order. */
class Runs {
  readonly #pairs: number[] = []
  #end = -1

  add(first: number, count: number): void {
    if (first === this.#end) this.#pairs[this.#pairs.length - 1]! += count
    else this.#pairs.push(first, count)
    this.#end = first + count
  }

  ranges(): PageRanges {
    return PageRanges.fromPairs(Uint32Array.from(this.#pairs))
  }
}

/** Joins pages to runs, and keeps those that gain more than their piece of the scan costs. */
class WorthwhileRuns {
  readonly #runs = new Runs()
  readonly #runNs: number
  readonly #compareNs: number
  #first = 0
  #end = 0
  #gainNs = 0

  constructor({ runNs, compareNs }: Omit<HotPageCosts, 'faultNs'> = { runNs: 0, compareNs: 0 }) {
    this.#runNs = runNs * pauseWeight
    this.#compareNs = compareNs * pauseWeight
  }

  add(page: number, gainNs: number): void {
    const gapNs = (page - this.#end) * this.#compareNs
    if (gapNs > this.#runNs || gapNs > this.#gainNs) {
      this.#close()
      this.#first = page
    } else this.#gainNs -= gapNs
    this.#gainNs += gainNs
    this.#end = page + 1
  }

  ranges(): PageRanges {
    this.#close()
    return this.#runs.ranges()
  }

  #close(): void {
    if (this.#gainNs > this.#runNs) this.#runs.add(this.#first, this.#end - this.#first)
    this.#gainNs = 0
  }
}
