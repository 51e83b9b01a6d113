/**
 * Durations counted by length, in fixed buckets: such counts of many guests, and of two moments, can be added and subtracted,
 * which percentiles cannot (Prometheus, "Histograms and summaries").
 */

/** Upper bounds of the buckets, inclusive, in microseconds; what is longer is in one more. */
export const durationBoundsUs: readonly number[] = [
  500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 25_000, 50_000, 100_000, 250_000, 500_000,
  1_000_000, 2_500_000, 10_000_000,
]

export interface Durations {
  /** One for each bound, and one for what is longer; each duration counts once. */
  counts: number[]
  sumUs: number
}

export class DurationStats {
  readonly #counts = new Array<number>(durationBoundsUs.length + 1).fill(0)
  #sumUs = 0

  add(us: number): void {
    const at = durationBoundsUs.findIndex((bound) => us <= bound)
    const bucket = at === -1 ? durationBoundsUs.length : at
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1
    this.#sumUs += us
  }

  get counted(): Durations {
    return { counts: [...this.#counts], sumUs: this.#sumUs }
  }
}
