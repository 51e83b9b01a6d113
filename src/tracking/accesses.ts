/**
 * Which pages of a guest's RAM were accessed, read or written: has the kernel forget its page-table entries, and later
 * looks which are there again. Exact to the page, because memory registered with a userfaultfd is mapped page by page.
 * It leaves the tracker of written pages alone (native/shim/forget.h), so a protected guest can be watched too.
 */
import { SubpageError } from '../errors.ts'
import { addon } from '../memory/native.ts'
import type { PageRanges } from '../memory/page-ranges.ts'
import { ForgetChannel, type Forgotten } from './forget.ts'
import { category, lockMarks, Pagemap, trackedMappings } from './pagemap.ts'
import type { TrackerTarget } from './tracker.ts'
import { WatchedProcess } from './watched-process.ts'

export interface AccessTracker {
  /** Size of what is watched, in pages. */
  readonly pages: number
  /** From now on these pages count as not accessed. @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE */
  forget(pages: PageRanges): Promise<Forgotten>
  /** Pages that were accessed since they were forgotten last. @throws SubpageError GUEST_DIED */
  accessed(): PageRanges
  /**
   * From now on these pages count as not written; their next write costs another minor fault. False, and nothing done,
   * while a tracker of written pages is open on the same guest: it would miss what is taken away here.
   */
  arm(pages: PageRanges): boolean
  /** Those of these pages that were written since they were armed last. */
  written(pages: PageRanges): PageRanges
  close(): void
}

export interface AccessTarget extends TrackerTarget {
  /** The file of the channel to the shim. */
  forgetPath: string
}

/** What tracking costs the guest, in nanoseconds on this host. */
export interface FaultCosts {
  /** To use a page that was forgotten. */
  useNs: number
  /** To write for the first time to one whose write mark was taken away, besides. */
  writeNs: number
}

/** Half of a guess at worst: a fault that cannot be timed here is taken for a slow one. */
const nsUnknown = 5_000

/** Of the first write to a page that was armed; some milliseconds of trying it out. Undefined when it cannot be timed here. */
export const writeFaultNs = (): number | undefined => addon.writeFaultNs() || undefined

/** Some milliseconds of trying it out. */
export const faultCosts = (): FaultCosts => ({
  useNs: addon.forgetFaultNs() || nsUnknown,
  writeNs: writeFaultNs() ?? nsUnknown,
})

/** @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE with the reason */
export function openAccesses(target: AccessTarget): AccessTracker {
  const wrong = addon.forgetProbe()
  if (wrong !== '')
    throw new SubpageError('TRACKER_UNAVAILABLE', `accesses cannot be tracked with this kernel: ${wrong}`)
  const watched = new WatchedProcess(target.pid)
  let channel: ForgetChannel | undefined
  try {
    channel = ForgetChannel.open(target.forgetPath)
    return new ShimAccesses(target, channel, new Pagemap(watched, trackedMappings(target)))
  } catch (error) {
    channel?.close()
    watched.close()
    throw error
  }
}

class ShimAccesses implements AccessTracker {
  readonly pages: number
  readonly #target: AccessTarget
  readonly #channel: ForgetChannel
  readonly #pagemap: Pagemap

  constructor(target: AccessTarget, channel: ForgetChannel, pagemap: Pagemap) {
    this.#target = target
    this.pages = target.ramPages
    this.#channel = channel
    this.#pagemap = pagemap
  }

  forget(pages: PageRanges): Promise<Forgotten> {
    return this.#channel.forget(pages)
  }

  accessed(): PageRanges {
    return this.#pagemap.scan(category.present, false)
  }

  /** The lock is held for the scan only: a tracker that is opened later begins with every page. */
  arm(pages: PageRanges): boolean {
    const lock = lockMarks(this.#target)
    if (lock === undefined) return false
    try {
      this.#pagemap.scan(category.written, true, pages)
      return true
    } finally {
      lock.release()
    }
  }

  written(pages: PageRanges): PageRanges {
    return this.#pagemap.scan(category.written, false, pages)
  }

  close(): void {
    this.#channel.close()
    this.#pagemap.close()
  }
}
