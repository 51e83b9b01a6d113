/**
 * The delta engine: every codec on every CPU path, over synthetic patterns and recorded epochs of real guests, against
 * memcpy and against the XBZRLE pipe (bench/delta-measure.ts says how; facts in docs/performance.md).
 */
import { cpus } from 'node:os'
import type { BenchOptions, BenchResult } from './bench.ts'
import { type Measurement, measure, type Order, type Row } from './delta-measure.ts'
import { makePairs, type PagePairs, patternNames } from './delta-patterns.ts'
import { recordedPairs } from './recorded-epochs.ts'

const orders: readonly Order[] = ['sequential', 'scattered']

export interface DeltaBench {
  machine: { cpu: string; node: string; pages: number; trials: number }
  /** Of all deltas: equal hashes mean that two runs did the same work. */
  hash: string
  rows: Row[]
}

export async function run({ tiny }: BenchOptions): Promise<BenchResult> {
  const pages = tiny ? 64 : 8192
  const trials = tiny ? 1 : 9
  const sources: [name: string, pairs: () => PagePairs][] = [
    ...patternNames.map((name): [string, () => PagePairs] => [name, () => makePairs(name, pages)]),
    ...recordedPairs(pages),
  ]
  const measured: Measurement[] = []
  for (const [name, pairs] of sources) {
    const made = pairs()
    for (const order of orders) measured.push(measure(name, made, order, trials))
  }
  const json: DeltaBench = {
    machine: { cpu: cpus()[0]?.model ?? 'unknown', node: process.version, pages, trials },
    hash: measured.reduce((sum, one) => BigInt.asUintN(64, sum * 31n + one.hash), 0n).toString(16),
    rows: measured.flatMap((one) => one.rows),
  }
  return { json, text: table(json) }
}

function table({ machine, hash, rows }: DeltaBench): string {
  const head = `${machine.cpu}, Node ${machine.node}, ${machine.pages} pages, median of ${machine.trials}; result ${hash}`
  const columns = [
    'op',
    'codec',
    'path',
    'pattern',
    'order',
    'gbPerS',
    'vsMemcpy',
    'vsXorRlePipe',
    'nsPerPage',
    'bytesPerPage',
  ] as const
  const cells = [[...columns] as string[], ...rows.map((row) => columns.map((column) => String(row[column])))]
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => line[i]!.length)))
  return [
    head,
    ...cells.map((line) =>
      line
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    ),
  ].join('\n')
}
