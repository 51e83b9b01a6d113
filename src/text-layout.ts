/**
 * Text within the width of a terminal: it is broken between words only, and columns stay columns. A word that is wider than
 * the terminal, such as a path, stays whole.
 */

const gap = '  '
/** Values such as "106 KiB" stay on one line. */
const valueCells = 14
// biome-ignore lint/suspicious/noControlCharactersInRegex: what sets colours takes no place
const colours = /\x1b\[[\d;]*m/g
const wide =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\u{1f300}-\u{1faff}]/u

/** Places on the terminal: East Asian wide signs take two. */
export function cellsOf(content: string): number {
  let cells = 0
  for (const sign of content.replace(colours, ''))
    cells += /\p{Mark}/u.test(sign) ? 0 : wide.test(sign) ? 2 : 1
  return cells
}

export const padStart = (content: string, cells: number): string =>
  ' '.repeat(Math.max(0, cells - cellsOf(content))) + content
export const padEnd = (content: string, cells: number): string =>
  content + ' '.repeat(Math.max(0, cells - cellsOf(content)))

/** Columns of a stream; without bound where it is no terminal and COLUMNS says nothing: whoever reads it may want lines. */
export function columnsOf(
  stream: { isTTY?: boolean; columns?: number },
  environment: NodeJS.ProcessEnv = process.env,
): number {
  const columns = Number(environment.COLUMNS) || (stream.isTTY === true ? (stream.columns ?? 80) : 0)
  return columns > 0 ? Math.max(40, columns) : Number.POSITIVE_INFINITY
}

/** Lines that are too long go on below their own beginning; a command line goes on as a shell takes it. */
export function wrapText(text: string, columns: number): string {
  if (columns === Number.POSITIVE_INFINITY) return text
  return text
    .split('\n')
    .flatMap((line) => (cellsOf(line) > columns ? wrapLine(line, columns) : [line]))
    .join('\n')
}

function wrapLine(line: string, columns: number): string[] {
  const [indent] = /^ *([•→✓✗!] +)?/.exec(line.replace(colours, ''))!
  const isCommand = /^ +subpage /.test(line)
  const hanging = ' '.repeat(indent.length + (isCommand ? 2 : 0))
  const end = isCommand ? ' \\' : ''
  const lines = fill(line, columns - end.length, hanging)
  return lines.map((part, i) => (i < lines.length - 1 ? part + end : part))
}

/** @param hanging before each line but the first */
export function fill(text: string, columns: number, hanging = ''): string[] {
  const lines: string[] = []
  let line = ''
  let holdsWord = false
  for (const part of text.split(/( +)/)) {
    const isSpace = /^ *$/.test(part)
    if (!isSpace && holdsWord && cellsOf(line) + cellsOf(part) > columns) {
      lines.push(line.trimEnd())
      line = hanging
      holdsWord = false
    }
    // What stood between two words that are on two lines now.
    if (isSpace && !holdsWord && lines.length > 0) continue
    line += part
    holdsWord ||= !isSpace
  }
  return [...lines, line.trimEnd()]
}

export interface LaidTable {
  head: string[]
  body: string[]
}

/**
 * Columns as wide as their widest cell. If that is too wide, headings and long texts are broken into lines; if that does not do
 * either, each row becomes a block with a line for each cell.
 * @param rows the first is the heading; all have as many cells
 * @param numbers columns that align to the right
 */
export function layTable(
  rows: readonly (readonly string[])[],
  columns: number,
  numbers: readonly number[] = [],
): LaidTable {
  const [heading = [], ...body] = rows
  const widths = widthsWithin(heading, body, columns)
  if (!widths) return { head: [], body: blocks(heading, body, columns) }
  const lay = (row: readonly string[]) => {
    const cells = widths.map((width, i) =>
      cellsOf(row[i] ?? '') > width ? fill(row[i] ?? '', width) : [row[i] ?? ''],
    )
    return Array.from({ length: Math.max(...cells.map(({ length }) => length)) }, (_, line) =>
      widths
        .map((width, i) => (numbers.includes(i) ? padStart : padEnd)(cells[i]![line] ?? '', width))
        .join(gap)
        .trimEnd(),
    )
  }
  return { head: lay(heading), body: body.flatMap(lay) }
}

/** Undefined when not even broken cells fit. */
function widthsWithin(
  heading: readonly string[],
  body: readonly (readonly string[])[],
  columns: number,
): number[] | undefined {
  const widest = (cells: readonly string[]) => Math.max(0, ...cells.map(cellsOf))
  const words = (cell: string) => cell.split(' ')
  const natural = heading.map((cell, i) => widest([cell, ...body.map((row) => row[i] ?? '')]))
  const room = columns - gap.length * (heading.length - 1)
  const total = (widths: number[]) => widths.reduce((sum, width) => sum + width, 0)
  if (total(natural) <= room) return natural
  const least = heading.map((cell, i) =>
    widest([
      ...words(cell),
      ...body.flatMap((row) => (cellsOf(row[i] ?? '') <= valueCells ? [row[i] ?? ''] : words(row[i] ?? ''))),
    ]),
  )
  // One column of text may be wider than the terminal by a word.
  if (total(least) > room && heading.length > 2) return undefined
  const widths = [...least]
  // Those that need the least get it first.
  const byNeed = heading.map((_, i) => i).sort((a, b) => natural[a]! - least[a]! - (natural[b]! - least[b]!))
  let left = Math.max(0, room - total(least))
  for (const i of byNeed) {
    const more = Math.min(left, natural[i]! - least[i]!)
    widths[i]! += more
    left -= more
  }
  return widths
}

function blocks(heading: readonly string[], body: readonly (readonly string[])[], columns: number): string[] {
  return body.flatMap((row, at) => {
    const pairs = heading.flatMap((name, i) => ((row[i] ?? '') === '' ? [] : [[name, row[i]!]]))
    const lines = layTable([['', ''], ...pairs], columns).body
    return at === 0 ? lines : ['', ...lines]
  })
}
