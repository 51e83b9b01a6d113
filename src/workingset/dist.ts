/**
 * The rule of Page Reference Logging (Bitchebe, Tchana, Réveillère): `dist[i]` is the number of distinct pages that were
 * touched more than τ times in interval i, counted here in its sub-intervals; the working set is taken once dist has been
 * stable for w intervals.
 *
 * A change of phase is two intervals in a row that leave the band of those before, in the same direction: stability is
 * counted anew from the first of them. A single one is an outlier: it counts in the percentiles, but not in the estimate
 * unless such intervals keep coming. Until it is stable again, the estimate is the mean of all intervals since it last was:
 * a working set that fluctuates (a compiler, a shell script) never is, and is judged by all of them.
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
const distRule: DistRule = { tau: 0, stableIntervals: 3, tolerance: 0.1 }

/** Fewer pages than these are noise: the guest kernel's own, as its timers come and go. */
const noisePages = 256

interface Interval {
  dist: Share
  /** On which side of the band of its phase: 0 within it. */
  side: number
}

export class DistEstimator implements Estimator {
  /** Since the working set was last left while it was stable. */
  #intervals: Interval[] = []
  /** Which of them is the first of the present phase. */
  #phaseFrom = 0
  #phaseChanges = 0
  readonly #pages: number
  readonly #rule: DistRule
  readonly #hits: Uint8Array

  constructor(pages: number, rule: DistRule = distRule) {
    this.#pages = pages
    this.#rule = rule
    this.#hits = new Uint8Array(pages)
  }

  /** How often a stable working set has changed its size. */
  get phaseChanges(): number {
    return this.#phaseChanges
  }

  get latest(): Share | undefined {
    return this.#intervals.at(-1)?.dist
  }

  get estimate(): Estimate | undefined {
    const { latest } = this
    if (!latest) return undefined
    const stable = this.#isStable(this.#phase)
    const span = stable ? this.#phase : this.#intervals
    const counted = stable ? inside(span) : span.map(({ dist }) => dist)
    const intervals = span.length
    if (counted.length < 2) return { ...latest, stable, intervals }
    const counts = counted.map(({ pages }) => pages)
    const mean = counts.reduce((sum, count) => sum + count, 0) / counts.length
    const between = counts.reduce((sum, count) => sum + (count - mean) ** 2, 0) / (counts.length - 1)
    const within = counted.reduce((sum, { plusMinus }) => sum + plusMinus ** 2, 0) / counts.length ** 2
    const plusMinus = Math.sqrt((1.96 ** 2 * between) / counts.length + within)
    return { pages: mean, plusMinus, stable, intervals }
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
    const side = this.#sideOf(dist, inside(this.#phase))
    const before = this.#intervals.at(-1)
    if (before && side !== 0 && before.side === side) this.#beginPhase(before, dist)
    else this.#intervals.push({ dist, side })
    if (this.#intervals.length <= keptIntervals) return
    this.#intervals.shift()
    this.#phaseFrom = Math.max(0, this.#phaseFrom - 1)
  }

  #beginPhase(first: Interval, dist: Share): void {
    if (this.#isStable(this.#phase.slice(0, -1))) {
      this.#phaseChanges++
      this.#intervals = [first]
    }
    first.side = 0
    this.#intervals.push({ dist, side: 0 })
    // The first may have caught the change on its way.
    const alike = this.#sideOf(dist, [first.dist]) === 0
    this.#phaseFrom = this.#intervals.length - (alike ? 2 : 1)
  }

  get #phase(): Interval[] {
    return this.#intervals.slice(this.#phaseFrom)
  }

  #isStable(phase: readonly Interval[]): boolean {
    const count = inside(phase).length
    return count >= this.#rule.stableIntervals && phase.length - count <= outlierShareMax * count
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

  /** 0 within the band of the others, else on which side of it. */
  #sideOf({ pages, plusMinus }: Share, others: readonly Share[]): number {
    const middle = median(others.map((dist) => dist.pages)) ?? pages
    const error = Math.hypot(plusMinus, median(others.map((dist) => dist.plusMinus)) ?? 0)
    const margin = Math.max(this.#rule.tolerance * middle, noisePages, 1.5 * error)
    return Math.abs(pages - middle) > margin ? Math.sign(pages - middle) : 0
  }
}

const inside = (phase: readonly Interval[]) => phase.filter(({ side }) => side === 0).map(({ dist }) => dist)

/** The upper one of two. */
const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1]

/** An hour of seconds. */
const keptIntervals = 3600
/** More than one outlier for so many other intervals is no accident. */
const outlierShareMax = 0.2
