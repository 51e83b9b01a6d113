/**
 * The image of a standby of this host, which its keeper may hold densely: cold pages are in the content store and punched
 * out of the RAM file. The supervisor's mapping of the file must not touch such a page, for it would find zeros, and leave them
 * there; so everything that reads or writes the image borrows its pages (replication/image.ts). What is borrowed is brought
 * back first and stays until it is given back. What QEMU touches comes back by itself, as with a running guest.
 *
 * Which pages are in use is known exactly, without looking at accesses: those that deltas change, and refer to.
 */
import type { KeeperClient } from '../../density/keeper-client.ts'
import type { SubpageError } from '../../errors.ts'
import { PageRanges } from '../../memory/page-ranges.ts'
import type { Region } from '../../memory/region.ts'
import { type GiveBack, type Image, wholeImage } from '../../replication/image.ts'
import { HotMap } from '../../workingset/hot-map.ts'
import { AwayPages } from './away-pages.ts'

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
  readonly #away: AwayPages
  /** While it is dense, or about to be. */
  #hotMap: HotMap | undefined
  readonly #lent = new Set<{ pages: PageRanges }>()
  #resting = false
  #seenMs = 0

  constructor({ region, ...options }: DenseImageOptions) {
    this.region = region
    this.#away = new AwayPages({ ...options, pages: region.pages })
  }

  get hotMap(): HotMap | undefined {
    return this.#hotMap
  }

  /** From now on pages may leave it; those that are lent already stay until they are given back. */
  begin(): void {
    if (this.#hotMap) return
    this.#seenMs = performance.now()
    this.#hotMap = new HotMap(this.region.pages, this.#seenMs)
    this.#away.begin(false)
  }

  async borrow(pages: () => PageRanges): Promise<GiveBack> {
    const loan = { pages: this.#hotMap ? pages() : this.#away.all }
    // From here on none of them leaves.
    this.#lent.add(loan)
    try {
      this.#hotMap?.touch(loan.pages, performance.now(), true)
      await this.#away.bring(loan.pages)
    } catch (error) {
      this.#lent.delete(loan)
      throw error
    }
    return () => void this.#lent.delete(loan)
  }

  async hashes(): Promise<Uint8Array> {
    if (this.#hotMap) return await this.#away.hashes()
    const giveBack = await this.borrow(() => this.#away.all)
    return await wholeImage(this.region).hashes().finally(giveBack)
  }

  async rest(): Promise<void> {
    this.#resting = true
    await this.#away.settled()
  }

  /** These pages are in the RAM file: nothing has moved since somebody looked. */
  seen(resident: PageRanges): void {
    this.#away.seen(resident)
    const now = performance.now()
    this.#hotMap?.note({
      startMs: this.#seenMs,
      endMs: now,
      watched: this.#away.all,
      // Deltas have told already.
      accessed: PageRanges.empty,
      written: undefined,
      present: PageRanges.empty,
      endsInterval: true,
    })
    this.#seenMs = now
  }

  /** `work` moves those of the pages out that nobody has borrowed. False: it moves nothing any more. */
  async move(pages: PageRanges, work: (pages: PageRanges) => Promise<unknown>): Promise<boolean> {
    if (this.#resting) return false
    let free = pages
    for (const { pages: lent } of this.#lent) free = free.subtract(lent)
    if (free.pageCount > 0) await this.#away.out(free, () => work(free))
    return true
  }

  /** `work` brings all pages back. */
  async becomeWhole(work: () => Promise<void>): Promise<void> {
    await this.#away.end(work)
    this.#hotMap = undefined
  }
}
