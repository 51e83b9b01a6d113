/**
 * Page Reference Logging, modelled: a CPU that walks the page tables, to read or to write, logs the page, as often as it
 * walks. A full log goes to a CPU of the host and does not interrupt the guest. A walk is a miss in a TLB that the model
 * has for each vCPU, of pages of 4 KiB (native/plugin/note.c); every harvest empties the TLBs, so a page that is used in
 * an interval is logged in it at least once. Source: Bitchebe, Tchana, Réveillère.
 */
import { PageRanges } from 'subpage/memory/page-ranges'
import { addCounts, type LogEntries } from './log.ts'
import type { PluginShare } from './share.ts'

export interface PrlHarvest {
  /** How often each page was logged since the last harvest, up to 65280. Shape: pages of the RAM. */
  counts: Uint16Array
  /** Log-full events since then, by the size of the log in entries. */
  full: Record<LogEntries, number>
}

export interface PrlTracker {
  harvest(): PrlHarvest
}

/** @throws SubpageError TRACKER_UNAVAILABLE when the guest does not track prl */
export function openPrl(share: PluginShare): PrlTracker {
  share.require('prl')
  let before = share.logCounts('prl')
  return {
    harvest() {
      const counts = share.takeCounts()
      share.emptyTlbs()
      const now = share.logCounts('prl')
      share.emptyLogs('prl')
      const full = addCounts(now.full, before.full, -1)
      before = now
      return { counts, full }
    },
  }
}

/** Pages that were logged more than τ times; how many they are is dist[i]. */
export function loggedMoreThan(tau: number, counts: Uint16Array): PageRanges {
  const runs: [first: number, count: number][] = []
  for (let page = 0; page < counts.length; page++) {
    if (counts[page]! <= tau) continue
    const run = runs.at(-1)
    if (run && run[0] + run[1] === page) run[1]++
    else runs.push([page, 1])
  }
  return PageRanges.of(runs)
}
