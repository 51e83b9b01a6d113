/**
 * What one look at a guest's memory has found: the common input of all estimators, whatever it comes from (a live guest,
 * a recorded trace, the exact log of every access).
 */
import type { PageRanges } from '../memory/page-ranges.ts'

export interface Sampled {
  part: PageRanges
  of: number
}

export interface Observation {
  /** The window in which accesses were seen, in milliseconds of one steady clock. */
  startMs: number
  endMs: number
  /** Pages that were watched in all of the window: counted as not accessed at its start. */
  watched: PageRanges
  /**
   * When not every page was watched: this part of `watched` is a sample of the pages that nobody else stands for, `of` in
   * all; the rest of `watched` stands for itself. Without it, all of `watched` is a sample of the whole memory.
   */
  sampled?: Sampled
  /** Those of them that were accessed in the window. */
  accessed: PageRanges
  /** Those of them that were written in the window; undefined when nobody knows. */
  written: PageRanges | undefined
  /**
   * Every page that may have been accessed since it was watched last, in this window or before: contains `accessed`. A page
   * outside it has certainly not been.
   */
  present: PageRanges
  /** The last of the looks that make up one interval of the estimate; all of them watch the same pages. */
  endsInterval: boolean
}
