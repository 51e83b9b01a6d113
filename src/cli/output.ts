/**
 * Where a command prints: data to standard output, everything else to standard error; tables for people, JSON for programs.
 *
 * A reader of standard output that has gone ends the command, as `head` does, and one that can be interrupted ends as if
 * it had been. A full disk behind standard output is an error. Nobody need read standard error.
 */
import { errorCode, exitStatus, SubpageError } from '../errors.ts'
import { columnsOf, layTable, wrapText } from '../text-layout.ts'

export interface Output {
  json: boolean
  /** Data: text for people, or, with --json, `value`. */
  data(value: unknown, text: () => string): void
  /** As data, of text that another program reads: it is not broken into lines for a terminal. */
  verbatim(value: unknown, text: string): void
  /** A remark for people, on standard error; programs get none. */
  note(text: string): void
  /**
   * How far work is, for people: on a terminal in one line that is drawn anew, which any other text, or undefined, takes away.
   * @returns false where there is no terminal: nothing was written
   */
  drawn(text: string | undefined): boolean
  /** Something that may be wrong, for people and for programs. */
  warn(text: string): void
}

/** What happens when nobody takes what is printed; without it the process ends. */
let whenLost: (() => void) | undefined

/** Until `forget` is called, `react` sees to it that the command ends. */
export function onOutputLost(react: () => void): { forget: () => void } {
  whenLost = react
  return {
    forget: () => {
      whenLost = undefined
    },
  }
}

/** Before anything is printed. */
export function guardOutput(): void {
  let lost = false
  process.stdout.on('error', (cause) => {
    if (lost) return
    lost = true
    const gone = errorCode(cause) === 'EPIPE'
    if (!gone) report(cause)
    if (!whenLost) return process.exit(gone ? exitStatus.ok : exitStatus.failed)
    // Whatever the command makes of it.
    process.once('exit', () => {
      process.exitCode = gone ? exitStatus.ok : exitStatus.failed
    })
    whenLost()
  })
  // There is nobody left to tell; what the command does is not for standard error.
  process.stderr.on('error', () => undefined)
}

function report(cause: Error): void {
  const full = ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(errorCode(cause) ?? '')
  printError(
    new SubpageError(
      full ? 'NO_SPACE' : 'OUTPUT_FAILED',
      `standard output cannot be written: ${cause.message}`,
      { cause },
    ),
    process.argv.includes('--json'),
  )
}

/** Where text goes. */
export interface Sink {
  write(text: string): unknown
  isTTY?: boolean
  columns?: number
}

export interface Sinks {
  out: Sink
  err: Sink
}

export function printError(error: SubpageError, json: boolean, err: Sink = process.stderr): void {
  err.write(
    json
      ? `${JSON.stringify({ code: error.code, message: error.message })}\n`
      : `${wrapped(`subpage: ${error.message} (${error.code})`, err)}\n`,
  )
}

const wrapped = (text: string, stream: Sink) => wrapText(text, columnsOf(stream))

export function createOutput(json: boolean, { out, err }: Sinks): Output {
  const terminal = !json && err.isTTY === true
  let isDrawn = false
  const clear = () => {
    if (isDrawn) err.write('\r\x1b[K')
    isDrawn = false
  }
  return {
    json,
    drawn: (text) => {
      if (!terminal) return false
      clear()
      if (text !== undefined) err.write(text.slice(0, columnsOf(err) - 1))
      isDrawn = text !== undefined
      return true
    },
    data: (value, text) => {
      clear()
      out.write(json ? `${JSON.stringify(value)}\n` : `${wrapped(text().replace(/\n$/, ''), out)}\n`)
    },
    verbatim: (value, text) => void out.write(json ? `${JSON.stringify(value)}\n` : `${text.trimEnd()}\n`),
    note: (text) => {
      clear()
      if (!json) err.write(`${wrapped(text, err)}\n`)
    },
    warn: (text) => {
      clear()
      err.write(json ? `${JSON.stringify({ warning: text })}\n` : `${wrapped(`subpage: ${text}`, err)}\n`)
    },
  }
}

/** Columns as wide as their widest cell and the terminal allow; the first row is the heading, which may be empty. */
export function table(rows: string[][], columns = columnsOf(process.stdout)): string {
  const { head, body } = layTable(rows, columns)
  return [...head, ...body].join('\n')
}

/** Without a heading: names, and what there is to say of them. */
export function pairs(rows: string[][], columns = columnsOf(process.stdout)): string {
  return layTable([['', ''], ...rows], columns).body.join('\n')
}
