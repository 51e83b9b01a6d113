/**
 * Two may want to know which pages a guest has written: the protection, whose tracker takes the kernel's marks away as it
 * reads them, and whoever watches its working set. A mark that the one takes is lost to the other, and to the protection a
 * lost page is a wrong byte on the standby. So the protection goes first: while a tracker of it is open, nobody else reads
 * the marks, and the others hear of its harvests, those before an epoch's end included.
 */
import { PageRanges } from '../memory/page-ranges.ts'
import type { EarlyHarvest, Tracker } from '../tracking/tracker.ts'

export class WriteFeed {
  #open = 0
  /** What the harvests have named since `begin`. */
  #harvested = PageRanges.empty
  /** What was written since then is not known: a protection began or ended, or a harvest named everything. */
  #disturbed = true

  /** The same tracker, with its harvests heard here. */
  observe(tracker: Tracker): Tracker {
    // `compare` leaves the marks alone and says nothing.
    if (tracker.name !== 'userfault') return tracker
    this.#open++
    this.#disturbed = true
    let closed = false
    // The next harvest names everything, whatever was written: the first one, and that after one that failed.
    let everything = true
    const heard = (harvest: () => PageRanges): PageRanges => {
      const known = !this.#disturbed && !everything
      everything = true
      this.#disturbed = true
      const pages = harvest()
      everything = false
      this.#disturbed = !known
      this.#harvested = this.#harvested.union(pages)
      return pages
    }
    const early = (early: EarlyHarvest): EarlyHarvest => ({
      peek: () => early.peek(),
      // A tracker that would name everything takes no mark before the next whole harvest.
      harvest: (within) => (everything ? early.harvest(within) : heard(() => early.harvest(within))),
    })
    return {
      name: tracker.name,
      fallback: tracker.fallback,
      early: tracker.early && early(tracker.early),
      harvest: (leave) => heard(() => tracker.harvest(leave)),
      close: () => {
        if (!closed) this.#open--
        closed = true
        this.#disturbed = true
        tracker.close()
      },
    }
  }

  /**
   * From now on what is written is of interest.
   * @param arm takes the marks away; false when another program needs them
   * @returns whether it did
   */
  begin(arm: () => boolean): boolean {
    const armed = this.#open === 0 && arm()
    this.#harvested = PageRanges.empty
    this.#disturbed = this.#open === 0 && !armed
    return armed
  }

  /**
   * Pages written since `begin`, and those that a protection has left unarmed meanwhile, for that is not known of them;
   * undefined when nothing is known. @param scan reads the marks
   */
  end(scan: () => PageRanges): PageRanges | undefined {
    if (this.#disturbed) return undefined
    return this.#open === 0 ? scan() : this.#harvested
  }
}
