/**
 * Compares the guest's memory with the standby's image, in two steps that meet in the shadow. Within a checkpoint's
 * pause, guest and shadow are compared byte by byte; afterwards, before the next checkpoint, shadow and image are
 * compared over XXH3-128 of every page. A difference in the first step is a write that the tracker missed, in the
 * second a delta that went wrong on its way or in the image.
 */
import { compareRegions, hashBlocks } from '../memory/hash.ts'
import { lineBytes, pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import type { Region } from '../memory/region.ts'
import { checkpoint, type Protection } from './checkpoint.ts'
import type { EpochReport } from './epoch-stats.ts'
import type { PrimarySession } from './primary-session.ts'

export interface Verification {
  equal: boolean
  pages: number
  epoch: number
  /** The first page that differs, in it the first line, and which copy is wrong. */
  difference?: { page: number; line: number; in: 'shadow' | 'image' }
}

const hashBytes = 16

export async function verify(
  protection: Protection,
  session: PrimarySession,
  epoch: number,
): Promise<{ report: EpochReport; verification: Verification }> {
  const { guest, shadow } = protection
  const all = PageRanges.all(guest.ram.pages)
  let missed: { page: number; line: number } | undefined
  const report = await checkpoint(protection, session, epoch, async () => {
    missed = await compareRegions(guest.ram, shadow, all)
  })
  const difference = missed
    ? { ...missed, in: 'shadow' as const }
    : await compareWithImage(shadow, all, session)
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

async function compareWithImage(shadow: Region, all: PageRanges, session: PrimarySession) {
  const [ours, theirs] = await Promise.all([
    hashBlocks(shadow, all, pageBytes),
    session.imageHashes(all.pageCount),
  ])
  const page = firstDifference(ours, theirs, hashBytes)
  if (page === undefined) return undefined
  const line = firstDifference(
    shadow.read(page * pageBytes, pageBytes),
    await session.imagePage(page),
    lineBytes,
  )
  return { page, line: line ?? 0, in: 'image' as const }
}

/** Index of the first unit of `bytes` in which a and b differ. */
function firstDifference(a: Uint8Array, b: Uint8Array, bytes: number): number | undefined {
  for (let at = 0; at < a.length; at += bytes)
    if (Buffer.compare(a.subarray(at, at + bytes), b.subarray(at, at + bytes)) !== 0) return at / bytes
  return undefined
}
