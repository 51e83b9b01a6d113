/**
 * Files that a user names to be read: regular files only. To open a pipe would wait for somebody who writes to it, and what
 * comes through one cannot be read twice, from any place in it.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync, type Stats, statSync } from 'node:fs'
import { errorCode, SubpageError } from './errors.ts'

/**
 * Opens it for reading.
 * @param what it is, before its path in messages, as in "the key"
 * @throws SubpageError BAD_ARGUMENT
 */
export function openInput(path: string, what?: string): number {
  const name = what === undefined ? path : `${what} ${path}`
  let fd: number | undefined
  try {
    const found = statSync(path)
    // A socket cannot even be opened.
    if (!found.isFile()) throw notAFile(name, found)
    // It may have become a pipe meanwhile.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    if (!fstatSync(fd).isFile()) throw notAFile(name, fstatSync(fd))
    return fd
  } catch (cause) {
    if (fd !== undefined) closeSync(fd)
    const code = errorCode(cause)
    if (code === undefined || cause instanceof SubpageError) throw cause
    throw new SubpageError(
      'BAD_ARGUMENT',
      code === 'ENOENT' && what === undefined
        ? `there is no file ${path}`
        : `cannot read ${name}: ${said[code] ?? (cause as Error).message}`,
      { cause },
    )
  }
}

/** All of a small file. @throws as openInput */
export function readInput(path: string, what?: string): Buffer {
  const fd = openInput(path, what)
  try {
    return readFileSync(fd)
  } finally {
    closeSync(fd)
  }
}

const said: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file (ENOENT)',
  EACCES: 'permission denied (EACCES)',
  ENOTDIR: 'a part of its path is no folder (ENOTDIR)',
}

const notAFile = (name: string, found: Stats) =>
  new SubpageError(
    'BAD_ARGUMENT',
    `${name} is ${kindOfFile(found)}, not a file${found.isDirectory() ? '' : ': copy what it holds into one'}`,
  )

export function kindOfFile(found: Stats): string {
  if (found.isDirectory()) return 'a directory'
  if (found.isFIFO()) return 'a pipe'
  if (found.isSocket()) return 'a socket'
  return found.isFile() ? 'a file' : 'a device'
}
