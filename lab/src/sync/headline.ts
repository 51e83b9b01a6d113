/** The few figures that answer the study's question: medians over the workloads. A reduction is whole-page bytes by bytes sent. */
import { median } from '../report/statistics.ts'
import type { Cell } from './measure.ts'
import type { EpochCost } from './replayed-pair.ts'
import type { SlaveCell } from './slave/measure.ts'
import { middleSaving } from './slave/result.ts'
import { allTogether, wholePages } from './technique.ts'

export interface Headline {
  workloads: number
  reductionFineGrained: number
  /** Of the bytes at the epoch's end, with whole pages, as it is published. */
  reductionSpeculation: number
  reductionSharing: number
  reductionAll: number
  /** Of all bytes sent, those that were sent early for pages that were written again. */
  wastedBySpeculation: number
  /** By an active slave, of whole pages and beyond all else but speculation; only where guests ran. */
  reductionSlavePages?: number
  reductionSlaveBeyond?: number
}

export function headlineOf(cells: readonly Cell[], slave: readonly SlaveCell[] = []): Headline {
  const names = [...new Set(cells.map(({ workload }) => workload))]
  /** Each workload counts once, with the median over its epoch lengths. */
  const middle = (value: (cell: Cell) => number) =>
    median(names.map((name) => median(cells.filter(({ workload }) => workload === name).map(value))))
  return {
    workloads: names.length,
    reductionFineGrained: middle((cell) => reduction(cell, 'lines')),
    reductionSpeculation: middle((cell) => reduction(cell, 'speculation, whole pages', 'finalBytes')),
    reductionSharing: middle((cell) => reduction(cell, '+ sharing')),
    reductionAll: middle((cell) => reduction(cell, allTogether)),
    wastedBySpeculation: middle((cell) => wasted(cell.costs[allTogether]!)),
    ...(slave.length > 0 && {
      reductionSlavePages: middleSaving(slave, 'whole pages'),
      reductionSlaveBeyond: middleSaving(slave, '+ dictionary, zstd'),
    }),
  }
}

export function reduction(
  { costs }: Cell,
  technique: string,
  bytes: 'totalBytes' | 'finalBytes' = 'totalBytes',
): number {
  return costs[wholePages]![bytes] / costs[technique]![bytes]
}

export const wasted = ({ wastedBytes, totalBytes }: EpochCost) => wastedBytes / Math.max(1, totalBytes)

/** Whether what is added ever costs more than it saves. */
export interface Judgement {
  /** The largest share of the bytes of plain `masked` that a technique above it took in a cell, and where. */
  worst: number
  worstWhere: string
  worstGoal: number
}

/** Techniques that build on `masked`. Sending always early is there for comparison only. */
const builtOnMasked = ['+ sharing', '+ dictionary', '+ similar', '+ compression', '+ speculation'] as const

export function judge(cells: readonly Cell[]): Judgement {
  let [worst, worstWhere] = [0, '']
  for (const { workload, epochMs, costs } of cells)
    for (const name of builtOnMasked) {
      const share = costs[name]!.totalBytes / costs.masked!.totalBytes
      if (share > worst) [worst, worstWhere] = [share, `"${name}" under ${workload} with ${epochMs} ms`]
    }
  return { worst, worstWhere, worstGoal: 1.02 }
}
