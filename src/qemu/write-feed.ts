/**
 * Two may want to know which pages a guest has written: the protection, whose tracker takes the kernel's marks away as it
 * reads them, and whoever watches its working set. A mark that the one takes is lost to the other, and to the protection a
 * lost page is a wrong byte on the standby. So the protection goes first: while a tracker of it is open, nobody else reads
 * the marks, and the others hear of its harvests.
 */
import { PageRanges } from '../memory/page-ranges.ts'
import type { Tracker } from '../tracking/tracker.ts'

export class WriteFeed {
  #open = 0
  /** What the harvests have named since `begin`. */
  #harvested = PageRanges.empty
  /** A protection began or ended since then: what was written is not known. */
  #disturbed = true

  /** The same tracker, with its harvests heard here. */
  observe(tracker: Tracker): Tracker {
    // `compare` leaves the marks alone and says nothing.
    if (tracker.name !== 'userfault') return tracker
    this.#open++
    this.#disturbed = true
    let closed = false
    let first = true
    return {
      name: tracker.name,
      harvest: () => {
        const pages = tracker.harvest()
        // The first one names everything, whatever was written.
        if (!first) this.#harvested = this.#harvested.union(pages)
        first = false
        return pages
      },
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

  /** Pages written since `begin`; undefined when that is not known. @param scan reads the marks */
  end(scan: () => PageRanges): PageRanges | undefined {
    if (this.#disturbed) return undefined
    return this.#open === 0 ? scan() : this.#harvested
  }
}
