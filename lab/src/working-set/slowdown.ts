/**
 * What watching costs a guest that never rests: processor time for each page that it touches, watched against unwatched, in
 * turn. Processor time, because others on the host may take time from the guest; in pairs, because the host's speed drifts.
 */
import { liveSettings } from 'subpage/workingset/live'
import { type Line, numbersIn } from '../console-reader.ts'
import { mean, ratioInterval } from '../report/statistics.ts'
import type { Lab } from './lab.ts'

export interface Slowdown {
  /** The mean of the pairs. */
  slowdown: number
  /** Between which the mean lies with 95 % confidence; the scatter is that of the host. */
  low: number
  high: number
  pairs: number[]
  /** By the watch's own account. */
  costShare: number
}

const program = 'workset mib=64 mode=mixed order=random period_ms=1 report_ms=20'
/** Two intervals of the watch, but for a moment. The shorter, the more alike is the host in both windows of a pair. */
const windowMs = 2 * liveSettings.intervalMs - 100
/** In which each page is touched again that was forgotten last. */
const settleMs = 200
/** The first intervals of a watch look at little: it does not know yet how much the guest uses. */
const warmUpMs = 3 * liveSettings.intervalMs

export async function measureSlowdown(lab: Lab, pairCount: number): Promise<Slowdown> {
  await lab.begin(program, /^workset ready/m)
  const watch = lab.startWatch(liveSettings)
  try {
    await lab.listen(warmUpMs)
    const pairs: number[] = []
    const costs: number[] = []
    const watched = async () => {
      const before = watch.cost.spentNs
      watch.goOn()
      const ns = nsPerPage(await lab.listen(windowMs))
      await watch.rest()
      costs.push((watch.cost.spentNs - before) / (2e6 * liveSettings.intervalMs))
      return ns
    }
    const unwatched = async () => {
      await watch.rest()
      await lab.listen(settleMs)
      return nsPerPage(await lab.listen(windowMs))
    }
    for (let pair = 0; pair < pairCount; pair++) {
      // Which comes first changes, so that a drift of the host favours neither.
      const first = pair % 2 === 0 ? await watched() : undefined
      const alone = await unwatched()
      pairs.push((first ?? (await watched())) / alone)
    }
    const { mean: slower, low, high } = ratioInterval(pairs)
    return {
      ...{ slowdown: slower - 1, low: low - 1, high: high - 1 },
      pairs: pairs.map((ratio) => ratio - 1),
      costShare: mean(costs),
    }
  } finally {
    await watch.stop()
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
