/**
 * Which pages to watch in the next interval.
 *
 * A page that has been forgotten and not been used since is watched for nothing: it needs no forgetting, and if it is used
 * its one fault is due anyway. So all of them are watched, and the budget goes to the others, the pages that have an entry:
 * in turn, blocks of neighbours, one drawn at random from each stretch of `groups` blocks, so that every page has its turn
 * once in `groups` intervals and no stride of the guest can hide between them. After the first round nearly all that have
 * an entry are the working set itself, and a sample of what is nearly all alike says much.
 */
import { PageRanges } from '../memory/page-ranges.ts'
import type { Sampled } from './observation.ts'

export interface Choice {
  watched: PageRanges
  /** As in an observation. */
  sampled?: Sampled
}

export interface Plan {
  /**
   * @param groups into how many parts memory is divided at present
   * @param present pages that have an entry, so that they would have to be forgotten
   */
  next(groups: number, present: PageRanges): Choice
}

/** Neighbours are forgotten in one call, which costs about as much as one page's fault. */
const blockPages = 16

export class RotatingPlan implements Plan {
  readonly #pages: number
  readonly #random: () => number
  #groups = 0
  #turn = 0
  /** For each stretch, the order in which its blocks have their turn. */
  #orders: Uint16Array[] = []

  constructor(pages: number, random: () => number = Math.random) {
    this.#pages = pages
    this.#random = random
  }

  next(groups: number, present: PageRanges): Choice {
    const all = PageRanges.all(this.#pages)
    if (groups <= 1) {
      this.#groups = 0
      return { watched: all }
    }
    if (groups !== this.#groups || this.#turn === groups) this.#shuffle(groups)
    const turn = this.#turn++
    const runs: [first: number, count: number][] = []
    this.#orders.forEach((order, stretch) => {
      const first = (stretch * groups + order[turn]!) * blockPages
      if (first < this.#pages) runs.push([first, Math.min(blockPages, this.#pages - first)])
    })
    const part = PageRanges.of(runs).intersect(present)
    return { watched: all.subtract(present).union(part), sampled: { part, of: present.pageCount } }
  }

  #shuffle(groups: number): void {
    const stretches = Math.ceil(this.#pages / (groups * blockPages))
    this.#groups = groups
    this.#turn = 0
    this.#orders = Array.from({ length: stretches }, () => shuffled(groups, this.#random))
  }
}

/** VMware's way: a few pages at random, others each time (Waldspurger, OSDI 2002: 100 of them in 30 s). */
export class RandomPagesPlan implements Plan {
  readonly #pages: number
  readonly #count: number
  readonly #random: () => number

  constructor(pages: number, count = 100, random: () => number = Math.random) {
    this.#pages = pages
    this.#count = Math.min(count, pages)
    this.#random = random
  }

  next(): Choice {
    const chosen = new Set<number>()
    while (chosen.size < this.#count) chosen.add(Math.floor(this.#random() * this.#pages))
    return { watched: PageRanges.of([...chosen].map((page) => [page, 1] as const)) }
  }
}

/** Fisher and Yates. */
function shuffled(count: number, random: () => number): Uint16Array {
  const order = Uint16Array.from({ length: count }, (_, i) => i)
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    const held = order[i]!
    order[i] = order[j]!
    order[j] = held
  }
  return order
}
