/** The files in which subpage keeps disks: made before a guest needs them, sparse, of mode 0600, and never another's. */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  rmdirSync,
  rmSync,
  statfsSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { errorCode, SubpageError } from '../errors.ts'
import type { Disk } from './disk.ts'
import { wantOfRoom } from './room.ts'

const blockBytes = 512

/**
 * Makes those of subpage's that are not there; it made the others, for this same guest.
 * @returns the paths that were made
 * @throws SubpageError NO_SPACE, DISK_UNUSABLE; nothing is left behind then
 */
export function makeDisks(disks: Disk[]): string[] {
  const made: string[] = []
  try {
    for (const disk of disks) if (disk.made && makeDisk(disk)) made.push(disk.path)
    return made
  } catch (error) {
    removeDisks(made)
    const cause = wantOfRoom('the disks of the guest', error)
    if (cause instanceof SubpageError) throw cause
    const { message } = cause as Error
    throw new SubpageError('DISK_UNUSABLE', `the disks of the guest cannot be made: ${message}`, { cause })
  }
}

/** One that is there and smaller grows: the disk that it is a copy of has. @returns whether it was not there */
function makeDisk({ path, bytes }: Disk): boolean {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  let file: number | undefined
  let fresh = true
  try {
    file = openSync(
      path,
      constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      0o600,
    )
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw error
    fresh = false
    file = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW)
  }
  try {
    const stats = fstatSync(file)
    if (!stats.isFile() || (!fresh && stats.size > bytes))
      throw new SubpageError(
        'DISK_UNUSABLE',
        `${path} is there and has ${stats.size} bytes, where a disk of ${bytes} bytes belongs: move it away`,
      )
    const { bavail, bsize } = statfsSync(dirname(path))
    const needed = bytes - stats.blocks * blockBytes
    if (bavail * bsize < needed)
      throw new SubpageError(
        'NO_SPACE',
        `the disk ${path} may take ${mib(needed)} MiB, and its file system has ${mib(bavail * bsize)} MiB free`,
      )
    // Not where it has its size: that would look as if somebody had written to it.
    if (stats.size < bytes) ftruncateSync(file, bytes)
    return fresh
  } catch (error) {
    if (fresh) rmSync(path, { force: true })
    throw error
  } finally {
    closeSync(file)
  }
}

export function removeDisks(paths: string[]): void {
  for (const path of paths) {
    rmSync(path, { force: true })
    try {
      rmdirSync(dirname(path))
    } catch {
      // Another disk is in it.
    }
  }
}

const mib = (bytes: number) => Math.ceil(bytes / 2 ** 20)
