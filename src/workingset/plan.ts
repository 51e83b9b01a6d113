/**
 * Which pages to watch in the next interval. All of them when the budget allows it; else a part, another one each time, in
 * turn: blocks of neighbouring pages, one drawn at random from each stretch of `groups` blocks, so that every page has its
 * turn once in `groups` intervals and no stride of the guest can hide between them.
 */
import { PageRanges } from '../memory/page-ranges.ts'

export interface Plan {
  /** @param groups into how many parts memory is divided at present */
  next(groups: number): PageRanges
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

  next(groups: number): PageRanges {
    if (groups <= 1) {
      this.#groups = 0
      return PageRanges.all(this.#pages)
    }
    if (groups !== this.#groups || this.#turn === groups) this.#shuffle(groups)
    const turn = this.#turn++
    const runs: [first: number, count: number][] = []
    this.#orders.forEach((order, stretch) => {
      const first = (stretch * groups + order[turn]!) * blockPages
      if (first < this.#pages) runs.push([first, Math.min(blockPages, this.#pages - first)])
    })
    return PageRanges.of(runs)
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

  next(): PageRanges {
    const chosen = new Set<number>()
    while (chosen.size < this.#count) chosen.add(Math.floor(this.#random() * this.#pages))
    return PageRanges.of([...chosen].map((page) => [page, 1] as const))
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
