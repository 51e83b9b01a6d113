/** CSV (RFC 4180), and the files of a report: one per chart and table. Numbers are raw, in the units that the heading names. */
import { chartRows } from './chart.ts'
import type { Report } from './page.ts'

export function csv(rows: readonly (readonly (string | number)[])[]): string {
  return rows.map((row) => `${row.map(field).join(',')}\r\n`).join('')
}

function field(value: string | number): string {
  if (typeof value === 'number') return Number.isFinite(value) ? String(value) : ''
  // A spreadsheet would take such text for a formula; names come from recordings.
  const plain = /^[=+\-@\t\r]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : value
  return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain
}

/** @returns by file name, `NAME.csv` */
export function csvFiles(report: Report): Map<string, string> {
  const files = new Map<string, string>()
  for (const { charts = [], tables = [] } of report.sections) {
    for (const chart of charts) files.set(`${chart.name}.csv`, csv(chartRows(chart)))
    for (const table of tables) files.set(`${table.name}.csv`, csv([table.heading, ...table.rows]))
  }
  return files
}
