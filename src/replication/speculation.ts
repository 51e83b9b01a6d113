/**
 * Sends pages before their epoch ends, while the guest runs: less is left for the pause and for the commit that clients wait
 * for. A page is re-armed before it is captured, so a later write shows in the harvest at the end, and only what that write
 * changed goes again. The standby keeps what comes early beside its image until the checkpoint commits.
 *
 * It also keeps pauses short: when more is dirty than a pause should capture at once, it goes now, in pieces, each accepted by the
 * link before the next is captured; up to what the standby has room for beside its image (pause-limits.ts).
 */
import { PageRanges } from '../memory/page-ranges.ts'
import { earlyBytesMax, pageRecordBytesMax } from './pause-limits.ts'
import type { EarlyPages } from './pending-pages.ts'
import type { PrimarySession } from './primary-session.ts'
import type { Protection } from './protection.ts'
import { SettledPages, type Speculate } from './settled-pages.ts'

/** Parts of an epoch after which to look for settled pages. */
export const passesAt = [0.4, 0.75]
/** In shorter epochs looking costs more than it saves. */
export const epochMsMin = 8
/** More dirty pages than this are sent whatever is believed of them: a pause should not have to capture them all. */
const manyPages = 8192
const slicePages = 2048
/** Each chosen run costs a system call, some tenths of a microsecond. */
const runsMax = 1024

/** What it needs of a protection, and of its session. */
export interface Speculative
  extends Pick<Protection, 'tracker' | 'hot' | 'writer' | 'pending' | 'limits' | 'clock'> {
  readonly guest: { readonly ram: { readonly pages: number; readonly bytes: number } }
}
export type SpeculativeSession = Pick<PrimarySession, 'deltas' | 'closed'>

export class Speculation {
  readonly #protection: Speculative
  readonly #settled: SettledPages
  readonly #choice: Speculate
  readonly #bytesMax: number

  constructor(protection: Speculative, choice: Speculate) {
    this.#protection = protection
    this.#settled = new SettledPages(protection.guest.ram.pages, choice, protection.hot)
    this.#choice = choice
    this.#bytesMax = earlyBytesMax(protection.guest.ram.bytes, protection.limits)
  }

  get choice(): Speculate {
    return this.#choice
  }

  /**
   * Goes along with an epoch until it is due. No pass is under way when it resolves.
   * @param startedAt by the clock
   */
  async during(
    session: SpeculativeSession,
    epoch: number,
    startedAt: number,
    epochMs: number,
    due: Promise<void>,
    interrupted: AbortSignal,
  ): Promise<void> {
    const { clock, tracker } = this.#protection
    if (this.#choice === 'off' || !tracker.early || epochMs < epochMsMin) return await due
    let isDue = false
    const noticed = due.then(() => {
      isDue = true
    })
    for (const part of passesAt) {
      const ms = startedAt + part * epochMs - clock.now()
      if (ms > 0) await Promise.race([noticed, clock.sleep(ms, interrupted)])
      if (isDue || interrupted.aborted) break
      await this.pass(session, epoch, part)
    }
    await due
  }

  /** The checkpoint of an epoch has been committed. @param again what of `early` was sent again @param bytes all that it took */
  learn(early: Readonly<EarlyPages> | undefined, again: PageRanges, bytes: number): void {
    this.#settled.learn(early?.pages ?? PageRanges.empty, again, early?.bytes ?? 0, bytes)
  }

  /** Sends what is believed to stay as it is until the epoch's end. @param part of the epoch that is over */
  async pass(session: SpeculativeSession, epoch: number, part: number): Promise<void> {
    const { tracker, hot, pending } = this.#protection
    // Pages that go whole go at the end: their order with these would matter.
    if (!tracker.early || pending.unsynced.pageCount > 0) return
    // Pages that were left unarmed are named whether they were written or not; they would be armed, and change again.
    const dirty = tracker.early.peek().subtract(hot?.leave ?? PageRanges.empty)
    const many = dirty.pageCount > manyPages
    // What was sent in this epoch already and written again will not rest before its end, either; its first sending was in vain,
    // and it has to be in the harvest to be counted so.
    const sent = pending.sent?.epoch === epoch ? pending.sent.pages : PageRanges.empty
    let left = fewRuns(many ? dirty : this.#settled.choose(dirty.subtract(sent), 1 - part))
    while (left.pageCount > 0 && !session.closed.aborted) {
      const [slice, rest] = left.take(slicePages)
      left = rest
      if ((pending.sent?.deltaBytes ?? 0) + slice.pageCount * pageRecordBytesMax > this.#bytesMax) return
      await this.#send(session, epoch, slice)
    }
  }

  async #send(session: SpeculativeSession, epoch: number, wanted: PageRanges): Promise<void> {
    const { tracker, hot, writer, pending } = this.#protection
    const taken = tracker.early?.harvest(wanted) ?? PageRanges.empty
    if (taken.pageCount === 0) return
    // From here on they are not dirty any more: should anything fail, the checkpoint finds them there.
    const now = pending.sentEarly(epoch, taken)
    session.deltas.announce(epoch, taken)
    const captured = await writer.capture(taken, false, Number.POSITIVE_INFINITY, hot?.changed)
    const posted = await session.deltas.post(epoch, taken, captured)
    now.changedLines += captured.stats.changedLines
    now.deltaBytes += captured.bytes
    now.bytes += posted.bytes
    await posted.sent
  }
}

function fewRuns(pages: PageRanges): PageRanges {
  if (pages.runCount <= runsMax) return pages
  return PageRanges.fromPairs(pages.pairs.slice(0, 2 * runsMax))
}
