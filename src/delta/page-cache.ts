/**
 * Which pages a cache of recently sent pages holds. Frequency with aging, and admission by comparison (after TinyLFU,
 * Einziger, Friedman and Manes, 2017): each page of the memory has a counter of its own, so nothing is estimated. A page
 * that misses takes the place of the least written of a few that are held, and only when it was written more often. Guests
 * go through their memory in rounds that are larger than a cache; then those that are held stay, where an order of
 * recency would have let go of each page just before it comes again.
 */

import { PageRanges } from '../memory/page-ranges.ts'
import { noSlot } from './capture.ts'

/** Held pages that are looked at for one that makes room. */
const looksMax = 8
/** Counters are halved after this many writes for each slot. */
const agingWrites = 8

export class PageCache {
  /** For native code: the slot of each page, or `noSlot`. */
  readonly slotOf: Uint32Array
  readonly #pageOf: Uint32Array
  readonly #counters: Uint8Array
  #used = 0
  #hand = 0
  #writes = 0

  constructor(pages: number, slots: number) {
    this.slotOf = new Uint32Array(pages).fill(noSlot)
    this.#pageOf = new Uint32Array(slots).fill(noSlot)
    this.#counters = new Uint8Array(pages)
  }

  /** Memory of the cache beside its pages. */
  get bytes(): number {
    return this.slotOf.byteLength + this.#pageOf.byteLength + this.#counters.byteLength
  }

  /** These pages were written. */
  touch(pages: PageRanges): { held: PageRanges; missed: PageRanges } {
    const held: [number, number][] = []
    const missed: [number, number][] = []
    const { slotOf } = this
    const counters = this.#counters
    for (const { first, count } of pages)
      for (let page = first; page < first + count; ) {
        const hits = slotOf[page] !== noSlot
        const start = page
        for (; page < first + count && (slotOf[page] !== noSlot) === hits; page++)
          if (counters[page]! < 255) counters[page]!++
        ;(hits ? held : missed).push([start, page - start])
      }
    this.#writes += pages.pageCount
    if (this.#writes > agingWrites * this.#pageOf.length) {
      this.#writes = 0
      for (let page = 0; page < counters.length; page++) counters[page]! >>= 1
    }
    return { held: PageRanges.of(held), missed: PageRanges.of(missed) }
  }

  /** Gives a slot to those of the pages that deserve one; what the slot held is forgotten. */
  admit(missed: PageRanges): void {
    for (const { first, count } of missed)
      for (let page = first; page < first + count; page++) {
        const slot = this.#slotFor(this.#counters[page]!)
        if (slot === noSlot) continue
        const before = this.#pageOf[slot]!
        if (before !== noSlot) this.slotOf[before] = noSlot
        this.#pageOf[slot] = page
        this.slotOf[page] = slot
      }
  }

  /** The page is not held any more. */
  drop(page: number): void {
    const slot = this.slotOf[page]!
    if (slot === noSlot) return
    this.slotOf[page] = noSlot
    this.#pageOf[slot] = noSlot
  }

  #slotFor(writes: number): number {
    const pageOf = this.#pageOf
    if (this.#used < pageOf.length) return this.#used++
    let least = writes
    let found = noSlot
    for (let look = 0; look < looksMax; look++) {
      const slot = this.#hand
      this.#hand = slot + 1 === pageOf.length ? 0 : slot + 1
      const page = pageOf[slot]!
      if (page === noSlot) return slot
      if (this.#counters[page]! < least) {
        least = this.#counters[page]!
        found = slot
      }
    }
    return found
  }
}
