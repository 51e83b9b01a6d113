/**
 * One self-contained HTML page of a report: style and drawings are inside, nothing is fetched and nothing runs, so it can be
 * mailed, archived and opened anywhere. What it says is data (Report); the same data gives JSON, CSV and the terminal's text.
 */
import { release } from '../release.ts'
import { type Chart, chartRows } from './chart.ts'
import { element, escaped, type Markup, markup } from './markup.ts'
import { styleSheet } from './style.ts'
import { drawChart } from './svg.ts'

/** Cells are written as they are; a column is aligned right when `numbers` names its index. */
export interface Table {
  name: string
  title: string
  heading: readonly string[]
  rows: readonly (readonly string[])[]
  numbers?: readonly number[]
}

/** @throws TypeError when a row has another length than the heading */
export function checkTable({ heading, rows }: Pick<Table, 'heading' | 'rows'>): void {
  const wrong = rows.find((row) => row.length !== heading.length)
  if (wrong) throw new TypeError(`${wrong.length} cells under ${heading.length} headings: ${wrong[0]}`)
}

export interface Section {
  title: string
  /** What this part is about, for someone who has never seen it. */
  text?: string
  charts?: readonly Chart[]
  tables?: readonly Table[]
}

export interface Report {
  title: string
  /** The answer in a sentence or two. */
  lead: string
  /** The few figures that matter most. `meaning` is a short line below. */
  facts: readonly { name: string; value: string; meaning?: string }[]
  sections: readonly Section[]
  /** Where the figures come from: file, host, parameters. */
  source: string
}

const figuresMax = 200

export function htmlPage(report: Report): string {
  const headings = report.sections.map(({ title }, i) => ({ title, id: `part-${i + 1}` }))
  const body = element(
    'main',
    {},
    element('h1', {}, escaped(report.title)),
    element('p', { class: 'lead' }, escaped(report.lead)),
    element(
      'dl',
      { class: 'facts' },
      report.facts.map(({ name, value, meaning }) =>
        element(
          'div',
          {},
          element('dt', {}, escaped(name)),
          element(
            'dd',
            {},
            escaped(value),
            meaning === undefined ? markup('') : element('small', {}, escaped(meaning)),
          ),
        ),
      ),
    ),
    element(
      'nav',
      {},
      headings.map(({ title, id }) => element('a', { href: `#${id}` }, escaped(title))),
    ),
    report.sections.map((section, i) => htmlSection(section, headings[i]!.id)),
    element('footer', {}, escaped(`${report.source} · subpage ${release}`)),
  )
  const head = [
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width,initial-scale=1">',
    // Nothing of this page may be fetched or run, whatever names a recording carries.
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">`,
    element('title', {}, escaped(report.title)),
    `<style>${styleSheet}</style>`,
  ].join('\n')
  return `<!doctype html>\n<html lang="en">\n<head>\n${head}\n</head>\n<body>\n${body}\n</body>\n</html>\n`
}

function htmlSection(section: Section, id: string): Markup {
  return element(
    'section',
    { id },
    element('h2', {}, escaped(section.title)),
    section.text === undefined ? markup('') : element('p', { class: 'meaning' }, escaped(section.text)),
    (section.charts ?? []).map(htmlChart),
    (section.tables ?? []).map(htmlTable),
  )
}

function htmlChart(chart: Chart): Markup {
  return element(
    'figure',
    { id: chart.name },
    element('h3', {}, escaped(chart.title)),
    element('p', { class: 'meaning' }, escaped(chart.meaning)),
    drawChart(chart),
    figures(chart),
  )
}

/** The figures themselves, for readers who cannot see the drawing; long ones are what the CSV files are for. */
function figures(chart: Chart): Markup {
  const [heading = [], ...rows] = chartRows(chart)
  if (chart.kind === 'heat' || rows.length === 0 || rows.length > figuresMax) return markup('')
  const cells = rows.map((row) => row.map(cell))
  const numbers = heading.map((_, i) => i).filter((i) => rows.every((row) => typeof row[i] === 'number'))
  return element(
    'details',
    {},
    element('summary', {}, escaped('figures')),
    htmlGrid({ heading: heading.map(String), rows: cells, numbers }, ''),
  )
}

const cell = (value: string | number) =>
  typeof value === 'string' ? value : Number.isFinite(value) ? String(Number(value.toPrecision(6))) : '–'

const htmlTable = (table: Table) => htmlGrid(table, table.title)

function htmlGrid(table: Pick<Table, 'heading' | 'rows' | 'numbers'>, title: string): Markup {
  checkTable(table)
  const kind = (column: number) => ({ class: table.numbers?.includes(column) ? 'number' : undefined })
  return element(
    'div',
    { class: 'wide' },
    element(
      'table',
      {},
      title === '' ? markup('') : element('caption', {}, escaped(title)),
      element(
        'thead',
        {},
        element(
          'tr',
          {},
          table.heading.map((name, i) => element('th', kind(i), escaped(name))),
        ),
      ),
      element(
        'tbody',
        {},
        table.rows.map((row) =>
          element(
            'tr',
            {},
            row.map((content, i) => element('td', kind(i), escaped(content))),
          ),
        ),
      ),
    ),
  )
}
