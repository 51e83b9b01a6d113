/** A trace on the terminal: the figures that matter, percentiles with bars, and where to see more. */
import { pageBytes } from 'subpage/memory/page'
import { formatValue } from 'subpage/report/scale'
import { formatBytes } from 'subpage/units'
import {
  bold,
  dim,
  percentileBars,
  sparkline,
  type Terminal,
  textBar,
  textTable,
} from '../report/terminal.ts'
import type { TraceSummary } from './summary.ts'
import { amplification } from './summary.ts'
import { amplifications } from './trace-charts.ts'
import { leadWords, lengthsTable, traceReport } from './trace-report.ts'

export function traceText(summary: TraceSummary, terminal: Terminal): string {
  const { title, sections, facts } = traceReport(summary)
  const table = (name: string) => sections.flatMap(({ tables = [] }) => tables).find((t) => t.name === name)!
  const wide = Math.min(100, terminal.columns)
  const heading = (words: string, note = '') =>
    `\n${bold(words, terminal)}${note && dim(`  ${note}`, terminal)}`
  const parts = [
    bold(title, terminal),
    wrap(leadWords(summary), wide),
    '',
    ...facts.map(
      ({ name, value, meaning }) => `${name.padEnd(24)}${value.padEnd(12)}${dim(meaning ?? '', terminal)}`,
    ),
  ]
  if (summary.totals.dirtyPages === 0) return parts.join('\n')
  const ratio = (value: number) => formatValue(value, 'ratio')
  parts.push(
    heading('Amplification of an epoch', 'percentiles'),
    percentileBars(amplifications(summary), ratio, terminal),
    heading('Dirty pages of an epoch', 'percentiles'),
    percentileBars(
      summary.epochs.map(({ dirtyPages }) => dirtyPages * pageBytes),
      formatBytes,
      terminal,
    ),
    heading('Changed lines of a dirty page', 'of 64; share of pages'),
    linesOfPages(summary.pagesByLines, terminal),
    heading('Over time', 'dirty pages, then amplification'),
    sparkline(
      summary.epochs.map(({ dirtyPages }) => dirtyPages),
      wide,
    ),
    sparkline(summary.epochs.map(amplification), wide),
    heading('What would be sent', table('codecs').title),
    textTable(table('codecs'), terminal),
    heading('Other epoch lengths', lengthsTable(summary).title),
    textTable(lengthsTable(summary), terminal),
    heading('Where', 'the busiest areas'),
    textTable(table('areas'), terminal),
  )
  if (Object.keys(summary.counters).length > 0)
    parts.push(heading('Counted by the tracker'), textTable(table('counters'), terminal))
  return parts.join('\n')
}

const groups: readonly (readonly [from: number, to: number])[] = [
  [0, 0],
  [1, 1],
  [2, 2],
  [3, 4],
  [5, 8],
  [9, 16],
  [17, 32],
  [33, 63],
  [64, 64],
]

function linesOfPages(pagesByLines: readonly number[], terminal: Terminal): string {
  const all = pagesByLines.reduce((a, b) => a + b, 0)
  const cells = Math.max(10, Math.min(60, terminal.columns - 20))
  return groups
    .map(([from, to]) => {
      const share = pagesByLines.slice(from, to + 1).reduce((a, b) => a + b, 0) / all
      const name = from === to ? String(from) : `${from}–${to}`
      return `${name.padStart(6)}  ${formatValue(share, 'share').padStart(7)} |${textBar(share, cells).padEnd(cells)}|`
    })
    .join('\n')
}

/** Breaks at spaces. */
function wrap(words: string, columns: number): string {
  const lines: string[] = ['']
  for (const word of words.split(' ')) {
    const line = lines.at(-1)!
    if (line.length > 0 && line.length + 1 + word.length > columns) lines.push(word)
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`
  }
  return lines.join('\n')
}
