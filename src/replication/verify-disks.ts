/**
 * Compares the guest's disks with the standby's copies, by XXH3-128 of each 64 KiB, while the guest runs. What it writes meanwhile
 * may differ for a moment, so what differs is looked at again; what differs still, again and again, is compared within the pause
 * of a checkpoint, a little in each: only there is a difference a fault. What was equal once is right: neither copy comes about
 * but by what the guest has written.
 */
import { type ChunkRange, chunkBytes, chunksOf } from '../disk/records.ts'
import { hashBytes } from '../memory/hash.ts'
import { checkpoint } from './checkpoint.ts'
import type { DiskReader } from './disks.ts'
import type { EpochReport } from './epoch-stats.ts'
import type { PrimarySession } from './primary-session.ts'
import type { Protection } from './protection.ts'

export interface DiskVerification {
  /** Index of the disk. */
  disk: number
  bytes: number
  /** First byte of the first chunk that differs. */
  difference?: number
  /** Why it was not compared. */
  missing?: string
}

/** Compared at a time; the standby does nothing else meanwhile. */
const windowChunks = 64
/** A chunk that differs is looked at so often while the guest runs. */
const looksMax = 3
/** Of a pause: some 0.5 ms of reading. */
const pausedChunks = 4
/** By then a write that was on its way has been committed. */
const againMs = 200

export interface DiskVerifying {
  protection: Protection
  session: () => PrimarySession
  /** Ends it, between two comparisons. */
  signal: AbortSignal
  /** So much of what a look begins with has been compared for the first time. */
  compared: (bytes: number) => void
  /** Runs in place of the next checkpoint. */
  inPause: (run: (session: PrimarySession, epoch: number) => Promise<EpochReport>) => Promise<void>
}

/** @throws SubpageError DISK_FAILED, PEER_UNREACHABLE, NOT_PROTECTED */
export async function verifyDisks(verifying: DiskVerifying): Promise<DiskVerification[]> {
  const { disks } = verifying.protection.guest
  if (disks.sizes.length === 0) return []
  await using reader = await disks.open()
  const verified: DiskVerification[] = []
  for (const [disk, bytes] of disks.sizes.entries()) {
    const missing = reader.missing(disk)
    if (missing !== undefined) {
      verified.push({ disk, bytes, missing })
      continue
    }
    const chunk = await firstDifference(verifying, reader, disk, chunksOf(bytes))
    verified.push({ disk, bytes, ...(chunk !== undefined && { difference: chunk * chunkBytes }) })
  }
  return verified
}

async function firstDifference(
  { protection, session, inPause, signal, compared }: DiskVerifying,
  reader: DiskReader,
  disk: number,
  chunks: number,
): Promise<number | undefined> {
  let left: ChunkRange[] = []
  for (let first = 0; first < chunks; first += windowChunks)
    left.push({ first, count: Math.min(windowChunks, chunks - first) })
  for (let look = 0; look < looksMax && left.length > 0; look++) {
    if (look > 0) await protection.clock.sleep(againMs, signal)
    const different: ChunkRange[] = []
    for (const range of left) {
      signal.throwIfAborted()
      const ours = await reader.hashes(disk, range)
      different.push(...differing(range, ours, await session().diskHashes(disk, range)))
      if (look === 0) compared(range.count * chunkBytes)
    }
    left = different
  }
  const single = left.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i))
  for (let at = 0; at < single.length; at += pausedChunks) {
    signal.throwIfAborted()
    const some = single.slice(at, at + pausedChunks).map((first): ChunkRange => ({ first, count: 1 }))
    const wrong: ChunkRange[] = []
    await inPause(async (over, epoch) => {
      const ours: Uint8Array[] = []
      const report = await checkpoint(protection, over, epoch, async () => {
        for (const range of some) ours.push(await reader.hashes(disk, range))
      })
      // The standby holds this epoch, and the next one does not begin before we are done.
      for (const [index, range] of some.entries())
        wrong.push(...differing(range, ours[index]!, await over.diskHashes(disk, range)))
      return report
    })
    if (wrong[0]) return wrong[0].first
  }
  return undefined
}

/** Runs of chunks whose hashes differ. */
function differing({ first, count }: ChunkRange, ours: Uint8Array, theirs: Uint8Array): ChunkRange[] {
  const runs: ChunkRange[] = []
  for (let chunk = 0; chunk < count; chunk++) {
    const [from, to] = [chunk * hashBytes, (chunk + 1) * hashBytes]
    if (Buffer.compare(ours.subarray(from, to), theirs.subarray(from, to)) === 0) continue
    const last = runs.at(-1)
    if (last && last.first + last.count === first + chunk) last.count++
    else runs.push({ first: first + chunk, count: 1 })
  }
  return runs
}
