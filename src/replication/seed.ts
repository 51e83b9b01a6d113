/**
 * Seeding: brings the image up to the guest's memory while the guest runs. First every page that the guest has ever written, or, where
 * the standby has an image of this guest already, those whose hashes differ; then, as in pre-copy migration, rounds of what was written
 * meanwhile, until little enough is left for a pause. Nothing is committed yet: the first checkpoint does that.
 *
 * A protection whose next pause would have to capture too much (pause-limits.ts) is seeded again over the same connection,
 * with what is unsynced. In either case the standby has no checkpoint to take over from the first frame to the next commit.
 */
import { hashBlocks, hashBytes } from '../memory/hash.ts'
import { pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import { Region } from '../memory/region.ts'
import type { PrimarySession } from './primary-session.ts'
import type { Protection } from './protection.ts'
import type { SeedProgress } from './seed-progress.ts'

/** Pages captured and sent at a time: bounds the memory in flight. */
const slicePages = 4096
/** Left for the first checkpoint's pause. */
const enoughPages = 4096
const roundsMax = 6

/** Seeding frames belong to no checkpoint. */
const noEpoch = 0

export interface Seeding {
  /** Another connection: nothing is known of the standby's image but what it says. */
  anew: boolean
  /** Called when the standby is known to have the first frame, and so no checkpoint any more; undefined: it never had one. */
  forgotten: (() => Promise<void>) | undefined
  signal: AbortSignal
  progress: SeedProgress
}

export async function seed(
  protection: Protection,
  session: PrimarySession,
  { anew, forgotten, signal, progress }: Seeding,
): Promise<void> {
  const { tracker, hot, guest, memory, pending, limits } = protection
  const enough = Math.min(enoughPages, limits.wholePages)
  hot?.forget()
  // What is written to a page that leaves after the tracker was read would be lost.
  memory.checkpointing(false)
  await memory.settled()
  session.disks.shadowMoves()
  // Of a page that nobody has ever written guest, shadow and image are zeros. Of one that was taken elsewhere the file knows nothing.
  const blank = anew && session.welcome.blank === true && pending.untouched && !memory.dense && !memory.moved
  if (anew) {
    // Armed before the first page is read: what is written afterwards shows in a later harvest.
    tracker.harvest()
    pending.forgetAll()
  }
  // What the standby holds beside its image would come on top of what it is compared by.
  const comparable = anew ? session.welcome.image === 'held' : pending.sent === undefined
  // Comparing costs both hosts a look at all memory: sending a part of it is cheaper.
  if (comparable && pending.unsynced.pageCount > guest.ram.pages / 2)
    pending.onlyDiffer(await differingPages(protection, session, signal, progress))
  // So few pages go with the next checkpoint, and the image stays one that can be taken over until then.
  if (pending.unsynced.pageCount <= enough) return
  pending.seeding()
  if (blank) pending.onlyDiffer(guest.dataPages())
  for (let round = 0; round <= roundsMax && !signal.aborted; round++) {
    const { known, whole } = pending.harvested(tracker.harvest())
    const first = round === 0 ? forgotten : undefined
    progress.expect((whole.pageCount + known.pageCount) * pageBytes)
    let changedPages = await send(protection, session, whole, { whole: true, signal, progress, first })
    changedPages += await send(protection, session, known, { whole: false, signal, progress })
    // Else they are unsynced still, and a failure begins a new session, which seeds anew.
    if (!signal.aborted) pending.committed()
    if (changedPages <= enough) return
  }
}

/** Brings the shadow up to the guest and compares what it was set to with the image. */
async function differingPages(
  { guest, memory, shadow, pending }: Protection,
  session: PrimarySession,
  signal: AbortSignal,
  progress: SeedProgress,
): Promise<PageRanges> {
  const { ram } = guest
  const theirs = await session.imageHashes(ram.pages)
  const different: [number, number][] = []
  // The guest runs on: only a copy stands still and can be compared.
  using still = Region.anonymous(Math.min(slicePages, ram.pages) * pageBytes)
  progress.expect(ram.bytes)
  pending.touch()
  for (let first = 0; first < ram.pages && !signal.aborted; first += slicePages) {
    const count = Math.min(slicePages, ram.pages - first)
    progress.add(count * pageBytes)
    await memory.bring(PageRanges.of([[first, count]]))
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

interface Sent {
  whole: boolean
  signal: AbortSignal
  progress: SeedProgress
  /** Called once the standby has the first of it. */
  first?: (() => Promise<void>) | undefined
}

/** @returns how many pages were not as the shadow had them */
async function send(
  { memory, writer }: Protection,
  session: PrimarySession,
  pages: PageRanges,
  { whole, signal, progress, first }: Sent,
): Promise<number> {
  let told = first
  let changedPages = 0
  let left = pages
  while (left.pageCount > 0 && !signal.aborted) {
    const [slice, rest] = left.take(slicePages)
    left = rest
    await memory.bring(slice)
    const captured = await writer.capture(slice, whole)
    changedPages += whole ? slice.pageCount : captured.stats.changedPages
    const { sent } = await session.deltas.post(noEpoch, slice, captured)
    await sent
    progress.add(slice.pageCount * pageBytes)
    if (told) {
      await session.probe()
      await told()
      told = undefined
    }
  }
  return changedPages
}
