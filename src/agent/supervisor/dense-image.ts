/**
 * The image of a standby of this host, which its keeper may hold densely: cold pages are in the content store and punched
 * out of the RAM file. The supervisor's mapping of the file must not touch such a page, for it would find zeros, and leave them
 * there; so everything that reads or writes the image borrows its pages (replication/image.ts). What is borrowed is brought
 * back first and stays until it is given back. What QEMU touches comes back by itself, as with a running guest.
 *
 * Which pages are in use is known exactly, without looking at accesses: those that deltas change, and refer to.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { runsOf } from '../../density/keeper.ts'
import type { KeeperClient } from '../../density/keeper-client.ts'
import type { KeeperCall, KeeperCalls } from '../../density/keeper-protocol.ts'
import { asSubpageError, type SubpageError } from '../../errors.ts'
import { hashBytes } from '../../memory/hash.ts'
import { PageRanges } from '../../memory/page-ranges.ts'
import type { Region } from '../../memory/region.ts'
import { type GiveBack, type Image, wholeImage } from '../../replication/image.ts'
import { HotMap } from '../../workingset/hot-map.ts'

/** A keeper that has ended is followed by the next one within this time, or the primary is told. */
const keeperMs = 5_000
const keeperPollMs = 20
/** Hashes that one answer of the keeper holds. */
const hashPages = 1 << 14

export interface DenseImageOptions {
  region: Region
  /** By which the keeper knows the guest. */
  id: string
  keeper: () => Promise<KeeperClient>
  /** What is stored for the image cannot be rebuilt: it is no image any more. */
  damaged: (error: SubpageError) => void
}

export class DenseImage implements Image {
  readonly region: Region
  readonly #options: DenseImageOptions
  readonly #all: PageRanges
  /** While it is dense, or about to be. */
  #hotMap: HotMap | undefined
  /** A byte for each page: whether it may be missing in the RAM file. */
  #away = new Uint8Array(0)
  readonly #lent = new Set<{ pages: PageRanges }>()
  /** These are being moved, out or back; settles when they have been. */
  #moving: { pages: PageRanges; out: boolean; done: Promise<unknown> } = {
    pages: PageRanges.empty,
    out: false,
    done: Promise.resolve(),
  }
  #resting = false
  #seenMs = 0

  constructor(options: DenseImageOptions) {
    this.#options = options
    this.region = options.region
    this.#all = PageRanges.all(options.region.pages)
  }

  get hotMap(): HotMap | undefined {
    return this.#hotMap
  }

  /** From now on pages may leave it; those that are lent already stay until they are given back. */
  begin(): void {
    if (this.#hotMap) return
    this.#seenMs = performance.now()
    this.#hotMap = new HotMap(this.region.pages, this.#seenMs)
    this.#away = new Uint8Array(this.region.pages)
  }

  async borrow(pages: () => PageRanges): Promise<GiveBack> {
    const loan = { pages: this.#hotMap ? pages() : this.#all }
    // From here on none of them leaves.
    this.#lent.add(loan)
    try {
      if (this.#hotMap) await this.#bring(loan.pages)
    } catch (error) {
      this.#lent.delete(loan)
      throw error
    }
    return () => void this.#lent.delete(loan)
  }

  async hashes(): Promise<Uint8Array> {
    if (!this.#hotMap) {
      const giveBack = await this.borrow(() => this.#all)
      return await wholeImage(this.region).hashes().finally(giveBack)
    }
    const hashes = new Uint8Array(this.region.pages * hashBytes)
    let at = 0
    for (
      let [part, rest] = this.#all.take(hashPages);
      part.pageCount > 0;
      [part, rest] = rest.take(hashPages)
    ) {
      const answer = await this.#ask('hashes', { id: this.#options.id, runs: runsOf(part) })
      hashes.set(Buffer.from(answer.hashes, 'base64'), at)
      at += part.pageCount * hashBytes
    }
    return hashes
  }

  async rest(): Promise<void> {
    this.#resting = true
    // What comes back does no harm to a guest that runs.
    if (this.#moving.out) await this.#moving.done
  }

  /** These pages are in the RAM file: nothing has moved since somebody looked. */
  seen(resident: PageRanges): void {
    for (const { first, count } of resident) this.#away.fill(0, first, first + count)
    const now = performance.now()
    this.#hotMap?.note({
      startMs: this.#seenMs,
      endMs: now,
      watched: this.#all,
      // Deltas have told already.
      accessed: PageRanges.empty,
      written: undefined,
      present: PageRanges.empty,
      endsInterval: true,
    })
    this.#seenMs = now
  }

  /** `work` moves those of the pages out that nobody has borrowed. */
  async move(pages: PageRanges, work: (pages: PageRanges) => Promise<unknown>): Promise<void> {
    if (this.#resting) return
    let free = pages
    for (const { pages: lent } of this.#lent) free = free.subtract(lent)
    if (free.pageCount === 0) return
    // Before they go; and should it fail, nobody knows how far it came.
    for (const { first, count } of free) this.#away.fill(1, first, first + count)
    await this.#during(free, true, work(free))
  }

  /** `work` brings all pages back. */
  async becomeWhole(work: () => Promise<void>): Promise<void> {
    await this.#during(this.#all, false, work())
    this.#hotMap = undefined
    this.#away = new Uint8Array(0)
  }

  async #during(pages: PageRanges, out: boolean, work: Promise<unknown>): Promise<void> {
    // Whoever asked for it hears of its failure.
    this.#moving = { pages, out, done: work.catch(() => undefined) }
    await work
    this.#moving.pages = PageRanges.empty
  }

  async #bring(pages: PageRanges): Promise<void> {
    this.#hotMap?.touch(pages, performance.now(), true)
    let missing = this.#missing(pages)
    if (missing.pageCount === 0) return
    // What leaves at this moment must have left before it can be brought back.
    if (missing.intersect(this.#moving.pages).pageCount > 0) {
      await this.#moving.done
      missing = this.#missing(pages)
      if (missing.pageCount === 0) return
    }
    await this.#ask('fetch', { id: this.#options.id, runs: runsOf(missing), room: true, urgent: true })
    for (const { first, count } of missing) this.#away.fill(0, first, first + count)
  }

  #missing(pages: PageRanges): PageRanges {
    const runs: [number, number][] = []
    for (const page of pages.pages()) if (this.#away[page]) runs.push([page, 1])
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
        if (error.code === 'STORE_DAMAGED') this.#options.damaged(error)
        if (error.code !== 'KEEPER_FAILED' || performance.now() > deadline) throw error
        await delay(keeperPollMs)
      }
  }
}
