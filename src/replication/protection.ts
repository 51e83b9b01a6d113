/** How a protection begins: the guest's writes watched, nothing known of what the standby holds. */
import type { Shadow, ShadowKind } from '../delta/shadow.ts'
import { SubpageError } from '../errors.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import type { Tracker } from '../tracking/tracker.ts'
import type { Protection } from './checkpoint.ts'
import { DeltaWriter } from './delta-writer.ts'
import type { PrimaryOptions } from './primary-options.ts'
import { makeShadow } from './sending.ts'

/** What a protection takes of the primary's memory. */
export interface ProtectionMemory {
  shadow: ShadowKind
  /** At most; a shadow of memory that is all zeros takes none. */
  shadowBytes: number
  /** What is known of the standby's memory beside: dictionary, indexes of blocks and sketches. */
  reducerBytes: number
}

/** @throws SubpageError TRACKER_UNAVAILABLE, BAD_ARGUMENT, NO_SPACE; nothing is kept then */
export function protectionOf(
  { guest, codec, tracker, sending = {}, clock, faults }: PrimaryOptions,
  mayRelease: Protection['mayRelease'],
): Protection {
  const shadow = makeShadow(guest.ram.pages, codec, sending)
  try {
    return {
      guest,
      tracker: suitable(guest.track(tracker), shadow),
      shadow,
      writer: new DeltaWriter(guest.ram, shadow, codec),
      unsynced: PageRanges.all(guest.ram.pages),
      early: undefined,
      clock,
      faults,
      mayRelease,
    }
  } catch (error) {
    shadow.close()
    throw error
  }
}

/** A tracker that names every page would have a cache send all that it does not hold, each epoch. */
function suitable(tracker: Tracker, { kind }: Shadow): Tracker {
  if (kind !== 'cache' || tracker.name !== 'compare') return tracker
  tracker.close()
  throw new SubpageError(
    'TRACKER_UNAVAILABLE',
    `the tracker ${tracker.name} names every page, and a shadow that is a cache needs one that names the written ones: take --shadow hash or full`,
  )
}
