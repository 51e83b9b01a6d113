/**
 * Compares the guest's memory with the standby's image, in two steps. Within a checkpoint's pause the guest is compared with
 * its shadow, as far as the shadow knows it; afterwards, before the next checkpoint, with the image over XXH3-128 of every
 * page. A difference in the first step is a write that the tracker missed, in the second a delta that went wrong on its way
 * or in the image; where the shadow does not know the page, it may be either.
 *
 * A shadow that is a full copy is hashed in the guest's place, while that runs again. Without one the pause lasts longer.
 */
import { shadowDifference } from '../delta/shadow.ts'
import { type Difference, hashBlocks, hashBytes } from '../memory/hash.ts'
import { lineBytes, pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import { checkpoint } from './checkpoint.ts'
import type { EpochReport } from './epoch-stats.ts'
import type { PrimarySession } from './primary-session.ts'
import type { Protection } from './protection.ts'

export interface MemoryVerification {
  equal: boolean
  pages: number
  epoch: number
  /** The first page that differs, in it the first line, and which copy is wrong. */
  difference?: Difference & { in: 'shadow' | 'image' }
}

export async function verify(
  protection: Protection,
  session: PrimarySession,
  epoch: number,
): Promise<{ report: EpochReport; verification: MemoryVerification }> {
  const { guest, memory, shadow } = protection
  const all = PageRanges.all(guest.ram.pages)
  // Nothing leaves before the pause in which it is compared.
  await memory.bring(all)
  let missed: Difference | undefined
  let hashes: Uint8Array | undefined
  const report = await checkpoint(protection, session, epoch, async () => {
    missed = await shadowDifference(guest.ram, shadow)
    if (!shadow.copy) hashes = await hashBlocks(guest.ram, all, pageBytes)
  })
  const difference = missed
    ? { ...missed, in: 'shadow' as const }
    : await compareWithImage(protection, all, session, hashes)
  return {
    report,
    verification: {
      equal: difference === undefined,
      pages: all.pageCount,
      epoch,
      ...(difference && { difference }),
    },
  }
}

async function compareWithImage(
  { guest: { ram }, memory, shadow: { copy } }: Protection,
  all: PageRanges,
  session: PrimarySession,
  hashes?: Uint8Array,
) {
  const [ours, theirs] = await Promise.all([
    hashes ?? hashBlocks(copy ?? ram, all, pageBytes),
    session.imageHashes(all.pageCount),
  ])
  const page = firstDifference(ours, theirs, hashBytes)
  if (page === undefined) return undefined
  await memory.bring(PageRanges.of([[page, 1]]))
  // Without a copy the guest may have written the page again: then the line may be a later one's.
  const now = (copy ?? ram).read(page * pageBytes, pageBytes)
  const line = firstDifference(now, await session.imagePage(page), lineBytes)
  return { page, line: line ?? 0, in: 'image' as const }
}

/** Index of the first unit of `bytes` in which a and b differ. */
function firstDifference(a: Uint8Array, b: Uint8Array, bytes: number): number | undefined {
  for (let at = 0; at < a.length; at += bytes)
    if (Buffer.compare(a.subarray(at, at + bytes), b.subarray(at, at + bytes)) !== 0) return at / bytes
  return undefined
}
