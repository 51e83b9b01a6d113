/**
 * Reports on a terminal: tables, percentiles with bars, sparklines. Width and colour are given, so that the same input is the
 * same text; `terminalOf` asks the stream (and NO_COLOR, https://no-color.org).
 */

import { checkTable, type Table } from 'subpage/report/page'
import { cellsOf, layTable, padEnd, padStart } from 'subpage/text-layout'
import { ascending, percentile } from './statistics.ts'

export interface Terminal {
  columns: number
  color: boolean
}

/** Where the text goes to a file or a pipe, nothing says how wide it may be. */
export function terminalOf(
  stream: { isTTY?: boolean; columns?: number },
  environment: NodeJS.ProcessEnv,
): Terminal {
  const noColor = environment.NO_COLOR !== undefined && environment.NO_COLOR !== ''
  const columns = Number(environment.COLUMNS) || stream.columns || 80
  return {
    columns: Math.max(40, columns),
    color: stream.isTTY === true && !noColor && environment.TERM !== 'dumb',
  }
}

export const plainTerminal: Terminal = { columns: 80, color: false }

const paint = (code: number) => (content: string, terminal: Terminal) =>
  terminal.color ? `\x1b[${code}m${content}\x1b[0m` : content
export const bold = paint(1)
export const dim = paint(2)
const blue = paint(34)

/** Columns as wide as their widest cell and the terminal allow, numbers to the right. */
export function textTable(table: Pick<Table, 'heading' | 'rows' | 'numbers'>, terminal: Terminal): string {
  checkTable(table)
  const { head, body } = layTable([table.heading, ...table.rows], terminal.columns, table.numbers)
  return [...head.map((line) => bold(line, terminal)), ...body].join('\n')
}

const eighths = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉']

/** A bar of up to `cells` places, to an eighth of one. */
export function textBar(share: number, cells: number): string {
  const parts = Math.round(Math.min(1, Math.max(0, share)) * cells * 8)
  return '█'.repeat(parts >> 3) + eighths[parts & 7]
}

const shownPercentiles = [0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1] as const

/**
 * Percentiles with bars, as users of damo know them:
 * ```
 *  50 %      1.2 MiB |███████▌            |
 * ```
 */
export function percentileBars(
  values: Iterable<number>,
  format: (value: number) => string,
  terminal: Terminal,
  shares: readonly number[] = shownPercentiles,
): string {
  const sorted = ascending(values)
  if (sorted.length === 0) return '  (nothing)'
  const found = shares.map((share) => percentile(sorted, share))
  const labels = found.map(format)
  const labelCells = Math.max(8, ...labels.map(cellsOf))
  const cells = Math.max(4, Math.min(60, terminal.columns - labelCells - 13))
  const largest = Math.max(...found.map(Math.abs))
  return shares
    .map((share, i) => {
      const bar = padEnd(largest === 0 ? '' : textBar(found[i]! / largest, cells), cells)
      const name = `${padStart(String(Math.round(share * 1000) / 10), 5)} %`
      return `${name}  ${padStart(labels[i]!, labelCells)} |${blue(bar, terminal)}|`
    })
    .join('\n')
}

const heights = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']

/** Values over time in one line: each sign the largest of its stretch; a gap is a space. */
export function sparkline(values: readonly number[], cells: number): string {
  if (values.length === 0) return ''
  const count = Math.min(cells, values.length)
  const peaks = Array.from({ length: count }, (_, i) => {
    const part = values
      .slice(Math.floor((i * values.length) / count), Math.floor(((i + 1) * values.length) / count))
      .filter(Number.isFinite)
    return part.length === 0 ? Number.NaN : Math.max(...part)
  })
  const largest = Math.max(...peaks.filter(Number.isFinite))
  return peaks
    .map((peak) =>
      Number.isNaN(peak) ? ' ' : heights[largest > 0 ? Math.min(7, Math.floor((peak / largest) * 8)) : 0],
    )
    .join('')
}
