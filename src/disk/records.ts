/**
 * Records of writes to a disk, as they travel, and what the standby does with them (native/disk/records.h). A sequence of
 *
 *   offset u64, length u32, kind u32, data         all little endian
 *
 * Kind 0: `length` bytes of data follow; kind 1: the range is set to zero, and nothing follows. Records are absolute content: to
 * apply them in order to what the disk was before them, once or again, gives what it was after them.
 */
import { constants } from 'node:os'
import { SubpageError } from '../errors.ts'
import { hashBytes } from '../memory/hash.ts'
import { addon } from '../memory/native.ts'

/** A disk is compared in chunks of so many bytes; the last one may be shorter. */
export const chunkBytes = 65_536
export const recordHeaderBytes = 16
export const recordKind = { data: 0, zeroes: 1 } as const

/** So much is hashed in one turn of the thread pool, which others use too. */
const sliceChunks = 1024

const results = new Float64Array(1)

/**
 * Checks every record from byte `from` on and writes nothing. Returns how many there are.
 * @throws SubpageError FRAME_MALFORMED
 */
export function checkDisk(payload: Uint8Array, from: number, diskBytes: number): number {
  const problem = addon.checkDisk(payload, from, diskBytes, results)
  if (problem !== undefined)
    throw new SubpageError(
      'FRAME_MALFORMED',
      `writes to a disk of ${diskBytes} bytes are refused: ${problem}`,
    )
  return results[0]!
}

/**
 * Writes records that were checked into the file, in order, in the thread pool; `payload` must not change until it has finished.
 * @throws Error whose `code` is the name of the errno
 */
export async function applyDisk(fd: number, payload: Uint8Array, from: number): Promise<void> {
  check(await addon.applyDisk(fd, payload, from), 'write to the disk')
}

/** What was written is on the medium. @throws Error whose `code` is the name of the errno */
export async function syncDisk(fd: number): Promise<void> {
  check(await addon.syncDisk(fd), 'sync the disk')
}

/**
 * What was written begins to go to the medium, in the thread pool; `syncDisk` has less to wait for then, and is what tells of errors.
 * Waits itself when the medium has no room in its queue.
 * @throws Error whose `code` is the name of the errno, such as ESPIPE where the file is none that can
 */
export async function writeBackDisk(fd: number): Promise<void> {
  check(await addon.writeBackDisk(fd), 'write the disk back')
}

/** XXH3-128 of each chunk of what was read, from a chunk's beginning on. */
export function hashChunks(bytes: Uint8Array): Uint8Array {
  const out = new Uint8Array(Math.ceil(bytes.length / chunkBytes) * hashBytes)
  addon.hashChunks(bytes, out)
  return out
}

/** Some chunks of a disk. */
export interface ChunkRange {
  first: number
  count: number
}

export const chunksOf = (bytes: number): number => Math.ceil(bytes / chunkBytes)

/**
 * XXH3-128 of each chunk in the range, 16 bytes as `hashBlocks` gives them. Holes are not read.
 * @throws Error whose `code` is the name of the errno; ENODATA: the file is shorter than the disk
 */
export async function hashDisk(
  fd: number,
  diskBytes: number,
  { first, count }: ChunkRange = { first: 0, count: chunksOf(diskBytes) },
): Promise<Uint8Array> {
  const hashes = new Uint8Array(count * hashBytes)
  for (let done = 0; done < count; done += sliceChunks) {
    const some = Math.min(sliceChunks, count - done)
    const out = hashes.subarray(done * hashBytes, (done + some) * hashBytes)
    check(await addon.hashDisk(fd, diskBytes, first + done, some, out), 'read the disk')
  }
  return hashes
}

function check(errno: number, what: string): void {
  if (errno === 0) return
  const code = Object.entries(constants.errno).find(([, number]) => number === errno)?.[0] ?? String(errno)
  throw Object.assign(new Error(`cannot ${what}: ${code}`), { code, errno })
}
