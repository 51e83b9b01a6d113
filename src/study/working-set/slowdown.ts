/**
 * What watching costs a guest that never rests: processor time for each page that it touches, watched against unwatched, in
 * turn. Processor time, because others on the host may take time from the guest; in pairs, because the host's speed drifts.
 */
import { DistEstimator } from '../../workingset/dist.ts'
import { liveSettings } from '../../workingset/live.ts'
import { ascending, mean, median, percentile } from '../report/statistics.ts'
import { type Line, numbersIn } from './console-reader.ts'
import type { Lab } from './lab.ts'

export interface Slowdown {
  /** The middle one of the pairs. */
  slowdown: number
  /** Between which the middle one lies with 95 % confidence (order statistics); the scatter is that of the host. */
  low: number
  high: number
  pairs: number[]
  /** By the watch's own account. */
  costShare: number
}

/** The first interval of a watch looks at little: it does not know yet how much the guest uses. */
const intervals = 3
const program = 'workset mib=64 mode=mixed order=random period_ms=1 report_ms=100'

export async function measureSlowdown(lab: Lab, pairCount: number): Promise<Slowdown> {
  await lab.begin(program, /^workset ready/m)
  try {
    await lab.listen(1000)
    const pairs: number[] = []
    const costs: number[] = []
    const watched = async () => {
      const estimator = new DistEstimator(lab.ramPages)
      const { windows, lines, costShare } = await lab.watch({ intervals, settings: liveSettings, estimator })
      costs.push(costShare)
      const from = windows[0]!.endMs
      return nsPerPage(lines.filter(({ atMs }) => atMs >= from))
    }
    const unwatched = async () => nsPerPage(await lab.listen((intervals - 1) * liveSettings.intervalMs))
    for (let pair = 0; pair < pairCount; pair++) {
      // Which comes first changes, so that a drift of the host favours neither.
      const first = pair % 2 === 0 ? await watched() : undefined
      const alone = await unwatched()
      pairs.push((first ?? (await watched())) / alone - 1)
    }
    return { slowdown: median(pairs), ...interval(pairs), pairs, costShare: mean(costs) }
  } finally {
    await lab.endPrograms('workset')
  }
}

/** From the first line of the program to the last one. */
function nsPerPage(lines: Line[]): number {
  const reports = lines.filter(({ text }) => /^workset periods=/.test(text))
  const [first, last] = [reports[0], reports.at(-1)]
  if (!first || !last || first === last) throw new TypeError('the program has said too little to be timed')
  const pages = numbersIn(reports.slice(1), /^workset periods=\d+ pages=(\d+)/)
  return (last.processorNs - first.processorNs) / pages.reduce((sum, count) => sum + count, 0)
}

/** Of the median, with 95 % confidence: the ranks n/2 ± 0.98 √n. */
function interval(values: number[]): { low: number; high: number } {
  const sorted = ascending(values)
  const reach = 0.98 / Math.sqrt(values.length)
  return {
    low: percentile(sorted, Math.max(0, 0.5 - reach)),
    high: percentile(sorted, Math.min(1, 0.5 + reach)),
  }
}
