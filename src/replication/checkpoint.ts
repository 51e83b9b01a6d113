/**
 * One checkpoint, from the pause to the standby's acknowledgement and the release of what the guest sent: the spine of
 * subpage.
 *
 * A dirty page is never forgotten, whatever fails after the harvest: pending-pages.ts knows where each page is.
 */
import { SubpageError } from '../errors.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import type { Captured } from './delta-writer.ts'
import type { EpochReport } from './epoch-stats.ts'
import { frameType } from './frame.ts'
import type { Pause } from './guest.ts'
import { bringForPause, letLeave } from './guest-memory.ts'
import { encodeCommit } from './messages.ts'
import { assertFits } from './misfit.ts'
import type { PrimarySession } from './primary-session.ts'
import type { Protection } from './protection.ts'

/** How long a pause may last in which something is looked at: comparing takes about 0.1 s for each GiB. */
const inspectionMs = 30_000

/** A guest that stands still, its changes captured. */
export interface Frozen {
  pause: Pause
  delta: Captured
  /** Pages that go whole. */
  rewritten: Captured
  /** What may be in the one, and in the other. */
  known: PageRanges
  whole: PageRanges
  consoleBytes: number
  harvestUs: number
  captureUs: number
}

/** The standby is there, and the next checkpoint may well be whole. */
export const isMissed = (error: unknown): error is SubpageError =>
  error instanceof SubpageError && /^(PAUSE_BROKEN|KEEPER_FAILED)$/.test(error.code)

/**
 * @param whilePaused runs after the capture, the guest standing still
 * @throws SubpageError GUEST_DIED, PEER_UNREACHABLE, PAUSE_BROKEN, KEEPER_FAILED, NO_SPACE, DEVICES_DIFFER, or what the tracker says; nothing is lost then
 */
export async function checkpoint(
  protection: Protection,
  session: PrimarySession,
  epoch: number,
  whilePaused?: () => void | Promise<void>,
): Promise<EpochReport> {
  const { guest, faults, clock } = protection
  const sentBefore = session.sentBytesAtCommit

  const frozen = await freeze(protection, session, epoch, whilePaused && inspectionMs, async (pause) => {
    await whilePaused?.()
    await letLeave(protection, pause)
  })
  const resumed = await frozen.pause.resume()
  faults('after-resume')
  if (!resumed.valid) {
    session.disks.resume()
    throw new SubpageError('PAUSE_BROKEN', 'the checkpoint took too long and the guest was resumed meanwhile')
  }
  const deviceState = await frozen.pause.deviceState()

  const sentAt = clock.now()
  const early = protection.pending.sent
  const savedBefore = protection.hot?.figures?.faultsSaved ?? 0
  const dirty = dirtyOf(protection, frozen, early?.pages)
  const again = early ? early.pages.intersect(dirty.union(frozen.whole)) : PageRanges.empty
  const changed = dirty.union(early?.pages ?? PageRanges.empty).pageCount
  // A page that was sent early was armed again, and may have been written twice.
  const written = changed + again.pageCount
  const untilMs = await commit(protection, session, epoch, frozen, deviceState)
  const sentBytes = session.connection.bytesSent - sentBefore
  session.sentBytesAtCommit = session.connection.bytesSent
  const commitUs = (clock.now() - sentAt) * 1000
  faults('before-release')
  await guest.releaseOutputs(untilMs)
  faults('after-release')

  return {
    epoch,
    pauseUs: resumed.pauseUs,
    pausingUs: resumed.pausingUs,
    ownUs: frozen.harvestUs + frozen.captureUs,
    stopFlushUs: resumed.flushUs,
    harvestUs: frozen.harvestUs,
    captureUs: frozen.captureUs,
    commitUs,
    // A tracker that compares reports every page; only those that differ were dirty. A page that was sent early and again is
    // one dirty page; its lines were sent twice.
    dirtyPages: protection.tracker.name === 'compare' ? frozen.delta.stats.changedPages : changed,
    changedLines: frozen.delta.stats.changedLines + (early?.changedLines ?? 0),
    deltaBytes: frozen.delta.bytes + frozen.rewritten.bytes + (early?.deltaBytes ?? 0),
    sentBytes,
    finalBytes: sentBytes - (early?.bytes ?? 0),
    faultUs:
      (Math.max(0, written - (protection.hot?.figures?.faultsSaved ?? 0) + savedBefore) *
        protection.faultNs) /
      1000,
    early,
    again,
    reduced: session.deltas.reduced,
    sharedCaptures: protection.writer.sharedCaptures,
    hotPages: protection.hot?.figures ?? null,
    consoleBytes: frozen.consoleBytes,
  }
}

/** What was dirty of the pages that do not go whole: those that were left unarmed only if they had changed. */
function dirtyOf({ hot }: Protection, { known, whole }: Frozen, early = PageRanges.empty): PageRanges {
  if (!hot) return known
  if (whole.pageCount === 0) return known.subtract(hot.learn(known.union(early)))
  // A failed checkpoint has captured some of them: what has changed since is not known.
  hot.forget()
  return known
}

/**
 * Pauses the guest and captures what it changed. The caller resumes it.
 * @param holdMs how long the pause may last, when it is to last longer than a checkpoint's
 * @param whilePaused runs after the capture
 */
export async function freeze(
  protection: Protection,
  { disks }: PrimarySession,
  epoch: number,
  holdMs?: number,
  whilePaused?: (pause: Pause) => void | Promise<void>,
): Promise<Frozen> {
  const { guest, tracker, hot, writer, pending, limits, faults } = protection
  await bringForPause(protection)
  faults('before-pause')
  const pause = await guest.pause(holdMs)
  disks.hold(epoch)
  try {
    faults('before-harvest')
    const harvestStart = performance.now()
    // From here to the commit the pages are unsynced: an exception on the way needs no further care.
    const { known, whole } = pending.harvested(tracker.harvest(hot?.leave))
    refuseUnknown(protection, known, whole)
    faults('after-harvest')
    const captureStart = performance.now()
    const delta = await writer.capture(known, false, limits.captureBytes, hot?.changed)
    const rewritten = await writer.capture(whole, true, limits.captureBytes - delta.bytes)
    const captureEnd = performance.now()
    faults('after-capture')
    const consoleBytes = guest.consoleBytes
    await whilePaused?.(pause)
    return {
      pause,
      delta,
      rewritten,
      known,
      whole,
      consoleBytes,
      harvestUs: (captureStart - harvestStart) * 1000,
      captureUs: (captureEnd - captureStart) * 1000,
    }
  } catch (error) {
    disks.resume()
    await pause.resume()
    throw error
  }
}

/**
 * A tracker that has lost its marks names all pages. Those that are elsewhere must not be read, and a pause is short: they are compared
 * while the guest runs, as in seeding.
 * @throws SubpageError PAUSE_BROKEN
 */
function refuseUnknown({ guest, memory }: Protection, known: PageRanges, whole: PageRanges): void {
  if (memory.moved && known.pageCount > 0 && known.pageCount + whole.pageCount === guest.ram.pages)
    throw new SubpageError(
      'PAUSE_BROKEN',
      'which pages were written is not known any more: all are compared while the guest runs',
    )
}

/** Sends a checkpoint and waits until the standby holds it whole. Returns until when its outputs may be let out. */
export async function commit(
  protection: Protection,
  session: PrimarySession,
  epoch: number,
  { pause, delta, rewritten, known, whole, consoleBytes }: Frozen,
  deviceState: Uint8Array,
): Promise<number> {
  const { faults, clock } = protection
  const { connection, deltas, disks, devices } = session
  assertFits(protection.guest, session, deviceState)
  faults('before-send')
  const sentAt = clock.now()
  const posted = await deltas.post(epoch, known.union(whole), delta, rewritten)
  const written = await disks.post()
  const devicePayload = devices.encode(deviceState)
  const acknowledged = session.acknowledged(epoch)
  const sent = Promise.all([
    posted.sent,
    written.sent,
    connection.send(frameType.device, epoch, devicePayload),
    connection.send(
      frameType.commit,
      epoch,
      encodeCommit({
        deltas: deltas.total.frames,
        deltaBytes: deltas.total.bytes,
        consoleBytes,
        digest: deltas.digest,
        diskFrames: disks.frames,
        suspended: pause.suspended,
      }),
    ),
  ])
  disks.posted()
  deltas.ended(epoch)
  const committed = Promise.all([sent, acknowledged])
  // Awaited below; a failure before that is not unhandled.
  committed.catch(() => undefined)
  faults('after-send')
  await committed
  disks.acknowledged(epoch)
  deltas.committed((clock.now() - sentAt) * 1000)
  protection.pending.committed()
  return await protection.mayRelease(session, sentAt)
}
