/** The result of the study of synchronisation, for people: text and page. */

import { formatBytes } from '../../units.ts'
import type { Report } from '../report/page.ts'
import { bold, type Terminal, textTable } from '../report/terminal.ts'
import { type Headline, reduction, wasted } from './headline.ts'
import type { Cell } from './measure.ts'

export interface Result {
  set: string
  from: string
  epochLengths: readonly number[]
  cells: Cell[]
  missing: { name: string; why: string }[]
  headline: Headline
}

export function text(result: Result, terminal: Terminal): string {
  const rows = result.cells.flatMap((cell) =>
    Object.entries(cell.costs).map(([name, cost]) => [
      cell.workload,
      `${cell.epochMs} ms`,
      name,
      formatBytes(cost.totalBytes / cell.epochs),
      formatBytes(cost.finalBytes / cell.epochs),
      `${reduction(cell, name).toFixed(1)}`,
      `${reduction(cell, name, 'finalBytes').toFixed(1)}`,
      `${(100 * wasted(cost)).toFixed(1)} %`,
      (cost.finalPages / cell.epochs).toFixed(0),
      (cost.pauseUs / cell.epochs).toFixed(0),
      (cost.primaryUs / cell.epochs).toFixed(0),
      (cost.standbyUs / cell.epochs).toFixed(0),
    ]),
  )
  return [
    bold('sync', terminal),
    textTable(
      {
        heading: [
          'workload',
          'epoch',
          'technique',
          'total',
          'final',
          'x',
          'x final',
          'wasted',
          'final pages',
          'pause us',
          'prim us',
          'stby us',
        ],
        rows,
        numbers: [3, 4, 5, 6, 7, 8, 9, 10, 11],
      },
      terminal,
    ),
    JSON.stringify(result.headline),
  ].join('\n')
}

export function report(result: Result): Report {
  return { title: 'sync', lead: '', facts: [], sections: [], source: result.from }
}
