/**
 * The exact tracker: QEMU's own userfaultfd (registered by the shim) has the kernel mark written pages, and PAGEMAP_SCAN
 * reads and re-arms the marks from here. Source: Linux Documentation/admin-guide/mm/pagemap.rst.
 *
 * Reading the marks takes them away, so one program at a time may do it: a lock on the RAM file (flock(2)) sees to that.
 * What it cannot see: writes to the RAM file by another process than QEMU, and mappings made after it was opened.
 * subpage does not do the first to a running guest, and QEMU maps its RAM once, at start.
 */
import { SubpageError } from '../errors.ts'
import type { FileLock } from '../memory/file-lock.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import { category, lockMarks, Pagemap, trackedMappings } from './pagemap.ts'
import type { EarlyHarvest, Tracker, TrackerTarget } from './tracker.ts'
import { WatchedProcess } from './watched-process.ts'

/** @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE with the reason */
export function openUserfault(target: TrackerTarget): Tracker {
  const watched = new WatchedProcess(target.pid)
  let lock: FileLock | undefined
  let tracker: UserfaultTracker | undefined
  try {
    const mappings = trackedMappings(target)
    lock = lockMarks(target)
    if (lock === undefined)
      throw new SubpageError(
        'TRACKER_UNAVAILABLE',
        `another program reads which pages of process ${target.pid} were written: its protection, or a recording of it`,
      )
    tracker = new UserfaultTracker(new Pagemap(watched, mappings), lock, target.ramPages)
    tracker.arm()
    return tracker
  } catch (error) {
    if (tracker) tracker.close()
    else {
      watched.close()
      lock?.release()
    }
    throw error
  }
}

class UserfaultTracker implements Tracker {
  readonly name = 'userfault'
  readonly fallback = undefined
  readonly #pagemap: Pagemap
  readonly #lock: FileLock
  readonly #ramPages: number
  /** What was written is unknown: before the first harvest, and after one that failed half-way and had re-armed. */
  #everything = true

  constructor(pagemap: Pagemap, lock: FileLock, ramPages: number) {
    this.#pagemap = pagemap
    this.#lock = lock
    this.#ramPages = ramPages
  }

  /** Proves that a harvest works here. What it finds is not lost: the first harvest reports every page. */
  arm(): void {
    this.#pagemap.scan(category.written, true)
  }

  harvest(leave = PageRanges.empty): PageRanges {
    const everything = this.#everything
    this.#everything = true
    // A page that is left out keeps its mark; whenever it is armed again, that scan reports it.
    const armed = leave.pageCount === 0 ? undefined : PageRanges.all(this.#ramPages).subtract(leave)
    const found = this.#pagemap.scan(category.written, true, armed)
    this.#everything = false
    return everything ? PageRanges.all(this.#ramPages) : found.union(leave)
  }

  readonly early: EarlyHarvest = {
    peek: () => (this.#everything ? PageRanges.empty : this.#pagemap.scan(category.written, false)),
    harvest: (within) => {
      if (this.#everything) return PageRanges.empty
      this.#everything = true
      const found = this.#pagemap.scan(category.written, true, within)
      this.#everything = false
      return found
    },
  }

  close(): void {
    if (this.#pagemap.close()) this.#lock.release()
  }
}
