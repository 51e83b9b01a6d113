/** Where a command prints: data to stdout, everything else to stderr; tables for people, JSON for programs. */
import { errorCode, exitStatus } from '../errors.ts'

export interface Output {
  json: boolean
  /** Data: text for people, or, with --json, `value`. */
  data(value: unknown, text: () => string): void
  /** A remark for people, on stderr. */
  note(text: string): void
}

export function createOutput(json: boolean): Output {
  // Whoever read us has heard enough, as `head` does.
  process.stdout.on('error', (error) => {
    if (errorCode(error) === 'EPIPE') process.exit(exitStatus.ok)
    throw error
  })
  return {
    json,
    data: (value, text) =>
      void process.stdout.write(json ? `${JSON.stringify(value)}\n` : `${text().replace(/\n$/, '')}\n`),
    note: (text) => void process.stderr.write(`${text}\n`),
  }
}

/** Columns as wide as their widest cell; the first row is the heading. */
export function table(rows: string[][]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => [...(row[column] ?? '')].length)),
  )
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell + ' '.repeat(Math.max(0, (widths[i] ?? 0) - [...cell].length)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
