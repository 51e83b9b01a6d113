/**
 * Sends what was captured: reduced and compressed as the settings say, in order, over one connection. Its dictionary begins
 * with the connection, as the standby's does: a checkpoint that fails takes both with it.
 *
 * What was captured must be reduced before any of its pages is captured again, for the reducer reads the shadow.
 */
import {
  inlineBytesMax,
  type ReducedWrites,
  Reducer,
  type ReduceStats,
  type Reference,
} from '../delta/reduce.ts'
import { ReductionChoice, type ReductionMethod } from '../delta/reduction-choice.ts'
import { spareBuffers } from '../delta/spare-buffers.ts'
import type { PageRanges } from '../memory/page-ranges.ts'
import type { Region } from '../memory/region.ts'
import type { Connection } from './connection.ts'
import type { Captured } from './delta-writer.ts'
import { type FrameType, frameType } from './frame.ts'
import { busyShare } from './processors.ts'
import { reduces, type Sending } from './sending.ts'

/** Where frames go. */
export type FrameSink = Pick<Connection, 'send'>

/** What of an epoch is on its way. */
export interface Posted {
  frames: number
  bytes: number
}

/** What the reducer has found since the connection began. */
export interface Reduced extends Readonly<ReduceStats> {
  /** Of the last epoch; none: it was not reduced at all. */
  compression: ReductionMethod
}

type Choice = Pick<ReductionChoice, 'next' | 'learn'>

export class DeltaSender {
  readonly #connection: FrameSink
  readonly #shadow: Region | undefined
  readonly #reducer: Reducer | undefined
  readonly #choice: Choice
  #method: ReductionMethod = 'off'
  #epoch = -1
  #total: Posted = { frames: 0, bytes: 0 }
  #deltaBytes = 0
  #reduceUs = 0
  /** Of the epoch that was handed over last. */
  #ended = { method: 'off' as ReductionMethod, deltaBytes: 0, reduceUs: 0 }
  #memoryBytes = 0
  #busy = false
  readonly #disks: boolean
  readonly #stats: ReduceStats = {
    lines: 0,
    dictionaryLines: 0,
    sharedLines: 0,
    similarPages: 0,
    bodyBytes: 0,
  }

  /**
   * @param shadow what the deltas are captured against; undefined when it does not hold whole pages
   * @param disks whether writes to disks go through the same reducer
   */
  constructor(
    connection: FrameSink,
    pages: number,
    shadow: Region | undefined,
    sending: Sending,
    { disks = false, choice = new ReductionChoice(sending.compress ?? 'off', busyShare) as Choice } = {},
  ) {
    this.#disks = disks
    this.#connection = connection
    this.#shadow = shadow
    // Without whole pages nothing can be compared with what the standby holds elsewhere.
    const parts = (sending.reduce ?? []).filter((part) => shadow !== undefined || part === 'dictionary')
    this.#reducer = reduces(sending) ? new Reducer(pages, parts, sending.blockBytes) : undefined
    this.#choice = choice
  }

  /** Frames of the present epoch so far. */
  get total(): Readonly<Posted> {
    return this.#total
  }

  /** Of an epoch, 0 being seeding: then the standby's image does not stand still, and nothing refers to it. */
  #begin(epoch: number): void {
    if (epoch === this.#epoch) return
    this.#reducer?.begin(epoch > 0)
    this.#method = this.#choice.next(this.#deltaBytes)
    this.#epoch = epoch
    this.#total = { frames: 0, bytes: 0 }
    this.#deltaBytes = 0
    this.#reduceUs = 0
  }

  /** These pages are about to be captured for an epoch: nothing refers to them in it. */
  announce(epoch: number, pages: PageRanges): void {
    this.#begin(epoch)
    this.#reducer?.include(pages)
  }

  /**
   * Resolves once everything is reduced and handed over; `posted.sent` when the kernel has it.
   * @param pages that the epoch holds, as far as they are known: a superset of those in `captured`
   */
  async post(
    epoch: number,
    pages: PageRanges,
    ...captured: Captured[]
  ): Promise<Posted & { sent: Promise<void> }> {
    this.announce(epoch, pages)
    if (this.#method === 'none' && this.#disks && this.#shadow) this.#reducer?.know(pages, this.#shadow)
    const posted: Posted = { frames: 0, bytes: 0 }
    const sent: Promise<void>[] = []
    for (const { buffer, bytes } of captured.flatMap(({ chunks }) => chunks)) {
      const delta = buffer.subarray(0, bytes)
      const [type, payload] = await this.#reduce(delta)
      posted.frames++
      posted.bytes += payload.length
      const handed = this.#connection.send(type, epoch, payload).then(() => spareBuffers.keep(buffer))
      // Awaited with all others; it may fail while the next one is still being reduced.
      handed.catch(() => undefined)
      sent.push(handed)
    }
    const all = Promise.all(sent).then(() => undefined)
    this.#total.frames += posted.frames
    this.#total.bytes += posted.bytes
    // Awaited by the caller, later; a failure before that is not unhandled.
    all.catch(() => undefined)
    return { ...posted, sent: all }
  }

  /** All of an epoch has been handed over; the next one begins, of which no page is known yet. */
  ended(epoch: number): void {
    this.#ended = { method: this.#method, deltaBytes: this.#deltaBytes, reduceUs: this.#reduceUs }
    this.#memoryBytes = this.#reducer?.memoryBytes ?? 0
    this.#begin(epoch + 1)
  }

  /** The standby has the epoch that was ended. @param totalUs since its end, with all that was done for it */
  committed(totalUs: number): void {
    const { method, deltaBytes, reduceUs } = this.#ended
    this.#choice.learn(method, deltaBytes, reduceUs, totalUs)
  }

  /** The reducer is at work on something else. */
  get busy(): boolean {
    return this.#busy
  }

  /** Undefined when writes go as they are: nothing is reduced, or another reduction is under way. */
  writesNow(records: Uint8Array, reference: Reference, room: number): ReducedWrites | undefined {
    if (!this.#reducer || this.#busy) return undefined
    return this.#reducer.reduceWritesSync(records, this.#shadow, reference, this.#squeeze, room)
  }

  /** As `writesNow`, in the thread pool; one at a time, and while nothing is posted. */
  async writes(records: Uint8Array, reference: Reference, room: number): Promise<ReducedWrites | undefined> {
    if (!this.#reducer || records.length <= inlineBytesMax) return this.writesNow(records, reference, room)
    const reducer = this.#reducer
    return await this.#alone(() =>
      reducer.reduceWrites(records, this.#shadow, reference, this.#squeeze, room),
    )
  }

  get #squeeze() {
    return this.#method === 'none' ? 'off' : this.#method
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    this.#busy = true
    try {
      return await work()
    } finally {
      this.#busy = false
    }
  }

  get digest(): bigint {
    return this.#reducer?.digest ?? 0n
  }

  get reduced(): Reduced {
    return { ...this.#stats, compression: this.#method }
  }

  /** As of the last commit: a reducer at work cannot be asked. */
  get memoryBytes(): number {
    return this.#memoryBytes
  }

  close(): void {
    this.#memoryBytes = 0
    this.#reducer?.close()
  }

  async #reduce(delta: Uint8Array): Promise<[FrameType, Uint8Array]> {
    this.#deltaBytes += delta.length
    if (!this.#reducer) return [frameType.pages, delta]
    if (this.#method === 'none') return [frameType.raw, delta]
    const startedAt = performance.now()
    const [reducer, method] = [this.#reducer, this.#method]
    // Nobody needs the delta any more once it is reduced.
    const room = (bytes: number) => (bytes <= delta.length ? delta.subarray(0, bytes) : new Uint8Array(bytes))
    const reduced = await this.#alone(() => reducer.reduce(delta, this.#shadow, method, this.#stats, room))
    this.#reduceUs += (performance.now() - startedAt) * 1000
    return reduced ? [frameType.reduced, reduced] : [frameType.pages, delta]
  }
}
