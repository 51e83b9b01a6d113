/**
 * Which pages of a guest's RAM were written: one interface, two ways to know.
 *
 * `userfault` asks the kernel and is exact to the page; it needs Linux 6.7 and a QEMU that was started with the shim.
 * `compare` names every page and leaves it to capture to find those that differ from the shadow; it works everywhere.
 */
import { SubpageError } from '../errors.ts'
import { addon } from '../memory/native.ts'
import type { PageRanges } from '../memory/page-ranges.ts'
import { openCompare } from './compare.ts'
import { openUserfault } from './userfault.ts'

export type TrackerName = 'userfault' | 'compare'
export const trackerChoices = ['auto', 'userfault', 'compare'] as const
export type TrackerChoice = (typeof trackerChoices)[number]

/** No member is optional: whoever wraps a tracker must say for each what becomes of it. */
export interface Tracker {
  readonly name: TrackerName
  /** Why `auto` did not choose userfault, in words for `status`; undefined when it did, or was not asked. */
  readonly fallback: string | undefined
  /**
   * Reads which pages were written since the last harvest, and re-arms, in one step. May report more than was written,
   * never less; the first harvest reports every page. After an error the next one reports every page again.
   * @param leave these are not armed: their next write costs the guest nothing. The tracker does not vouch for them, so all of
   *   them are reported, written or not
   * @throws SubpageError GUEST_DIED when the process has ended, TRACKER_UNAVAILABLE when tracking was lost
   */
  harvest(leave?: PageRanges): PageRanges
  /** Before the epoch's end; undefined where it would cost as much as a harvest. */
  readonly early: EarlyHarvest | undefined
  close(): void
}

/** Some of the written pages, while the guest runs. */
export interface EarlyHarvest {
  /** What a harvest would report; nothing changes. Empty when every page would be. @throws as harvest does */
  peek(): PageRanges
  /** As harvest, for these pages only; all others stay as they are. @throws as harvest does */
  harvest(within: PageRanges): PageRanges
}

export interface TrackerTarget {
  pid: number
  /** The file that holds the guest's RAM, or a path in /proc/PID/fd that leads to it. */
  ramPath: string
  ramPages: number
  /** Where the shim reports; with it an error can say why tracking is not available. */
  shimStatusPath?: string
}

/**
 * @throws SubpageError GUEST_DIED when there is no such process; TRACKER_UNAVAILABLE when `wanted` is userfault and
 * cannot be had
 */
export function openTracker(target: TrackerTarget, wanted: TrackerChoice): Tracker {
  if (wanted === 'compare') return openCompare(target)
  try {
    return openUserfault(target)
  } catch (error) {
    if (wanted === 'userfault' || !(error instanceof SubpageError) || error.code !== 'TRACKER_UNAVAILABLE')
      throw error
    return openCompare(target, error.message)
  }
}

/** Whether this kernel tracks writes for us, found out by doing it on four pages of our own. For `subpage check`. */
export function probeUserfault(): { available: boolean; reason: string } {
  const failed = addon.userfaultProbe()
  return failed === ''
    ? { available: true, reason: 'the kernel reports written pages (userfaultfd WP_ASYNC and PAGEMAP_SCAN)' }
    : {
        available: false,
        reason: `${failed}: write tracking needs Linux 6.7 or later with userfaultfd allowed`,
      }
}
