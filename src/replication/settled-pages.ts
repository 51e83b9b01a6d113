/**
 * Predicts which dirty pages will not be written again before the epoch ends: those are worth sending early (speculative
 * state transfer, Lu and Chiueh, DSN 2009).
 *
 * A page that changed in few of the last epochs is cold: if its writes come by chance, it is not written again in what is left of
 * this epoch with a probability that follows from their number. Cold pages are taken, unless they have proved otherwise: per
 * page a counter from 0 to 3, at first 2, goes up when the page was sent early and stayed as it was, and down when it was
 * written again after all; a page at 0 is not taken, and given a point each eighth time that it is passed over, so that it gets
 * another chance. Where nobody keeps a history the counters are all there is, so they are stricter: from 2 on a page is taken,
 * and one that was written again goes to 0.
 *
 * What is wasted is watched over all pages: if it is more than half the stated share of what was sent, only the coldest pages are
 * taken (without a history, from the stated share on, those at 3), and when that does not help, none for a while.
 */
import { PageRanges } from '../memory/page-ranges.ts'
import type { ChangeHistory } from '../tracking/hot-pages.ts'

export type Speculate = 'auto' | 'always' | 'off'
export const speculateChoices: Speculate[] = ['auto', 'always', 'off']

/** Share of what is sent that may have been sent in vain. */
export const wastedShareMax = 0.1

/** A page is sent while it is less probable than this that it is written again in the same epoch. */
export const againMax = 0.2
const atFirst = 2
const proved = 3
/** Weight of the newest epoch. */
const weight = 0.1
const restEpochs = 20
const chanceEvery = 8

export class SettledPages {
  readonly #counters: Uint8Array
  readonly #trusting: boolean
  readonly #history: ChangeHistory | undefined
  #wastedShare = 0
  #restingEpochs = 0
  #passedOver = 0

  constructor(pages: number, speculate: Speculate, history?: ChangeHistory) {
    this.#history = history
    this.#counters = new Uint8Array(pages).fill(atFirst)
    this.#trusting = speculate === 'always'
  }

  /** Those of the dirty pages that are worth sending now. @param left part of the epoch that is still to come */
  choose(dirty: PageRanges, left: number): PageRanges {
    if (this.#trusting) return dirty
    if (this.#restingEpochs > 0) return PageRanges.empty
    const wasteful = this.#wastedShare > (this.#history ? wastedShareMax / 2 : wastedShareMax)
    const history = this.#history
    const changesMax = history ? this.#changesMax(history, left, wasteful ? againMax / 2 : againMax) : 0
    const least = history ? 1 : wasteful ? proved : atFirst
    const counters = this.#counters
    const chosen: [number, number][] = []
    const chance = ++this.#passedOver % chanceEvery === 0
    for (const { first, count } of dirty)
      for (let page = first; page < first + count; page++)
        if (counters[page]! < least) counters[page]! += chance ? 1 : 0
        else if (!history || history.changes(page) <= changesMax) chosen.push([page, 1])
    return PageRanges.of(chosen)
  }

  /**
   * The epoch has ended.
   * @param early pages that were sent early @param again those of them that were written again
   * @param earlyBytes what they took @param bytes what the whole epoch took
   */
  learn(early: PageRanges, again: PageRanges, earlyBytes: number, bytes: number): void {
    if (this.#restingEpochs > 0) {
      this.#restingEpochs--
      return
    }
    if (early.pageCount === 0) return
    const counters = this.#counters
    for (const { first, count } of early)
      for (let page = first; page < first + count; page++)
        counters[page] = Math.min(proved, counters[page]! + 1)
    for (const { first, count } of again)
      for (let page = first; page < first + count; page++)
        // The point that it was given above, and another.
        counters[page] = this.#history ? Math.max(0, counters[page]! - 2) : 0
    const wasted = (earlyBytes * again.pageCount) / early.pageCount / Math.max(1, bytes)
    this.#wastedShare += weight * (wasted - this.#wastedShare)
    if (this.#wastedShare > 2 * wastedShareMax) {
      this.#restingEpochs = restEpochs
      this.#wastedShare = wastedShareMax
    }
  }

  /** In how many epochs a page may have changed, if it is to rest for what is left of this one; Laplace's rule of succession. */
  #changesMax({ epochs }: ChangeHistory, left: number, probability: number): number {
    return Math.floor((epochs + 2) * (1 - (1 - probability) ** (1 / left)) - 1)
  }

  /** Of what was sent lately, the share that was sent in vain. */
  get wastedShare(): number {
    return this.#wastedShare
  }
}
