/**
 * A primary's sending side and a standby's receiving side with a recording in place of the guest and nothing in place of the
 * link: what is captured, reduced, sent early, restored and applied is done by the code of `protect`. After each epoch the
 * image is compared with the memory, byte by byte.
 */
import type { Shadow } from 'subpage/delta/shadow'
import { invariant } from 'subpage/errors'
import { compareRegionsSync } from 'subpage/memory/hash'
import { PageRanges } from 'subpage/memory/page-ranges'
import { Region } from 'subpage/memory/region'
import { realClock } from 'subpage/replication/clock'
import { DeltaSender } from 'subpage/replication/delta-sender'
import { DeltaWriter } from 'subpage/replication/delta-writer'
import { DeviceStateWriter } from 'subpage/replication/device-state'
import { type FrameType, headerBytes } from 'subpage/replication/frame'
import { wholeImage } from 'subpage/replication/image'
import { ImageKeeper } from 'subpage/replication/image-keeper'
import { pauseLimits } from 'subpage/replication/pause-limits'
import { PendingPages } from 'subpage/replication/pending-pages'
import { makeShadow, reduces } from 'subpage/replication/sending'
import { epochMsMin, passesAt, Speculation, type Speculative } from 'subpage/replication/speculation'
import { StandbyMachine } from 'subpage/replication/standby-state'
import { HotPages } from 'subpage/tracking/hot-pages'
import { type EpochCourse, RecordedWrites, type Recording } from './recorded-writes.ts'
import type { Technique } from './technique.ts'

/** As `protect` seeds. */
const slicePages = 4096
/** A link of 1 Gbit/s, for what depends on one: bytes a microsecond, and the time of an answer. */
export const linkBytesPerUs = 125
const answerUs = 200
const commitFrameBytes = headerBytes + 32
const noDevices = new Uint8Array(0)

/** Of one epoch, or of many together. Bytes with their frames; the state of the devices is not in a recording. */
export interface EpochCost {
  pages: number
  /** All that was sent, and what of it in or after the pause. */
  totalBytes: number
  finalBytes: number
  /** Sent before the pause; of it, of pages that were written again. */
  earlyBytes: number
  wastedBytes: number
  earlyPages: number
  wastedPages: number
  /** Captured in the pause. */
  finalPages: number
  /** Of one processor: in the pause, of the primary altogether, of the standby. */
  pauseUs: number
  primaryUs: number
  standbyUs: number
}

interface Frame {
  type: FrameType
  epoch: number
  payload: Uint8Array
}

export class ReplayedPair implements EpochCourse {
  readonly costs: EpochCost[] = []
  readonly writes = new RecordedWrites()
  readonly #technique: Technique
  readonly #epochMs: number
  readonly #ram: Region
  readonly #shadow: Shadow
  readonly #image: Region
  readonly #keeper: ImageKeeper
  readonly #devices = new DeviceStateWriter()
  readonly #session: { deltas: DeltaSender; closed: AbortSignal }
  readonly #protection: Speculative
  readonly #speculation: Speculation
  #epoch = 0
  /** The next pass of speculation that this epoch has not had. */
  #pass = 0
  /** Sent and not yet received. */
  #frames: Frame[] = []
  #cost = nothing()
  #unseeded: PageRanges
  /** All that was ever sent. */
  #sent: PageRanges

  /** @param ram a copy of the recording's memory, into which it is played */
  constructor(recording: Recording, ram: Region, technique: Technique, epochMs: number) {
    this.#technique = technique
    this.#epochMs = epochMs
    this.#ram = ram
    this.#sent = recording.used
    // What a reducer learns while it seeds matters later; without one seeding is a copy.
    const learns = (technique.sending.reduce ?? []).length > 0
    const shadow = makeShadow(ram.pages, technique.codec, technique.sending)
    this.#shadow = shadow
    if (!learns) recording.read((firstPage, content) => shadow.set(firstPage, content))
    this.#image = learns ? Region.anonymous(ram.bytes) : recording.copy()
    this.#unseeded = learns ? recording.used : PageRanges.empty
    const machine = new StandbyMachine(() => undefined)
    machine.fire('connect')
    this.#keeper = new ImageKeeper(wholeImage(this.#image), () => undefined, machine)
    const sink = {
      // The buffer is used again as soon as this resolves, as with a socket.
      send: async (type: FrameType, epoch = 0, payload: Uint8Array = noDevices) => {
        this.#frames.push({ type, epoch, payload: payload.slice() })
      },
    }
    this.#session = {
      deltas: new DeltaSender(sink, ram.pages, this.#shadow.copy, technique.sending),
      closed: new AbortController().signal,
    }
    this.#protection = {
      guest: { ram },
      tracker: this.writes,
      hot: new HotPages(ram.pages, undefined),
      writer: new DeltaWriter(ram, this.#shadow, technique.codec),
      pending: new PendingPages(ram.pages),
      limits: pauseLimits,
      clock: realClock,
    }
    this.#speculation = new Speculation(this.#protection, technique.sending.speculate ?? 'off')
  }

  /** Brings the standby up to the memory as it is. */
  async seed(): Promise<void> {
    this.#keeper.begin(reduces(this.#technique.sending))
    const { deltas } = this.#session
    const { writer } = this.#protection
    for (let left = this.#unseeded; left.pageCount > 0; ) {
      const [slice, rest] = left.take(slicePages)
      left = rest
      await deltas.post(0, slice, await writer.capture(slice, true))
      await this.#receive()
    }
    this.#protection.pending.onlyDiffer(PageRanges.empty)
    this.#cost = nothing()
  }

  async within(part: number): Promise<void> {
    const due = passesAt.filter((at) => at <= part).length
    if (due <= this.#pass) return
    this.#pass = due
    if (this.#speculation.choice === 'off' || this.#epochMs < epochMsMin) return
    const startedAt = processorUs()
    await this.#speculation.pass(this.#session, this.#epoch + 1, passesAt[due - 1]!)
    this.#cost.primaryUs += processorUs() - startedAt
    await this.#receive()
  }

  async end(): Promise<void> {
    const epoch = ++this.#epoch
    const cost = this.#cost
    const { writer, pending, hot } = this.#protection
    const early = pending.sent
    const { deltas } = this.#session
    const earlyFrames = early ? deltas.total : { frames: 0, bytes: 0 }
    cost.earlyBytes = earlyFrames.bytes + earlyFrames.frames * headerBytes

    const startedAt = processorUs()
    const dirty = this.writes.harvest()
    const captured = await writer.capture(
      pending.harvested(dirty).known,
      false,
      Number.POSITIVE_INFINITY,
      hot?.changed,
    )
    cost.pauseUs = processorUs() - startedAt
    const postedAt = processorUs()
    const posted = await deltas.post(epoch, dirty, captured)
    await posted.sent
    const postUs = processorUs() - postedAt
    cost.primaryUs += processorUs() - startedAt

    cost.finalBytes = posted.bytes + posted.frames * headerBytes + commitFrameBytes
    cost.totalBytes = cost.earlyBytes + cost.finalBytes
    cost.finalPages = dirty.pageCount
    cost.pages = (early?.pages ?? PageRanges.empty).union(dirty).pageCount
    hot?.learn(early ? dirty.union(early.pages) : dirty)
    const again = early ? early.pages.intersect(dirty) : PageRanges.empty
    if (early) {
      cost.earlyPages = early.pages.pageCount
      cost.wastedPages = again.pageCount
      cost.wastedBytes = (cost.earlyBytes * again.pageCount) / early.pages.pageCount
    }
    await this.#receive()
    await this.#commit(epoch)
    this.#speculation.learn(early, again, cost.totalBytes)
    deltas.ended(epoch)
    deltas.committed(postUs + cost.finalBytes / linkBytesPerUs + answerUs)
    pending.committed()
    this.costs.push(cost)
    this.#cost = nothing()
    this.#pass = 0
    const sent = (early?.pages ?? PageRanges.empty).union(dirty)
    this.#sent = this.#sent.union(sent)
    this.#compare(sent)
  }

  /** The whole image is the memory. @throws Error when it is not: what was sent is wrong, and so is every figure */
  finish(): void {
    // What was written after the last epoch's end was not sent, or not committed.
    const left = this.writes.harvest().union(this.#protection.pending.sent?.pages ?? PageRanges.empty)
    this.#compare(this.#sent.subtract(left))
  }

  close(): void {
    this.#session.deltas.close()
    this.#keeper.close()
    this.#devices.close()
    this.#shadow.close()
    this.#image.close()
  }

  async #receive(): Promise<void> {
    const frames = this.#frames
    this.#frames = []
    const startedAt = processorUs()
    for (const { type, epoch, payload } of frames)
      if (epoch === 0) await this.#keeper.seed(payload, type, () => undefined)
      else await this.#keeper.hold(epoch, payload, type)
    this.#cost.standbyUs += processorUs() - startedAt
  }

  async #commit(epoch: number): Promise<void> {
    const { deltas } = this.#session
    this.#keeper.holdDevice(epoch, this.#devices.encode(noDevices))
    const startedAt = processorUs()
    await this.#keeper.commit(
      epoch,
      {
        deltas: deltas.total.frames,
        deltaBytes: deltas.total.bytes,
        consoleBytes: 0,
        digest: deltas.digest,
        diskFrames: 0,
        suspended: false,
      },
      () => Promise.resolve(),
    )
    this.#cost.standbyUs += processorUs() - startedAt
  }

  #compare(pages: PageRanges): void {
    const differs = compareRegionsSync(this.#ram, this.#image, pages)
    invariant(
      differs === undefined,
      `with "${this.#technique.name}" the image differs from the memory after epoch ${this.#epoch}`,
    )
  }
}

function processorUs(): number {
  const { user, system } = process.cpuUsage()
  return user + system
}

export const nothing = (): EpochCost => ({
  pages: 0,
  totalBytes: 0,
  finalBytes: 0,
  earlyBytes: 0,
  wastedBytes: 0,
  earlyPages: 0,
  wastedPages: 0,
  finalPages: 0,
  pauseUs: 0,
  primaryUs: 0,
  standbyUs: 0,
})
