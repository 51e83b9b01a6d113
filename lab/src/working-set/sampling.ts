/**
 * VMware's estimator (Waldspurger, OSDI 2002): a few pages chosen at random, others each time, and the share of them that
 * was touched. What a sample finds is averaged over all samples so far; ESX weighs the newest more and takes the largest of
 * three averages, which is never nearer to a working set that stays as it is.
 */
import type { Estimate, Estimator } from 'subpage/workingset/estimator'
import type { Observation } from 'subpage/workingset/observation'

export class SamplingEstimator implements Estimator {
  readonly #pages: number
  #intervals = 0
  #watched = 0
  #touched = 0

  constructor(pages: number) {
    this.#pages = pages
  }

  get estimate(): Estimate | undefined {
    if (this.#watched === 0) return undefined
    const share = this.#touched / this.#watched
    const deviation = Math.sqrt((share * (1 - share)) / this.#watched)
    // Where all looked alike, pages that differ may have been missed: the rule of three.
    const missed = share === 0 || share === 1 ? Math.min(1, 3 / this.#watched) : 0
    const plusMinus = this.#pages * Math.max(1.96 * deviation, missed)
    return { pages: share * this.#pages, plusMinus, stable: true, intervals: this.#intervals }
  }

  add({ watched, accessed, endsInterval }: Observation): void {
    if (!endsInterval) return
    this.#intervals++
    this.#watched += watched.pageCount
    this.#touched += accessed.pageCount
  }
}
