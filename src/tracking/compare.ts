/**
 * The tracker that works everywhere: it names every page, and capture compares them all with the shadow. Costs a read
 * of the whole RAM per checkpoint (11 GB/s a core) and nothing in between.
 */
import { PageRanges } from '../memory/page-ranges.ts'
import type { Tracker, TrackerTarget } from './tracker.ts'
import { WatchedProcess } from './watched-process.ts'

export function openCompare({ pid, ramPages }: TrackerTarget, fallback?: string): Tracker {
  const watched = new WatchedProcess(pid)
  return {
    name: 'compare',
    fallback,
    early: undefined,
    harvest() {
      watched.assertRunning()
      return PageRanges.all(ramPages)
    },
    close() {
      watched.close()
    },
  }
}
