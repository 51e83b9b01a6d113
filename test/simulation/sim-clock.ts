/**
 * Simulated time: a heap of events. Between two events everything that the last one set off is done to its end (ticks and
 * microtasks), so that the order of all that happens follows from the events alone.
 */

interface Entry {
  atMs: number
  order: number
  run: (() => void) | undefined
}

export class SimTime {
  nowMs = 0
  /** Events that have happened. */
  count = 0
  readonly #heap: Entry[] = []
  #order = 0

  /** Runs `run` after `ms`, unless the returned function is called before. */
  after(ms: number, run: () => void): () => void {
    const entry: Entry = { atMs: this.nowMs + Math.max(0, ms), order: this.#order++, run }
    this.#push(entry)
    return () => {
      entry.run = undefined
    }
  }

  /** Lets events happen until `done` says so or none is left. An error that `run` throws ends it. */
  async run(done: () => boolean): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      // Node empties its queues of ticks and microtasks after each immediate: simulations side by side share one turn.
      const step = () => {
        try {
          if (done()) return resolve()
          const next = this.#next()
          if (!next) return resolve()
          this.nowMs = next.atMs
          this.count++
          next.run?.()
        } catch (error) {
          return reject(error)
        }
        setImmediate(step)
      }
      setImmediate(step)
    })
  }

  #next(): Entry | undefined {
    for (let entry = this.#pop(); entry; entry = this.#pop()) if (entry.run) return entry
    return undefined
  }

  #push(entry: Entry): void {
    const heap = this.#heap
    let at = heap.push(entry) - 1
    while (at > 0) {
      const parent = (at - 1) >>> 1
      if (!before(entry, heap[parent]!)) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = entry
  }

  #pop(): Entry | undefined {
    const heap = this.#heap
    const top = heap[0]
    const last = heap.pop()
    if (!last || heap.length === 0) return top
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, last)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = last
    return top
  }
}

const before = (a: Entry, b: Entry) => a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
