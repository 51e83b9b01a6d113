/**
 * The rule of Page Reference Logging (Bitchebe, Tchana, Réveillère): `dist[i]` is the number of distinct pages that were
 * touched more than τ times in interval i, counted here in its sub-intervals; the working set is taken once dist has been
 * stable for w intervals.
 *
 * A change of phase is two intervals in a row that leave the band of those before, in the same direction: stability is
 * counted anew from the first of them. A single one is an outlier: it counts in the percentiles, but not in the estimate
 * unless such intervals keep coming; then the working set fluctuates, and the estimate is the mean of all, and not stable.
 */
import { PageRanges } from '../memory/page-ranges.ts'
import type { Estimate, Estimator } from './estimator.ts'
import type { Observation } from './observation.ts'
import { type Share, scaleUp } from './share.ts'

export interface DistRule {
  /** A page belongs to dist when it was touched in more than this many sub-intervals. */
  tau: number
  /** Intervals without a change of phase before dist counts as stable. */
  stableIntervals: number
  /** Share of dist by which an interval may differ from those before. */
  tolerance: number
}

/** docs/working-sets.md has the evidence. */
export const distRule: DistRule = { tau: 0, stableIntervals: 3, tolerance: 0.1 }

/** Fewer pages than these are noise: the guest kernel's own, as its timers come and go. */
const noisePages = 256

export class DistEstimator implements Estimator {
  /** dist[i] of the present phase. */
  #dist: Share[] = []
  readonly #pages: number
  readonly #rule: DistRule
  readonly #hits: Uint8Array
  #latest: Share | undefined
  /** Intervals of the present phase that left its band: a change of phase when the next one does too. */
  #outliers: { dist: Share; side: number; interval: number }[] = []
  #interval = 0
  #phases = 0

  constructor(pages: number, rule: DistRule = distRule) {
    this.#pages = pages
    this.#rule = rule
    this.#hits = new Uint8Array(pages)
  }

  /** How often the working set has changed its size. */
  get phaseChanges(): number {
    return this.#phases
  }

  get latest(): Share | undefined {
    return this.#latest
  }

  get estimate(): Estimate | undefined {
    const latest = this.#dist.at(-1)
    if (!latest) return undefined
    const fluctuates = this.#outliers.length > outlierShareMax * this.#dist.length
    const counted = fluctuates ? [...this.#dist, ...this.#outliers.map(({ dist }) => dist)] : this.#dist
    const stable = !fluctuates && this.#dist.length >= this.#rule.stableIntervals
    if (counted.length < 2) return { ...latest, stable }
    const counts = counted.map(({ pages }) => pages)
    const mean = counts.reduce((sum, count) => sum + count, 0) / counts.length
    const between = counts.reduce((sum, count) => sum + (count - mean) ** 2, 0) / (counts.length - 1)
    const within = counted.reduce((sum, { plusMinus }) => sum + plusMinus ** 2, 0) / counts.length ** 2
    return { pages: mean, plusMinus: Math.sqrt((1.96 ** 2 * between) / counts.length + within), stable }
  }

  add({ watched, sampled, accessed, endsInterval }: Observation): void {
    for (const { first, count } of accessed)
      for (let page = first; page < first + count; page++) if (this.#hits[page]! < 255) this.#hits[page]!++
    if (!endsInterval) return
    const dist = scaleUp(this.#pages, watched, this.#hot(watched), sampled)
    for (const { first, count } of watched) this.#hits.fill(0, first, first + count)
    this.addInterval(dist)
  }

  /** An interval whose dist is known already, whichever pages they were. */
  addInterval(dist: Share): void {
    this.#latest = dist
    const side = this.#dist.length > 0 ? this.#leaves(dist) : 0
    const before = this.#outliers.at(-1)
    if (side !== 0 && before?.side === side && before.interval === this.#interval - 1) {
      this.#dist = [before.dist, dist]
      this.#outliers = []
      this.#phases++
    } else if (side !== 0) this.#outliers.push({ dist, side, interval: this.#interval })
    else this.#dist.push(dist)
    this.#interval++
    if (this.#dist.length > keptIntervals) this.#dist.shift()
    if (this.#outliers[0] && this.#outliers[0].interval < this.#interval - keptIntervals)
      this.#outliers.shift()
  }

  #hot(watched: PageRanges): PageRanges {
    const runs: [first: number, count: number][] = []
    for (const { first, count } of watched)
      for (let page = first; page < first + count; page++) {
        if (this.#hits[page]! <= this.#rule.tau) continue
        const run = runs.at(-1)
        if (run && run[0] + run[1] === page) run[1]++
        else runs.push([page, 1])
      }
    return PageRanges.of(runs)
  }

  /** 0 within the band, else on which side of it. */
  #leaves({ pages, plusMinus }: Share): number {
    const counts = this.#dist.map((dist) => dist.pages).sort((a, b) => a - b)
    const middle = counts[counts.length >> 1] ?? pages
    const errors = this.#dist.map((dist) => dist.plusMinus).sort((a, b) => a - b)
    const error = Math.hypot(plusMinus, errors[errors.length >> 1] ?? 0)
    const margin = Math.max(this.#rule.tolerance * middle, noisePages, 1.5 * error)
    return Math.abs(pages - middle) > margin ? Math.sign(pages - middle) : 0
  }
}

/** The present phase is described by its latest intervals: a working set that drifts slowly is followed. */
const keptIntervals = 60
/** More than one outlier for so many other intervals is no accident. */
const outlierShareMax = 0.2
