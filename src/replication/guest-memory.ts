/**
 * The memory of a guest as its protection reads it. A host may hold it densely: then much of it is elsewhere, and what was not brought
 * back must not be read. So a protection brings back what it is about to read, and while it reads, pages leave in the pauses of
 * its checkpoints only: after the tracker was read and the changes were captured.
 */
import { PageRanges } from '../memory/page-ranges.ts'
import type { Pause } from './guest.ts'
import type { Protection } from './protection.ts'

export interface GuestMemory {
  /** Pages of it may be elsewhere. */
  readonly dense: boolean
  /** They have been, at some time: the tracker may have lost its marks since. */
  readonly moved: boolean
  /** Resolves when nothing is on its way out. */
  settled(): Promise<void>
  /** Resolves when these pages are there; they stay until something leaves. @throws SubpageError NO_SPACE, KEEPER_FAILED, STORE_DAMAGED */
  bring(pages: PageRanges): Promise<void>
  /** Whether checkpoints are being taken, one after the other. Until they are, nothing leaves. */
  checkpointing(on: boolean): void
  /**
   * What waits to leave leaves now, in this pause; an error is told to whoever wanted it. The pause may be broken then.
   * @param stay these are needed all the time
   * @param leaving told of the pages that are about to leave
   */
  leave(pause: Pause, stay: PageRanges, leaving: (pages: PageRanges) => void): Promise<void>
}

const nothing = async () => undefined

/** All of it is there, always. */
export const wholeMemory: GuestMemory = {
  dense: false,
  moved: false,
  settled: nothing,
  bring: nothing,
  checkpointing: () => undefined,
  leave: nothing,
}

/** Pages that the next checkpoint reads whether the guest writes them or not: before the guest stands still for them. */
export async function bringForPause({ memory, pending, hot }: Protection): Promise<void> {
  if (!memory.dense) return
  await memory.bring(hot ? pending.unsynced.union(hot.leave) : pending.unsynced)
}

/**
 * After the capture. A page that has left has lost its mark, which the tracker reports as a write, and nothing of it is there to be
 * read: so its mark is made anew in the same pause. Should that be cut short, or the guest run on meanwhile, its pages are unsynced: they are brought
 * back before the next pause, and go whole.
 */
export async function letLeave({ memory, tracker, hot, pending }: Protection, pause: Pause): Promise<void> {
  if (!memory.dense) return
  let left = PageRanges.empty
  await memory.leave(pause, hot?.leave ?? PageRanges.empty, (pages) => {
    left = pages
    pending.harvested(pages)
  })
  if (left.pageCount > 0) tracker.early?.harvest(left)
}
