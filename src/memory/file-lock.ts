/** The lock of a file, flock(2): one open file has it at a time, and the kernel takes it back however its holder ends. */
import { closeSync, openSync } from 'node:fs'
import { addon } from './native.ts'

export interface FileLock {
  /** The file, open until the lock is released. */
  readonly fd: number
  release(): void
}

/**
 * Opens a file and takes its lock, until it is released or this process ends.
 * @returns undefined while somebody else has it
 * @throws Error whose `code` is the name of the errno
 */
export function lockFile(path: string, flags: string | number = 'r', mode?: number): FileLock | undefined {
  const fd = openSync(path, flags, mode)
  let locked = false
  try {
    locked = addon.lockFile(fd)
  } finally {
    if (!locked) closeSync(fd)
  }
  return locked ? { fd, release: () => closeSync(fd) } : undefined
}
