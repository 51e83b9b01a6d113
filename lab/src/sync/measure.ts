/** One recording under every technique and epoch length. */
import type { Trace } from '../trace.ts'
import { changedBlocks } from './changed-blocks.ts'
import { play, Recording } from './recorded-writes.ts'
import { type EpochCost, nothing, ReplayedPair } from './replayed-pair.ts'
import type { Technique } from './technique.ts'

/** A workload with one epoch length. */
export interface Cell {
  workload: string
  epochMs: number
  epochs: number
  /** By technique: sums over the epochs. */
  costs: Record<string, EpochCost>
  /** Bytes when changed blocks of this size are sent whole, by size. */
  blockBytes: Record<number, number>
}

export async function measure(
  workload: string,
  trace: Trace,
  techniques: readonly Technique[],
  epochLengths: readonly number[],
  note: (text: string) => void,
  signal: AbortSignal,
): Promise<Cell[]> {
  using recording = new Recording(trace)
  const cells: Cell[] = []
  for (const epochMs of epochLengths) {
    note(`${workload}, epochs of ${epochMs} ms`)
    const blockBytes = await changedBlocks(recording, epochMs)
    const costs: Record<string, EpochCost> = {}
    let epochs = 0
    for (const technique of techniques) {
      signal.throwIfAborted()
      const each = await replay(recording, technique, epochMs)
      epochs = each.length
      costs[technique.name] = sum(each)
    }
    if (epochs > 0) cells.push({ workload, epochMs, epochs, costs, blockBytes })
  }
  return cells
}

async function replay(recording: Recording, technique: Technique, epochMs: number): Promise<EpochCost[]> {
  using ram = recording.copy()
  const pair = new ReplayedPair(recording, ram, technique, epochMs)
  try {
    await pair.seed()
    await play(recording, ram, pair.writes, epochMs, pair)
    pair.finish()
    return pair.costs
  } finally {
    pair.close()
  }
}

function sum(costs: readonly EpochCost[]): EpochCost {
  const total = nothing()
  for (const cost of costs)
    for (const key of Object.keys(total) as (keyof EpochCost)[]) total[key] += cost[key]
  return total
}
