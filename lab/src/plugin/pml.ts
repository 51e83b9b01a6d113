/**
 * Page Modification Logging, modelled: a CPU that sets a page's dirty bit (0 to 1) logs the page; a full log interrupts the
 * guest for the hypervisor to empty it. A page is logged once until it is armed again. The model is native/plugin/note.c;
 * Intel SDM volume 3, 29.3.6 (2023), and Bitchebe, Tchana, Réveillère.
 */
import type { PageRanges } from 'subpage/memory/page-ranges'
import { addCounts, type LogEntries } from './log.ts'
import type { PluginShare } from './share.ts'

export interface PmlHarvest {
  /** Logged since the last harvest. */
  pages: PageRanges
  /** Log-full events since then, by the size of the log in entries. */
  full: Record<LogEntries, number>
}

export interface PmlTracker {
  /** Empties the logs and arms every page again. */
  harvest(): PmlHarvest
}

/** @throws SubpageError TRACKER_UNAVAILABLE when the guest does not track pml */
export function openPml(share: PluginShare): PmlTracker {
  share.require('pml')
  let before = share.logCounts('pml')
  return {
    harvest() {
      const pages = share.takePages('dirty')
      const now = share.logCounts('pml')
      share.emptyLogs('pml')
      const full = addCounts(now.full, before.full, -1)
      before = now
      return { pages, full }
    },
  }
}
