/**
 * Seeding: brings the image up to the guest's memory while the guest runs. First every page, then, as in pre-copy
 * migration, rounds of what was written meanwhile, until little enough is left for a pause. Nothing is committed yet:
 * the first checkpoint does that.
 */
import { PageRanges } from '../memory/page-ranges.ts'
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
  await send(protection, session, PageRanges.all(guest.ram.pages), true, signal)
  protection.unsynced = PageRanges.empty
  for (let round = 0; round < roundsMax && !signal.aborted; round++) {
    const written = tracker.harvest()
    // A failure from here on begins a new session, which seeds everything anew.
    await send(protection, session, written, false, signal)
    if (written.pageCount <= enoughPages) return
  }
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
    await writer.send(session.connection, noEpoch, await writer.capture(slice, whole))
  }
}
