/**
 * Observations from QEMU's plugin, for the estimators: Page Reference Logging and Page Modification Logging as their models
 * log, and the exact record of accesses that both are held against. Sources of one share can be looked at side by side.
 *
 *   using share = PluginShare.open(files.accesses)        // a guest that was started with --track prl,pml,accesses
 *   await share.untilActive(pause)
 *   const [prl, truth] = [prlSource(share, 0), exactSource(share)]
 *   …each interval: estimator.add(prl.look()); truth.look().accessed.pageCount
 *
 * None of them sees the instructions that are fetched: pages of code count when they are read or written as data.
 */
import { PageRanges } from 'subpage/memory/page-ranges'
import type { Observation } from 'subpage/workingset/observation'
import { openExact } from './exact.ts'
import { openPml } from './pml.ts'
import { loggedMoreThan, openPrl } from './prl.ts'
import type { PluginShare } from './share.ts'

export interface ObservationSource {
  /** What was accessed since the last look, or since the source was opened: one whole interval of the estimate. */
  look(): Observation
}

/** The pages that are logged more than τ times in an interval: feed them to a DistEstimator whose own τ is 0. */
export function prlSource(share: PluginShare, tau: number): ObservationSource {
  const prl = openPrl(share)
  return sourceOf(share, () => {
    const { counts } = prl.harvest()
    return { accessed: loggedMoreThan(tau, counts), written: undefined, present: loggedMoreThan(0, counts) }
  })
}

/** Pages that are only read are not in the log: the estimate is that of what is written. */
export function pmlSource(share: PluginShare): ObservationSource {
  const pml = openPml(share)
  return sourceOf(share, () => {
    const { pages } = pml.harvest()
    return { accessed: pages, written: pages, present: PageRanges.all(share.pages) }
  })
}

/** The truth. */
export function exactSource(share: PluginShare): ObservationSource {
  const exact = openExact(share)
  return sourceOf(share, () => {
    const { read, written } = exact.harvest()
    const accessed = read.union(written)
    return { accessed, written, present: accessed }
  })
}

type Found = Pick<Observation, 'accessed' | 'written' | 'present'>

/** What was noted before is not of the first interval. */
function sourceOf(share: PluginShare, harvest: () => Found): ObservationSource {
  harvest()
  let startMs = performance.now()
  const watched = PageRanges.all(share.pages)
  return {
    look() {
      const found = harvest()
      const endMs = performance.now()
      const observation = { startMs, endMs, watched, ...found, endsInterval: true }
      startMs = endMs
      return observation
    },
  }
}
