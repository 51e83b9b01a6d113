/** The name of a guest on the command line: NAME, or vm:NAME as targets are written. */
import { statSync } from 'node:fs'
import { SubpageError } from '../errors.ts'

/**
 * Whether a target is meant as a guest: one may have the name of a directory that happens to be here, and where a file of its name is
 * here, vm:NAME says which is meant.
 */
export function isGuest(target: string): boolean {
  if (target.startsWith('vm:')) return true
  return !target.includes('/') && (statSync(target, { throwIfNoEntry: false })?.isDirectory() ?? true)
}

/** @throws SubpageError BAD_ARGUMENT */
export function guestName(given: string): string {
  const name = given.replace(/^vm:/, '')
  if (name === '') throw new SubpageError('BAD_ARGUMENT', `${given} names no guest: write vm:NAME or NAME`)
  return name
}
