/**
 * Where each page of a guest is on its way to the standby. It is in exactly one of three places:
 *
 *   unsynced   its shadow is not what the standby holds: it goes whole with the next checkpoint
 *   early      sent before the end of its epoch; the standby holds it beside the image, until that checkpoint commits
 *   clean      its shadow is what the standby holds
 *
 * A page that was written is taken from the tracker by a harvest, and from then on it is unsynced until the checkpoint that
 * carries it is committed, whatever fails meanwhile: so a dirty page is never forgotten. At first all pages are unsynced.
 */
import { invariant } from '../errors.ts'
import { PageRanges } from '../memory/page-ranges.ts'

/** What was sent of an epoch before its end. It stays as it is when the pages are harvested: they are counted at the commit. */
export interface EarlyPages {
  readonly epoch: number
  pages: PageRanges
  changedLines: number
  /** Before they were reduced, and as they were sent. */
  deltaBytes: number
  bytes: number
}

/** What a harvest leaves to capture. */
export interface Harvested {
  /** Of these the shadow holds what the standby holds: what changed goes. */
  known: PageRanges
  /** These go whole. */
  whole: PageRanges
}

export class PendingPages {
  readonly #all: PageRanges
  #unsynced: PageRanges
  #early = PageRanges.empty
  /** Of the coming epoch; also when its pages have been harvested since. */
  #sent: EarlyPages | undefined
  #underWay = false
  #untouched = true

  /** @param pages of the guest */
  constructor(pages: number) {
    this.#all = PageRanges.all(pages)
    this.#unsynced = this.#all
  }

  get unsynced(): PageRanges {
    return this.#unsynced
  }

  /** What of the coming epoch was sent early, for who counts. */
  get sent(): Readonly<EarlyPages> | undefined {
    return this.#sent
  }

  /** Another connection, or the first: what the standby holds is not known. */
  forgetAll(): void {
    this.#settle(this.#all)
  }

  /** Nothing was captured or compared yet: the shadow is as it began. */
  get untouched(): boolean {
    return this.#untouched
  }

  /** The shadow is filled by other ways than a capture. */
  touch(): void {
    this.#untouched = false
  }

  /** All other pages are alike in guest, shadow and image. */
  onlyDiffer(pages: PageRanges): void {
    invariant(
      this.#sent === undefined,
      'the standby holds pages beside the image: they would come on top of what it was compared by',
    )
    this.#settle(pages)
  }

  /** The standby is seeded: it drops what it held for the coming checkpoint. */
  seeding(): void {
    this.#settle(this.#unsynced.union(this.#early))
  }

  /** The tracker named these pages. Until `committed` they are unsynced, and so are those that were sent early. */
  harvested(dirty: PageRanges): Harvested {
    this.#untouched = false
    const whole = this.#unsynced
    this.#unsynced = whole.union(dirty).union(this.#early)
    this.#early = PageRanges.empty
    this.#underWay = true
    return { known: dirty.subtract(whole), whole }
  }

  /**
   * These pages were taken from the tracker and are about to be captured and sent, before their epoch ends.
   * @returns where to count what that takes
   */
  sentEarly(epoch: number, pages: PageRanges): EarlyPages {
    invariant(
      this.#unsynced.intersect(pages).pageCount === 0,
      'a page that goes whole goes with its checkpoint: what is sent of it before would count on another shadow',
    )
    invariant(
      this.#sent?.epoch === epoch || this.#early.pageCount === 0,
      'what was sent early of an epoch is harvested before anything is sent of the next one',
    )
    if (this.#sent?.epoch !== epoch)
      this.#sent = { epoch, pages: PageRanges.empty, changedLines: 0, deltaBytes: 0, bytes: 0 }
    this.#early = this.#early.union(pages)
    this.#sent.pages = this.#sent.pages.union(pages)
    return this.#sent
  }

  /** The standby holds all that was harvested and sent. */
  committed(): void {
    invariant(this.#underWay, 'only what was harvested can be committed')
    invariant(
      this.#early.pageCount === 0,
      'what was sent early since the harvest belongs to a later checkpoint',
    )
    this.#settle(PageRanges.empty)
  }

  #settle(unsynced: PageRanges): void {
    this.#unsynced = unsynced
    this.#early = PageRanges.empty
    this.#sent = undefined
    this.#underWay = false
  }
}
