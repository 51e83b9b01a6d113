/**
 * Feeds what may differ of a disk from its copy, while the guest runs and the disk is tapped: reads it and records it in the endpoint's
 * journal. What was read may be older than what the guest has written meanwhile, and must not come behind it; the endpoint knows
 * which chunks were written to since, and those are read again.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { type DiskEndpoint, fillChunks } from '../disk/endpoint.ts'
import { type ChunkRange, chunkBytes, chunksOf } from '../disk/records.ts'

export interface Filling {
  endpoint: DiskEndpoint
  /** Room of its journal. */
  journalBytesMax: number
  read: (range: ChunkRange) => Promise<Uint8Array>
  /** Nobody wants it any more. */
  over: () => boolean
  /** The guest stands still meanwhile. */
  still: (work: () => Promise<void>) => Promise<void>
  /** So much was read. */
  onRead: (bytes: number) => void
}

const roomMs = 2
/** Chunks that the guest never leaves alone so long are read while it stands still. */
const roundsMax = 16

/** Runs of the chunks that either map has marked, none longer than the endpoint takes at a time. */
export function runsOf(bytes: number, one: Uint8Array, other: Uint8Array): ChunkRange[] {
  const runs: ChunkRange[] = []
  for (let chunk = 0; chunk < chunksOf(bytes); chunk++) {
    const byte = chunk >> 3
    if (((((one[byte] ?? 0) | (other[byte] ?? 0)) >> (chunk & 7)) & 1) === 0) continue
    const last = runs.at(-1)
    if (last && last.first + last.count === chunk && last.count < fillChunks) last.count++
    else runs.push({ first: chunk, count: 1 })
  }
  return runs
}

export const bytesOf = (runs: readonly ChunkRange[], bytes: number): number =>
  runs.reduce((sum, { first, count }) => sum + Math.min(count * chunkBytes, bytes - first * chunkBytes), 0)

/** Resolves when all has been recorded, or nobody wants it. @throws Error what reading failed of */
export async function fill(runs: readonly ChunkRange[], filling: Filling): Promise<void> {
  let left = runs
  for (let round = 0; left.length > 0 && !filling.over(); round++) {
    if (round < roundsMax) left = await fillOnce(left, filling)
    else
      await filling.still(async () => {
        left = await fillOnce(left, filling)
      })
  }
}

/** @returns what the guest has written to meanwhile */
async function fillOnce(runs: readonly ChunkRange[], filling: Filling): Promise<ChunkRange[]> {
  const { endpoint, over, read, onRead } = filling
  const again: ChunkRange[] = []
  for (const range of runs) {
    for (;;) {
      await room(filling)
      if (over()) return []
      endpoint.beginFill(range)
      const content = await read(range)
      if (over()) return []
      const written = endpoint.fill(range.first, content)
      if (!written) continue
      onRead(content.length)
      again.push(...written.map((first) => ({ first, count: 1 })))
      break
    }
  }
  return again
}

/** Waits until the journal takes what is read: half of it is the guest's. */
async function room({ endpoint, journalBytesMax, over }: Filling): Promise<void> {
  const most = journalBytesMax / 2 - fillChunks * chunkBytes
  for (;;) {
    const { currentBytes, sealedBytes } = endpoint.stats
    const used = currentBytes + sealedBytes
    if (used === 0 || used < most || over()) return
    await delay(roomMs)
  }
}
