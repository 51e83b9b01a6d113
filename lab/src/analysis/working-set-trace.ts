/**
 * The working set of a recording, estimated afterwards, as `subpage wss` would have. A recording holds what was written: pages
 * that were only read are not in it, so this is the written part of the working set, a lower bound.
 */
import { PageRanges } from 'subpage/memory/page-ranges'
import { DistEstimator } from 'subpage/workingset/dist'
import { HotMap } from 'subpage/workingset/hot-map'
import type { Observation } from 'subpage/workingset/observation'
import { type Sample, sampleOf } from 'subpage/workingset/sample'
import type { Trace } from '../trace.ts'
import { endOfAreas } from './areas.ts'

/** An epoch belongs to the interval in which it ends; an interval that the recording does not fill is left out. */
export function samplesOfTrace(trace: Trace, intervalMs: number): Sample[] {
  const pages = endOfAreas(trace.areas())
  const all = PageRanges.all(pages)
  const estimator = new DistEstimator(pages)
  const hotMap = new HotMap(pages, 0)
  const startedAtMs = Date.parse(trace.header.startedAt)
  const samples: Sample[] = []
  let startMs = 0
  let written = PageRanges.empty
  for (const { startUs, lengthUs, dirty } of trace.epochs()) {
    written = written.union(dirty)
    const endMs = (startUs + lengthUs) / 1000
    // Epochs end a little early or late: half of one decides.
    if (endMs + lengthUs / 2000 < startMs + intervalMs) continue
    const observation: Observation = {
      startMs,
      endMs,
      watched: all,
      accessed: written,
      written,
      present: written,
      endsInterval: true,
    }
    hotMap.note(observation)
    estimator.add(observation)
    const sample = sampleOf(observation, estimator, { hotMap, costShare: 0, atMs: startedAtMs + endMs })
    if (sample) samples.push(sample)
    startMs = endMs
    written = PageRanges.empty
  }
  return samples
}
