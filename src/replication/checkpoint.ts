/**
 * One checkpoint, from the pause to the standby's acknowledgement: the spine of subpage.
 *
 * A dirty page is never forgotten. Whatever happens after the harvest, the pages end in one of two places: in a
 * checkpoint that the standby has committed, or in `unsynced`, the pages whose shadow is not what the standby holds;
 * those go whole with the next checkpoint. Seeding begins with all pages there.
 */
import { SubpageError } from '../errors.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import type { Region } from '../memory/region.ts'
import type { Tracker } from '../tracking/tracker.ts'
import type { Captured, DeltaWriter } from './delta-writer.ts'
import type { EpochReport } from './epoch-stats.ts'
import { frameType } from './frame.ts'
import type { Guest } from './guest.ts'
import { encodeCommit } from './messages.ts'
import type { PrimarySession } from './primary-session.ts'

/** What a protection carries from one checkpoint to the next. */
export interface Protection {
  readonly guest: Guest
  readonly tracker: Tracker
  /** What the standby holds, except for the unsynced pages. */
  readonly shadow: Region
  readonly writer: DeltaWriter
  /** Pages whose shadow is not what the standby holds. */
  unsynced: PageRanges
}

/**
 * @param whilePaused runs after the capture, the guest standing still
 * @throws SubpageError GUEST_DIED, PEER_UNREACHABLE, or what the tracker says; nothing is lost then
 */
export async function checkpoint(
  protection: Protection,
  session: PrimarySession,
  epoch: number,
  whilePaused?: () => void | Promise<void>,
): Promise<EpochReport> {
  const { guest, tracker, writer } = protection
  const whole = protection.unsynced
  const sentBefore = session.connection.bytesSent

  const pause = await guest.pause()
  const harvestStart = performance.now()
  let delta: Captured
  let rewritten: Captured
  let known: PageRanges
  let captureStart: number
  let captureEnd: number
  let consoleBytes: number
  try {
    const dirty = tracker.harvest()
    // From here to the commit the pages count as unsynced: an exception on the way needs no further care.
    protection.unsynced = whole.union(dirty)
    captureStart = performance.now()
    known = dirty.subtract(whole)
    delta = await writer.capture(known, false)
    rewritten = await writer.capture(whole, true)
    captureEnd = performance.now()
    consoleBytes = guest.consoleBytes
    await whilePaused?.()
  } catch (error) {
    await pause.resume()
    throw error
  }
  const resumed = await pause.resume()
  if (!resumed.valid)
    throw new SubpageError('PAUSE_BROKEN', 'the checkpoint took too long and the guest was resumed meanwhile')

  const commitStart = performance.now()
  const acknowledged = session.acknowledged(epoch)
  const sent = Promise.all([
    writer.send(session.connection, epoch, delta),
    writer.send(session.connection, epoch, rewritten),
    session.connection.send(frameType.device, epoch, resumed.deviceState),
    session.connection.send(
      frameType.commit,
      epoch,
      encodeCommit({
        deltas: delta.chunks.length + rewritten.chunks.length,
        deltaBytes: delta.bytes + rewritten.bytes,
        consoleBytes,
      }),
    ),
  ])
  await Promise.all([sent, acknowledged])
  protection.unsynced = PageRanges.empty

  return {
    epoch,
    pauseUs: resumed.pauseUs,
    ownUs: (captureEnd - harvestStart) * 1000,
    harvestUs: (captureStart - harvestStart) * 1000,
    captureUs: (captureEnd - captureStart) * 1000,
    commitUs: (performance.now() - commitStart) * 1000,
    // A tracker that compares reports every page; only those that differ were dirty.
    dirtyPages: tracker.name === 'compare' ? delta.stats.changedPages : known.pageCount,
    changedLines: delta.stats.changedLines,
    deltaBytes: delta.bytes + rewritten.bytes,
    sentBytes: session.connection.bytesSent - sentBefore,
    consoleBytes,
  }
}
