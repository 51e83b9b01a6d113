/** A disk that is mirrored: how far that is, and what bringing its copy up has cost. */
import { lchownSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import type { DiskEndpoint } from '../disk/endpoint.ts'
import { openUnnamed } from '../disk/spill-file.ts'
import { SubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import type { Disk } from './disk.ts'

export interface Mirror {
  disk: Disk
  index: number
  endpoint: DiskEndpoint
  state: 'copying' | 'copied' | 'filling' | 'tapped' | 'lost'
  /** What may differ of the copy, beside what our map has marked; undefined: anything. */
  changed: Uint8Array | undefined
  /** What was there before: read, and to be read. */
  readBytes: number
  feedBytes: number
  /** Of that, and what the guest wrote meanwhile: what had to be sent. */
  sentBytes: number
}

/** How a copy was brought up to its disk. */
export interface DiskSync {
  by: 'map' | 'hashes'
  readBytes: number
  sentBytes: number
}

/** What all journals may hold comes on top of what was sent early of an epoch (disk-sender.ts), and the standby holds no more than it says. */
const journalsBytesMax = (limits.checkpointDiskBytes.value * 3) / 8

/** Of one disk, in memory, for what a guest writes faster than it is sent. */
export const journalBytesOf = (disks: number): number =>
  Math.min(64 * 2 ** 20, Math.floor(journalsBytesMax / 2 / disks))
/** Of one disk, in a file, for what has no room there, once the disk is tapped; then the guest waits. */
export const journalFileBytesOf = (disks: number): number =>
  Math.floor(journalsBytesMax / disks) - journalBytesOf(disks)
/** Of what was there before. */
export const fedOf = (mirror: Mirror): number =>
  // While it is copied what the guest writes meanwhile counts as well.
  mirror.state === 'copying' || mirror.state === 'copied'
    ? mirror.endpoint.stats.writtenBytes
    : mirror.readBytes
export const sentOf = ({ endpoint }: Mirror): number =>
  endpoint.stats.writtenBytes - endpoint.stats.equalBytes
const syncOf = ({ changed, readBytes, sentBytes }: Mirror): DiskSync => ({
  ...{ by: changed ? 'map' : 'hashes', readBytes, sentBytes },
})

interface Spilling {
  /** Nobody wants it any more. */
  over: () => boolean
  /** A file could not be written or read: what was recorded is not whole. */
  broke: (mirror: Mirror, why: string) => void
}

/**
 * What has no room in the memory of a journal goes into a file from now on; before, it made the copying wait.
 * @throws SubpageError DISK_FAILED
 */
export async function letSpill(
  mirrors: readonly Mirror[],
  directory: string,
  { over, broke }: Spilling,
): Promise<void> {
  for (const mirror of mirrors) {
    const file = await openUnnamed(directory).catch((cause) => {
      throw notSpilled(directory, cause)
    })
    const bytesMax = journalFileBytesOf(mirrors.length)
    if (!over())
      mirror.endpoint.spillTo(file, bytesMax, (cause) => broke(mirror, notSpilled(directory, cause).message))
    await file.close()
  }
}

export const notSpilled = (directory: string, cause: Error): SubpageError =>
  new SubpageError(
    'DISK_FAILED',
    `its journal, which has no room in memory, cannot be put into a file in ${directory}: ${cause.message}`,
    { cause },
  )

/** For status. */
export function seenOf(mirror: Mirror) {
  const { currentBytes, sealedBytes, spilledBytes, spilledTotalBytes, ...stats } = mirror.endpoint.stats
  const { writes, writtenBytes, equalBytes, zeroBytes } = stats
  const behindBytes = currentBytes + sealedBytes
  const state = mirror.state === 'tapped' ? ('Protected' as const) : ('Seeding' as const)
  return {
    ...{ state, behindBytes, writes, writtenBytes, equalBytes, zeroBytes },
    journal: {
      memoryBytes: behindBytes - spilledBytes,
      fileBytes: spilledBytes,
      spilledBytes: spilledTotalBytes,
    },
    seeded: mirror.state === 'tapped' ? syncOf(mirror) : null,
  }
}

/** QEMU may run as another user, whose directory the socket is in then. */
export function letOwnerConnect(path: string): void {
  const { uid, gid } = statSync(dirname(path))
  if (uid !== process.getuid?.()) lchownSync(path, uid, gid)
}
