/**
 * Which pages of a memory that is held densely may be missing in its RAM file, and how they come back. Our mapping of the file must not
 * touch a missing page: it would find zeros, and leave them there.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { runsOf } from '../../density/keeper.ts'
import type { KeeperClient } from '../../density/keeper-client.ts'
import type { KeeperCall, KeeperCalls } from '../../density/keeper-protocol.ts'
import { asSubpageError, type SubpageError } from '../../errors.ts'
import { hashBytes } from '../../memory/hash.ts'
import { PageRanges } from '../../memory/page-ranges.ts'

/** A keeper that has ended is followed by the next one within this time, or whoever needs pages is told. */
const keeperMs = 5_000
const keeperPollMs = 20
/** Hashes that one answer of the keeper holds. */
const hashPages = 1 << 14

export interface AwayOptions {
  /** By which the keeper knows the guest. */
  id: string
  pages: number
  keeper: () => Promise<KeeperClient>
  /** What is stored cannot be rebuilt. */
  damaged?: (error: SubpageError) => void
}

export class AwayPages {
  readonly all: PageRanges
  readonly #options: AwayOptions
  /** A byte for each page: whether it may be missing in the RAM file. Undefined: none is, and none leaves. */
  #away: Uint8Array | undefined
  /** These are being moved, out or back; settles when they have been. */
  #moving: { pages: PageRanges; out: boolean; done: Promise<unknown> } = {
    pages: PageRanges.empty,
    out: false,
    done: Promise.resolve(),
  }

  constructor(options: AwayOptions) {
    this.#options = options
    this.all = PageRanges.all(options.pages)
  }

  /** Pages may leave. */
  get dense(): boolean {
    return this.#away !== undefined
  }

  /** @param unknown any of them may have left before */
  begin(unknown: boolean): void {
    this.#away ??= new Uint8Array(this.#options.pages).fill(unknown ? 1 : 0)
  }

  /** These pages are in the RAM file: nothing has moved since somebody looked. */
  seen(resident: PageRanges): void {
    for (const { first, count } of resident) this.#away?.fill(0, first, first + count)
  }

  /** Resolves when nothing is on its way out. What comes back does no harm. */
  async settled(): Promise<void> {
    if (this.#moving.out) await this.#moving.done
  }

  /** `work` moves these pages out. Should it fail, nobody knows how far it came. */
  async out(pages: PageRanges, work: () => Promise<unknown>): Promise<void> {
    for (const { first, count } of pages) this.#away?.fill(1, first, first + count)
    await this.#during(pages, true, work())
  }

  /** `work` brings all pages back, and none leaves any more. */
  async end(work: () => Promise<void>): Promise<void> {
    await this.#during(this.all, false, work())
    this.#away = undefined
  }

  /** Resolves when these pages are in the RAM file, all with their room. @throws SubpageError NO_SPACE, KEEPER_FAILED, STORE_DAMAGED */
  async bring(pages: PageRanges): Promise<void> {
    let missing = this.#missing(pages)
    if (missing.pageCount === 0) return
    // What leaves at this moment must have left before it can be brought back.
    if (missing.intersect(this.#moving.pages).pageCount > 0) {
      await this.#moving.done
      missing = this.#missing(pages)
      if (missing.pageCount === 0) return
    }
    await this.#ask('fetch', { id: this.#options.id, runs: runsOf(missing), room: true, urgent: true })
    this.seen(missing)
  }

  /** XXH3-128 of every page in order, 16 bytes each, wherever it is. @throws SubpageError as `bring` */
  async hashes(): Promise<Uint8Array> {
    const hashes = new Uint8Array(this.all.pageCount * hashBytes)
    let at = 0
    for (
      let [part, rest] = this.all.take(hashPages);
      part.pageCount > 0;
      [part, rest] = rest.take(hashPages)
    ) {
      const answer = await this.#ask('hashes', { id: this.#options.id, runs: runsOf(part) })
      hashes.set(Buffer.from(answer.hashes, 'base64'), at)
      at += part.pageCount * hashBytes
    }
    return hashes
  }

  async #during(pages: PageRanges, out: boolean, work: Promise<unknown>): Promise<void> {
    // Whoever asked for it hears of its failure.
    this.#moving = { pages, out, done: work.catch(() => undefined) }
    await work
    this.#moving.pages = PageRanges.empty
  }

  #missing(pages: PageRanges): PageRanges {
    const away = this.#away
    if (!away) return PageRanges.empty
    const runs: [number, number][] = []
    for (const page of pages.pages()) if (away[page]) runs.push([page, 1])
    return runs.length === 0 ? PageRanges.empty : PageRanges.of(runs)
  }

  async #ask<Call extends KeeperCall>(
    call: Call,
    takes: KeeperCalls[Call]['takes'],
  ): Promise<KeeperCalls[Call]['gives']> {
    const deadline = performance.now() + keeperMs
    for (;;)
      try {
        return await (await this.#options.keeper()).ask(call, takes)
      } catch (thrown) {
        const error = asSubpageError(thrown)
        if (error.code === 'STORE_DAMAGED') this.#options.damaged?.(error)
        if (error.code !== 'KEEPER_FAILED' || performance.now() > deadline) throw error
        await delay(keeperPollMs)
      }
  }
}
