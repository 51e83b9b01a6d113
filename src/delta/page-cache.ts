/**
 * Which pages a cache of recently sent pages holds. Frequency with aging, and admission by comparison (after TinyLFU,
 * Einziger, Friedman and Manes, 2017); each page of the memory has a counter of its own, so nothing is estimated. A page
 * that misses takes the place of the least written of a few that are held, and only when it was written more often. Guests
 * go through their memory in rounds that are larger than a cache; then those that are held stay, where an order of
 * recency would have let go of each page just before it comes again. `npm run bench -- shadow` compares.
 */
import { PageRanges } from '../memory/page-ranges.ts'
import { noSlot } from './capture.ts'

/** Held pages that are looked at for one that makes room. */
const looksMax = 8
/** A generation ends when its pages have been written this often on average; counters of the one before count half. */
const writesPerPage = 3
const counterBits = 4
const counterMax = 2 ** counterBits - 1
/** Generations are counted to here and then from 0: a page may take a counter of long ago for one of today. */
const generations = 2 ** (16 - counterBits)

export class PageCache {
  /** For native code: the slot of each page, or `noSlot`. */
  readonly slotOf: Uint32Array
  readonly #pageOf: Uint32Array
  /** Of each page: the generation in which it was last written, and its counter as of then. */
  readonly #written: Uint16Array
  #generation = 1
  /** Of this generation. */
  #writes = 0
  #writtenPages = 0
  #used = 0
  #hand = 0

  constructor(pages: number, slots: number) {
    this.slotOf = new Uint32Array(pages).fill(noSlot)
    this.#pageOf = new Uint32Array(slots).fill(noSlot)
    this.#written = new Uint16Array(pages)
  }

  /** Memory of the cache beside its pages. */
  get bytes(): number {
    return this.slotOf.byteLength + this.#pageOf.byteLength + this.#written.byteLength
  }

  /** These pages were written. */
  touch(pages: PageRanges): { held: PageRanges; missed: PageRanges } {
    // Ascending, as native code reads them. At most every page is a run of its own.
    const held = new Uint32Array(2 * pages.pageCount)
    const missed = new Uint32Array(2 * pages.pageCount)
    let [heldLength, missedLength] = [0, 0]
    const { slotOf } = this
    for (const { first, count } of pages)
      for (let page = first; page < first + count; ) {
        const hits = slotOf[page] !== noSlot
        const start = page
        for (; page < first + count && (slotOf[page] !== noSlot) === hits; page++) this.#count(page)
        const into = hits ? held : missed
        const at = hits ? heldLength : missedLength
        into[at] = start
        into[at + 1] = page - start
        if (hits) heldLength += 2
        else missedLength += 2
      }
    this.#writes += pages.pageCount
    if (this.#writes > writesPerPage * this.#writtenPages) {
      this.#generation = (this.#generation + 1) % generations
      this.#writes = 0
      this.#writtenPages = 0
    }
    return {
      held: PageRanges.fromPairs(held, heldLength / 2),
      missed: PageRanges.fromPairs(missed, missedLength / 2),
    }
  }

  /** Gives a slot to those of the pages that deserve one; what the slot held is forgotten. */
  admit(missed: PageRanges): void {
    for (const { first, count } of missed)
      for (let page = first; page < first + count; page++) {
        const slot = this.#slotFor(page)
        if (slot === noSlot) continue
        this.#empty(slot)
        this.#pageOf[slot] = page
        this.slotOf[page] = slot
      }
  }

  /** The page is not held any more. */
  drop(page: number): void {
    const slot = this.slotOf[page]!
    if (slot !== noSlot) this.#empty(slot)
  }

  #empty(slot: number): void {
    const page = this.#pageOf[slot]!
    if (page === noSlot) return
    this.#pageOf[slot] = noSlot
    this.slotOf[page] = noSlot
  }

  #count(page: number): void {
    if (this.#written[page]! >> counterBits !== this.#generation) this.#writtenPages++
    const counter = Math.min(counterMax, this.#counter(page) + 1)
    this.#written[page] = (this.#generation << counterBits) | counter
  }

  /** How often a page was written, halved for each generation since. */
  #counter(page: number): number {
    const written = this.#written[page]!
    const age = (this.#generation - (written >> counterBits) + generations) % generations
    return age > counterBits ? 0 : (written & counterMax) >> age
  }

  #slotFor(page: number): number {
    const pageOf = this.#pageOf
    if (this.#used < pageOf.length) return this.#used++
    let least = this.#counter(page)
    let found = noSlot
    for (let look = 0; look < looksMax; look++) {
      const slot = this.#hand
      this.#hand = slot + 1 === pageOf.length ? 0 : slot + 1
      const other = pageOf[slot]!
      if (other === noSlot) return slot
      const counter = this.#counter(other)
      if (counter < least) {
        least = counter
        found = slot
      }
    }
    return found
  }
}
