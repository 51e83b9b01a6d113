/**
 * The exact tracker: QEMU's own userfaultfd (registered by the shim) has the kernel mark written pages, and PAGEMAP_SCAN
 * reads and re-arms the marks from here. Source: Linux Documentation/admin-guide/mm/pagemap.rst.
 *
 * What it cannot see: writes to the RAM file by another process than QEMU, and mappings made after it was opened.
 * subpage does not do the first to a running guest, and QEMU maps its RAM once, at start.
 */
import { PageRanges } from '../memory/page-ranges.ts'
import { category, Pagemap, trackedMappings } from './pagemap.ts'
import type { Tracker, TrackerTarget } from './tracker.ts'
import { WatchedProcess } from './watched-process.ts'

/** @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE with the reason */
export function openUserfault(target: TrackerTarget): Tracker {
  const watched = new WatchedProcess(target.pid)
  let tracker: UserfaultTracker | undefined
  try {
    tracker = new UserfaultTracker(new Pagemap(watched, trackedMappings(target)), target.ramPages)
    tracker.arm()
    return tracker
  } catch (error) {
    if (tracker) tracker.close()
    else watched.close()
    throw error
  }
}

class UserfaultTracker implements Tracker {
  readonly name = 'userfault'
  readonly #pagemap: Pagemap
  readonly #ramPages: number
  /** What was written is unknown: before the first harvest, and after one that failed half-way and had re-armed. */
  #everything = true

  constructor(pagemap: Pagemap, ramPages: number) {
    this.#pagemap = pagemap
    this.#ramPages = ramPages
  }

  /** Proves that a harvest works here. What it finds is not lost: the first harvest reports every page. */
  arm(): void {
    this.#pagemap.scan(category.written, true)
  }

  harvest(): PageRanges {
    const everything = this.#everything
    this.#everything = true
    const found = this.#pagemap.scan(category.written, true)
    this.#everything = false
    return everything ? PageRanges.all(this.#ramPages) : found
  }

  close(): void {
    this.#pagemap.close()
  }
}
