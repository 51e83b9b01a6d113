/** The name of a guest on the command line: NAME, or vm:NAME as targets are written. */
import { SubpageError } from '../errors.ts'

/** @throws SubpageError BAD_ARGUMENT */
export function guestName(given: string): string {
  const name = given.replace(/^vm:/, '')
  if (name === '') throw new SubpageError('BAD_ARGUMENT', `${given} names no guest: write vm:NAME or NAME`)
  return name
}
