/**
 * Seeding: brings the image up to the guest's memory while the guest runs. First every page, or, where the standby has an
 * image of this guest already, those whose hashes differ; then, as in pre-copy migration, rounds of what was written
 * meanwhile, until little enough is left for a pause. Nothing is committed yet: the first checkpoint does that.
 */
import { hashBlocks, hashBytes } from '../memory/hash.ts'
import { pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import { Region } from '../memory/region.ts'
import type { Protection } from './checkpoint.ts'
import type { PrimarySession } from './primary-session.ts'

/** Pages captured and sent at a time: bounds the memory in flight. */
const slicePages = 4096
/** Left for the first checkpoint's pause. */
const enoughPages = 4096
const roundsMax = 6

/** Seeding frames belong to no checkpoint. */
const noEpoch = 0

export async function seed(
  protection: Protection,
  session: PrimarySession,
  signal: AbortSignal,
): Promise<void> {
  const { tracker, guest } = protection
  // Armed before the first page is read: what is written afterwards shows in a later harvest.
  tracker.harvest()
  protection.unsynced = PageRanges.all(guest.ram.pages)
  if (session.welcome.image === 'held')
    protection.unsynced = await differingPages(protection, session, signal)
  // So few pages go with the first checkpoint, and the image stays one that can be taken over until then.
  if (protection.unsynced.pageCount <= enoughPages) return
  await send(protection, session, protection.unsynced, true, signal)
  protection.unsynced = PageRanges.empty
  for (let round = 0; round < roundsMax && !signal.aborted; round++) {
    const written = tracker.harvest()
    // A failure from here on begins a new session, which seeds anew.
    await send(protection, session, written, false, signal)
    if (written.pageCount <= enoughPages) return
  }
}

/** Brings the shadow up to the guest and compares what it was set to with the image. */
async function differingPages(
  { guest, shadow }: Protection,
  session: PrimarySession,
  signal: AbortSignal,
): Promise<PageRanges> {
  const { ram } = guest
  const theirs = await session.imageHashes(ram.pages)
  const different: [number, number][] = []
  // The guest runs on: only a copy stands still and can be compared.
  using still = Region.anonymous(Math.min(slicePages, ram.pages) * pageBytes)
  for (let first = 0; first < ram.pages && !signal.aborted; first += slicePages) {
    const count = Math.min(slicePages, ram.pages - first)
    const content = ram.read(first * pageBytes, count * pageBytes)
    shadow.set(first, content)
    still.write(0, content)
    const ours = await hashBlocks(still, PageRanges.of([[0, count]]), pageBytes)
    for (let page = 0; page < count; page++) {
      const at = (first + page) * hashBytes
      if (
        Buffer.compare(
          ours.subarray(page * hashBytes, (page + 1) * hashBytes),
          theirs.subarray(at, at + hashBytes),
        )
      )
        different.push([first + page, 1])
    }
  }
  return signal.aborted ? PageRanges.all(ram.pages) : PageRanges.of(different)
}

async function send(
  { writer }: Protection,
  session: PrimarySession,
  pages: PageRanges,
  whole: boolean,
  signal: AbortSignal,
): Promise<void> {
  let left = pages
  while (left.pageCount > 0 && !signal.aborted) {
    const [slice, rest] = left.take(slicePages)
    left = rest
    const captured = await writer.capture(slice, whole)
    const { sent } = await session.deltas.post(writer, noEpoch, slice, captured)
    await sent
  }
}
