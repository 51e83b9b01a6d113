/**
 * The memory of a guest that runs on this host, which its keeper may hold densely. By itself the guest stands still for each eviction in a
 * pause of its own. While it is protected, pages leave in the pauses of its checkpoints (replication/guest-memory.ts): one that
 * was written and has left before the tracker was read would be lost.
 */
import type { PageRanges } from '../../memory/page-ranges.ts'
import type { Pause } from '../../replication/guest.ts'
import type { GuestMemory } from '../../replication/guest-memory.ts'
import { type AwayOptions, AwayPages } from './away-pages.ts'
import type { MovePages } from './dense-guest.ts'
import type { GuestProcess } from './hypervisor.ts'

/** Pages that wait for a pause. */
interface Waiting {
  pages: PageRanges
  work: MovePages
  /** @param ms that the guest stood still for them; undefined: there was no pause */
  resolve(ms: number | undefined): void
  reject(error: unknown): void
}

export class DenseRam implements GuestMemory {
  readonly #away: AwayPages
  moved = false
  #checkpointing = false
  #waiting: Waiting | undefined

  constructor({ record, ram }: Pick<GuestProcess, 'record' | 'ram'>, keeper: AwayOptions['keeper']) {
    this.#away = new AwayPages({ id: record.id, pages: ram.pages, keeper })
  }

  get dense(): boolean {
    return this.#away.dense
  }

  /** Pages may leave. @param unknown any may have left before */
  begin(unknown: boolean): void {
    this.#away.begin(unknown)
    this.moved = true
  }

  seen(resident: PageRanges): void {
    this.#away.seen(resident)
  }

  becomeWhole(work: () => Promise<void>): Promise<void> {
    return this.#away.end(work)
  }

  settled(): Promise<void> {
    return this.#away.settled()
  }

  bring(pages: PageRanges): Promise<void> {
    return this.#away.bring(pages)
  }

  /** In a pause of its own. @param standStill returns the microseconds of that @returns milliseconds */
  async moveNow(
    pages: PageRanges,
    standStill: (work: (held: bigint) => Promise<bigint>) => Promise<number>,
    work: MovePages,
  ): Promise<number> {
    let us = 0
    await this.#away.out(pages, async () => {
      us = await standStill(async (held) => (await work(pages, held)) ?? held)
    })
    return us / 1000
  }

  /** In the next checkpoint's. Resolves with undefined when there is none: nothing has moved. One at a time. */
  moveLater(pages: PageRanges, work: MovePages): Promise<number | undefined> {
    if (!this.#checkpointing) return Promise.resolve(undefined)
    return new Promise((resolve, reject) => {
      this.#waiting = { pages, work, resolve, reject }
    })
  }

  checkpointing(on: boolean): void {
    this.#checkpointing = on
    if (!on) this.#take()?.resolve(undefined)
  }

  async leave(pause: Pause, stay: PageRanges, leaving: (pages: PageRanges) => void): Promise<void> {
    const waiting = this.#take()
    if (!waiting) return
    const pages = waiting.pages.subtract(stay)
    if (pages.pageCount > 0) leaving(pages)
    const startedAt = performance.now()
    try {
      if (pages.pageCount > 0)
        await this.#away.out(pages, () =>
          pause.lend(async (held) => (await waiting.work(pages, held)) ?? held),
        )
      waiting.resolve(performance.now() - startedAt)
    } catch (error) {
      waiting.reject(error)
    }
  }

  #take(): Waiting | undefined {
    const waiting = this.#waiting
    this.#waiting = undefined
    return waiting
  }
}
