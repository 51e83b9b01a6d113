/** The exact record of the pages that the guest's CPUs have read and written: the truth that estimates are held against. */
import type { PageRanges } from 'subpage/memory/page-ranges'
import type { PluginShare } from './share.ts'

export interface Accesses {
  read: PageRanges
  written: PageRanges
}

export interface ExactAccesses {
  /** Takes what was accessed since the last harvest. */
  harvest(): Accesses
}

/** @throws SubpageError TRACKER_UNAVAILABLE when the guest does not track accesses */
export function openExact(share: PluginShare): ExactAccesses {
  share.require('accesses')
  return {
    harvest: () => ({ read: share.takePages('read'), written: share.takePages('stored') }),
  }
}
