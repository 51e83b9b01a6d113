/** What a protection carries from one checkpoint to the next, and how it begins: nothing is known of what the standby holds. */
import type { Shadow, ShadowKind } from '../delta/shadow.ts'
import { SubpageError } from '../errors.ts'
import { HotPages } from '../tracking/hot-pages.ts'
import type { Tracker } from '../tracking/tracker.ts'
import type { Clock } from './clock.ts'
import { DeltaWriter } from './delta-writer.ts'
import { DiskLineages } from './disk-lineages.ts'
import type { Faults } from './fault.ts'
import type { Guest } from './guest.ts'
import { type GuestMemory, wholeMemory } from './guest-memory.ts'
import { assertComparable, type PauseLimits } from './pause-limits.ts'
import { PendingPages } from './pending-pages.ts'
import type { PrimaryOptions } from './primary-options.ts'
import type { PrimarySession } from './primary-session.ts'
import { makeShadow } from './sending.ts'

export interface Protection {
  readonly guest: Guest
  /** Who reads `guest.ram` asks it first. */
  readonly memory: GuestMemory
  readonly tracker: Tracker
  /** What is remembered of what the standby holds; the unsynced pages excepted. */
  readonly shadow: Shadow
  /** Which pages change in which epochs, and need not be armed; undefined with a tracker that names every page. */
  readonly hot: HotPages | undefined
  /** Of the first write to an armed page; 0 where none is armed. */
  readonly faultNs: number
  readonly writer: DeltaWriter
  readonly pending: PendingPages
  readonly limits: PauseLimits
  readonly faults: Faults
  readonly lineages: DiskLineages
  readonly clock: Clock
  /**
   * Called with an acknowledgement in hand, before anything the guest sent is let out: until when that may be. Times are by
   * the clock.
   */
  mayRelease(session: PrimarySession, sentAt: number): Promise<number>
}

/** What a protection takes of the primary's memory. */
export interface ProtectionMemory {
  shadow: ShadowKind
  /** At most; a shadow of memory that is all zeros takes none. */
  shadowBytes: number
  /** What is known of the standby's memory beside: dictionary, indexes of blocks and sketches. */
  reducerBytes: number
}

export const memoryOf = ({ shadow }: Protection, session: PrimarySession | undefined): ProtectionMemory => ({
  shadow: shadow.kind,
  shadowBytes: shadow.bytes,
  reducerBytes: session?.deltas.memoryBytes ?? 0,
})

/** @throws SubpageError TRACKER_UNAVAILABLE, BAD_ARGUMENT, NO_SPACE; nothing is kept then */
export function protectionOf(
  {
    guest,
    memory = wholeMemory,
    codec,
    tracker: choice,
    sending = {},
    limits,
    hotPages,
    clock,
    faults,
  }: PrimaryOptions,
  mayRelease: Protection['mayRelease'],
): Protection {
  const shadow = makeShadow(guest.ram.pages, codec, sending)
  try {
    const tracker = suitable(guest.track(choice), guest, memory, shadow)
    return {
      guest,
      memory,
      tracker,
      shadow,
      hot:
        tracker.name === 'userfault'
          ? new HotPages(guest.ram.pages, comparesHot(shadow) ? hotPages : undefined)
          : undefined,
      faultNs: tracker.name === 'userfault' ? (hotPages?.faultNs ?? 0) : 0,
      writer: new DeltaWriter(guest.ram, shadow, codec),
      pending: new PendingPages(guest.ram.pages),
      limits,
      clock,
      faults,
      lineages: new DiskLineages(guest.disks.maps, clock),
      mayRelease,
    }
  } catch (error) {
    shadow.close()
    throw error
  }
}

/**
 * A page that was left unarmed is compared whether it was written or not: with a copy, for hashes take longer than the fault, and
 * a cache does not hold every page.
 */
const comparesHot = ({ copy }: Shadow) => copy !== undefined

/** A tracker that names every page has all memory read in each pause, and all that a cache does not hold sent. */
function suitable(tracker: Tracker, guest: Guest, memory: GuestMemory, { kind }: Shadow): Tracker {
  try {
    if (memory.dense && tracker.name === 'compare')
      throw new SubpageError(
        'TRACKER_UNAVAILABLE',
        `the tracker compare reads all memory in every pause, and that of ${guest.description.name} is held densely${
          tracker.fallback === undefined
            ? ': take --tracker userfault'
            : `; userfault is not available: ${tracker.fallback}`
        }`,
      )
    if (kind === 'cache' && tracker.name === 'compare')
      throw new SubpageError(
        'TRACKER_UNAVAILABLE',
        `the tracker ${tracker.name} names every page, and a shadow that is a cache needs one that names the written ones: take --shadow hash or full`,
      )
    assertComparable(tracker, guest)
    return tracker
  } catch (error) {
    tracker.close()
    throw error
  }
}
