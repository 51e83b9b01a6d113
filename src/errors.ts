/** The one class of error, and what is done with what was thrown. The table of errors: error-table.ts. */
import { errorTable, exitStatus } from './error-table.ts'

export { errorTable, exitStatus }

export type ErrorCode = keyof typeof errorTable

/** Every failure that subpage foresees. `code` is for programs, `message` for people, `cause` for whoever debugs. */
export class SubpageError extends Error {
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(printable(message), options)
    this.name = 'SubpageError'
    this.code = code
  }

  get exit(): number {
    return errorTable[this.code].exit
  }

  get http(): number {
    return errorTable[this.code].http
  }
}

/** Why something is as it is: for programs, and for people. An error says as much. */
export interface Reason {
  code: ErrorCode
  message: string
}

/**
 * Text that may come from elsewhere, a peer or a guest's QEMU, without what would command a terminal. Line feeds and tabs
 * stay.
 */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g, '\ufffd')
}

/** Turns whatever was thrown into a SubpageError; what was not foreseen is INTERNAL and keeps its cause. */
export function asSubpageError(thrown: unknown): SubpageError {
  if (thrown instanceof SubpageError) return thrown
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  return new SubpageError('INTERNAL', message, { cause: thrown })
}

/** A defect: what the process goes by is not so. */
export class BrokenInvariant extends SubpageError {
  constructor(what: string) {
    super('INTERNAL', `invariant broken: ${what}`)
  }
}

/** Asserts an invariant and stays on in production: in a pair, crashing is better than lying. */
export function invariant(holds: unknown, what: string): asserts holds {
  if (!holds) throw new BrokenInvariant(what)
}

/** Nobody handles a broken invariant: it ends this process. */
export function endProcess(broken: BrokenInvariant): void {
  queueMicrotask(() => {
    throw broken
  })
}

/** The errno name of a system error (`ENOENT`), or undefined for anything else. */
export function errorCode(thrown: unknown): string | undefined {
  return thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string'
    ? thrown.code
    : undefined
}
