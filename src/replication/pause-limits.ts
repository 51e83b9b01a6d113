/**
 * How much one pause may take up. A pause that is longer than the pause lease is broken: its pages are unsynced then, and the
 * next one has more to capture than it had. So what is more than this goes while the guest runs, as seeding does. Both sides
 * keep in memory what they hold of a checkpoint: this bounds that, too.
 */
import { compareBytesPerMs } from '../delta/capture-speed.ts'
import { SubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import { pageBytes } from '../memory/page.ts'
import type { Tracker } from '../tracking/tracker.ts'
import type { Guest } from './guest.ts'

export interface PauseLimits {
  /** Unsynced pages that the next pause captures whole. */
  wholePages: number
  /** Bytes of captured changes: of a pause, and of what goes before it in the same epoch. */
  captureBytes: number
}

export const pauseLimits: PauseLimits = { wholePages: 8192, captureBytes: 256 * 2 ** 20 }

/** What goes with a checkpoint beside the guest's memory. */
const overheadBytesMax = limits.checkpointOverheadBytes.value
/** The most that one page takes in a delta (native/core/core.h), and what a capture may go beyond its limit. */
export const pageRecordBytesMax = 4352
const captureChunkBytes = 2 ** 20
/** A pause is more than looking at memory. */
const compareShareMax = 0.5

/** No checkpoint is larger, early pages included; a standby refuses one that is. */
export const checkpointBytesMax = (ramBytes: number) => ramBytes + overheadBytesMax

/** How much of an epoch may go before its end, so that there is room for all that may have to go at its end. */
export function earlyBytesMax(ramBytes: number, { captureBytes }: PauseLimits): number {
  const finalBytesMax = Math.min(
    captureBytes + captureChunkBytes,
    (ramBytes / pageBytes) * pageRecordBytesMax,
  )
  return Math.max(0, Math.min(captureBytes, checkpointBytesMax(ramBytes) - finalBytesMax))
}

/**
 * A tracker that names every page has all memory compared in each pause.
 * @param bytesPerMs as fast as this host compares
 * @throws SubpageError TRACKER_UNAVAILABLE when no pause can be long enough for that
 */
export function assertComparable(
  { name, fallback }: Pick<Tracker, 'name' | 'fallback'>,
  { ram, pauseMsMax }: Pick<Guest, 'pauseMsMax'> & { ram: { bytes: number } },
  bytesPerMs: () => number = compareBytesPerMs,
): void {
  if (name !== 'compare') return
  const speed = bytesPerMs()
  const bytesMax = speed * pauseMsMax * compareShareMax
  if (ram.bytes <= bytesMax) return
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`
  throw new SubpageError(
    'TRACKER_UNAVAILABLE',
    `the tracker compare reads all ${gib(ram.bytes)} of the guest's memory in every pause: at ${gib(speed * 1000)}/s, as measured on this host, that takes ${(ram.bytes / speed / 1000).toFixed(1)} s, and a pause is broken after ${pauseMsMax / 1000} s. ${
      fallback === undefined ? '' : `The tracker userfault is not available: ${fallback}. `
    }Protect it with the tracker userfault (\`subpage check\` says what that needs), or give the guest at most ${gib(bytesMax)} of memory`,
  )
}
