/**
 * Predicts which dirty pages will not be written again before the epoch ends: those are worth sending early (speculative
 * state transfer, Lu and Chiueh, DSN 2009).
 *
 * Per page a counter from 0 to 3, at first 2. A page that was sent early and stayed as it was counts one up, one that was
 * written again after all goes to 0. From 2 on a page is believed to be settled; one that is not believed in is given one
 * point each eighth time it is passed over, so that it gets another chance. What is wasted is watched over all pages: is it
 * more than the stated share of what was sent, only pages that have proved themselves are taken (3), and when that does
 * not help, none for a while.
 */
import { PageRanges } from '../memory/page-ranges.ts'

export type Speculate = 'auto' | 'always' | 'off'
export const speculateChoices: Speculate[] = ['auto', 'always', 'off']

/** Share of what is sent that may have been sent in vain. */
export const wastedShareMax = 0.1

const atFirst = 2
const proved = 3
/** Weight of the newest epoch. */
const weight = 0.1
const restEpochs = 20
const chanceEvery = 8

export class SettledPages {
  readonly #counters: Uint8Array
  readonly #trusting: boolean
  #wastedShare = 0
  #restingEpochs = 0
  #passedOver = 0

  constructor(pages: number, speculate: Speculate) {
    this.#counters = new Uint8Array(pages).fill(atFirst)
    this.#trusting = speculate === 'always'
  }

  /** Those of the dirty pages that are worth sending now. */
  choose(dirty: PageRanges): PageRanges {
    if (this.#trusting) return dirty
    if (this.#restingEpochs > 0) return PageRanges.empty
    const least = this.#wastedShare > wastedShareMax ? proved : atFirst
    const counters = this.#counters
    const chosen: [number, number][] = []
    const chance = ++this.#passedOver % chanceEvery === 0
    for (const { first, count } of dirty)
      for (let page = first; page < first + count; page++)
        if (counters[page]! >= least) chosen.push([page, 1])
        else if (chance) counters[page]!++
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
    for (const { first, count } of again) counters.fill(0, first, first + count)
    const wasted = (earlyBytes * again.pageCount) / early.pageCount / Math.max(1, bytes)
    this.#wastedShare += weight * (wasted - this.#wastedShare)
    if (this.#wastedShare > 2 * wastedShareMax) {
      this.#restingEpochs = restEpochs
      this.#wastedShare = wastedShareMax
    }
  }

  /** Of what was sent lately, the share that was sent in vain. */
  get wastedShare(): number {
    return this.#wastedShare
  }
}
