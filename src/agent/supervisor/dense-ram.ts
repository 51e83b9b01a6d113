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
  /** @param moved false: there was no pause for them */
  resolve(moved: boolean): void
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

  /** In a pause of its own. */
  async moveNow(
    pages: PageRanges,
    standStill: (work: (held: bigint) => Promise<bigint>) => Promise<unknown>,
    work: MovePages,
  ): Promise<boolean> {
    await this.#away.out(pages, () => standStill(async (held) => (await work(pages, held)) ?? held))
    return true
  }

  /** In the next checkpoint's. Resolves with false when there is none: nothing has moved. One at a time. */
  moveLater(pages: PageRanges, work: MovePages): Promise<boolean> {
    if (!this.#checkpointing) return Promise.resolve(false)
    return new Promise((resolve, reject) => {
      this.#waiting = { pages, work, resolve, reject }
    })
  }

  checkpointing(on: boolean): void {
    this.#checkpointing = on
    if (!on) this.#take()?.resolve(false)
  }

  async leave(pause: Pause, stay: PageRanges, leaving: (pages: PageRanges) => void): Promise<void> {
    const waiting = this.#take()
    if (!waiting) return
    const pages = waiting.pages.subtract(stay)
    if (pages.pageCount > 0) leaving(pages)
    try {
      if (pages.pageCount > 0)
        await this.#away.out(pages, () =>
          pause.lend(async (held) => (await waiting.work(pages, held)) ?? held),
        )
      waiting.resolve(true)
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
