/**
 * What one interval of watching has to say, in a form that goes over the agent's API and into files: a few hundred bytes,
 * whatever the size of the guest.
 */
import { type Static, Type } from '#typebox'
import type { PageRanges } from '../memory/page-ranges.ts'
import type { DistEstimator } from './dist.ts'
import type { HotMap } from './hot-map.ts'
import type { Observation } from './observation.ts'
import { scaleUp } from './share.ts'

const Pages = Type.Object({ pages: Type.Number(), plusMinus: Type.Number() })

/** Pages idle for at least this long and less than the next. */
export const idleEdgesMs = [0, 1000, 5000, 15_000, 60_000, 300_000, 900_000, 3_600_000] as const
/** Rows of the heat map: equal stretches of memory. */
export const heatRows = 64

export const Sample = Type.Object({
  atMs: Type.Number({ description: 'milliseconds since 1970, end of the interval' }),
  windowMs: Type.Number({ description: 'how long accesses were seen' }),
  ramPages: Type.Integer(),
  watchedPages: Type.Integer({ description: 'how many pages this interval has an answer for' }),
  dist: Pages,
  estimate: Type.Object({
    pages: Type.Number(),
    plusMinus: Type.Number(),
    stable: Type.Boolean(),
    intervals: Type.Integer({ description: 'it is the estimate of so many intervals, the latest' }),
  }),
  /** Null when nobody knows, as in the first moments of a protection. */
  written: Type.Union([Pages, Type.Null()]),
  phaseChanges: Type.Integer(),
  idlePages: Type.Array(Type.Integer(), {
    description:
      'by idleEdgesMs; pages not watched yet are in none. Empty where nobody knows which pages they are',
  }),
  heat: Type.Array(Type.Integer(), {
    description:
      'for each stretch of memory the percentage of its pages that were accessed; -1: nobody has looked',
  }),
  largePages: Type.Optional(
    Type.Integer({
      description: 'of a process: pages in large pages, which have one accessed bit for all of it',
    }),
  ),
  hugetlbPages: Type.Optional(
    Type.Integer({ description: 'of a process: pages in hugetlb memory, of whose use nothing is known' }),
  ),
  costShare: Type.Number({ description: 'share of time that watching has cost the guest since it began' }),
})
export type Sample = Static<typeof Sample>

/**
 * After an observation that ends an interval. Undefined before the first estimate.
 * @param watch the map has been told of the observation already
 */
export function sampleOf(
  observation: Observation,
  estimator: DistEstimator,
  watch: { hotMap: HotMap; costShare: number; atMs: number },
): Sample | undefined {
  const { latest, estimate } = estimator
  if (!latest || !estimate) return undefined
  const { hotMap, costShare, atMs } = watch
  const { watched, written, sampled } = observation
  return {
    atMs,
    windowMs: observation.endMs - observation.startMs,
    ramPages: hotMap.pages,
    watchedPages: watched.pageCount,
    dist: latest,
    estimate,
    written: written ? scaleUp(hotMap.pages, watched, written, sampled) : null,
    phaseChanges: estimator.phaseChanges,
    idlePages: hotMap.idleHistogram(idleEdgesMs),
    heat: heatOf(hotMap.pages, observation),
    costShare,
  }
}

/** Pages that were not watched are taken to be as hot as the sample that stands for them. */
function heatOf(pages: number, { watched, accessed, sampled }: Observation): number[] {
  const rowPages = Math.ceil(pages / heatRows)
  const perRow = (ranges: PageRanges) => {
    const counts = new Uint32Array(heatRows)
    for (const page of ranges.pages()) counts[Math.floor(page / rowPages)]!++
    return counts
  }
  const part = sampled?.part ?? watched
  const [seen, hot] = [perRow(watched), perRow(accessed)]
  const [inPart, hotInPart] = [perRow(part), perRow(accessed.intersect(part))]
  const overall = accessed.intersect(part).pageCount / Math.max(part.pageCount, 1)
  return Array.from(seen, (count, row) => {
    const all = Math.max(0, Math.min(rowPages, pages - row * rowPages))
    if (all === 0 || (count === 0 && !sampled)) return -1
    const ratio = inPart[row] ? hotInPart[row]! / inPart[row]! : overall
    return Math.round((100 * (hot[row]! + (all - count) * ratio)) / all)
  })
}
