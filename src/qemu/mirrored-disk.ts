/** A disk that is mirrored: how far that is, and what bringing its copy up has cost. */
import { lchownSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import type { DiskEndpoint } from '../disk/endpoint.ts'
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

/**
 * Of one disk, for what a guest writes faster than it is sent; then it waits. All of them together come on top of what was sent early of an
 * epoch (disk-sender.ts), and the standby holds no more than it says.
 */
export const journalBytesOf = (disks: number): number =>
  Math.min(64 * 2 ** 20, Math.floor((limits.checkpointDiskBytes.value * 3) / 8 / disks))
/** Of what was there before. */
export const fedOf = (mirror: Mirror): number =>
  // While it is copied what the guest writes meanwhile counts as well.
  mirror.state === 'copying' || mirror.state === 'copied'
    ? mirror.endpoint.stats.writtenBytes
    : mirror.readBytes
export const sentOf = ({ endpoint }: Mirror): number =>
  endpoint.stats.writtenBytes - endpoint.stats.equalBytes
export const syncOf = ({ changed, readBytes, sentBytes }: Mirror): DiskSync => ({
  ...{ by: changed ? 'map' : 'hashes', readBytes, sentBytes },
})

/** QEMU may run as another user, whose directory the socket is in then. */
export function letOwnerConnect(path: string): void {
  const { uid, gid } = statSync(dirname(path))
  if (uid !== process.getuid?.()) lchownSync(path, uid, gid)
}
