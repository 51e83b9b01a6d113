/**
 * Written lines: every 64-byte line that a CPU of the guest has stored to, whatever it stored. This is what a memory
 * controller for CXL would report (cache line deltas, SoCC 2022).
 */
import type { PageRanges } from 'subpage/memory/page-ranges'
import type { PluginShare } from './share.ts'

export interface LineTracker {
  /** Pages with a line that was stored to since its marks were taken last. */
  pages(): PageRanges
  /** Takes the marks of these pages. Shape: two numbers a page, lines 0 to 31 and 32 to 63. */
  take(pages: PageRanges): Uint32Array
}

/** @throws SubpageError TRACKER_UNAVAILABLE when the guest does not track lines */
export function openLines(share: PluginShare): LineTracker {
  share.require('lines')
  return { pages: () => share.markedPages(), take: (pages) => share.takeLines(pages) }
}
