/**
 * Sends what a guest writes to its disks, over one connection: first what differs from the standby's copies, then the writes of
 * each epoch, those of a busy one before its end. The standby keeps them beside its disks until the epoch is committed.
 *
 *   seed -> [pump …] hold (in the pause) -> post -> posted -> [pump …]
 *
 * They go through the reducer of the deltas. What is written to a disk is mostly a page of the guest's memory, so it goes as a
 * reference. At the end of an epoch every page may be referred to, as the standby has it once the epoch is applied: the shadow holds
 * just that from the capture on. Before, only what the standby's last checkpoint has, and the epoch leaves as it is so far: that is
 * looked up at once, on the event loop, so that no capture changes the shadow meanwhile; and not at all from a capture on until
 * everything that was captured has been handed over, for the shadow is ahead of the standby then.
 */
import { inlineBytesMax, type ReducedWrites, type Reference } from '../delta/reduce.ts'
import { limits } from '../limits.ts'
import type { Clock } from './clock.ts'
import type { DeltaSender, FrameSink } from './delta-sender.ts'
import type { DiskLineages } from './disk-lineages.ts'
import { addTraffic, type DiskTraffic } from './disk-traffic.ts'
import { diskForm, diskHeaderBytes, type GuestDisks } from './disks.ts'
import { frameType } from './frame.ts'

const frameBytes = 1 << 20
/** Less than this waits for the end of the epoch: then it may refer to what the guest has just written to its memory, too. */
const earlyBytes = 1 << 20
/** More than this goes as it is when the reducer is busy. */
const pressingBytes = 8 << 20
/** A guest that writes more than the standby holds waits for the end of its epoch; a pause and a journal may come on top. */
const epochBytesMax = limits.checkpointDiskBytes.value / 2
const lookMs = 5
/** Of seeding: it belongs to no epoch. */
const noEpoch = 0

/** What reduces. */
export type WritesReducer = Pick<DeltaSender, 'writes' | 'writesNow' | 'busy'>

export class DiskSender {
  readonly #disks: GuestDisks
  readonly #connection: FrameSink
  readonly #reducer: WritesReducer
  readonly #clock: Clock
  readonly #traffic: DiskTraffic[]
  readonly #scratch: Buffer
  readonly #lineages: DiskLineages
  #epoch = 0
  /** Of the epoch so far. */
  #frames = 0
  #bytes = 0
  #held = false
  /** The disk that is asked next. */
  #turn = 0
  /** The shadow may be ahead of what the standby has, by pages that no epoch has announced. */
  #shadowMoves = true

  /** @param traffic of each disk; counted on */
  constructor(
    disks: GuestDisks,
    connection: FrameSink,
    reducer: WritesReducer,
    clock: Clock,
    traffic: DiskTraffic[],
    lineages: DiskLineages,
  ) {
    this.#lineages = lineages
    this.#disks = disks
    this.#connection = connection
    this.#reducer = reducer
    this.#clock = clock
    this.#traffic = traffic
    this.#scratch = Buffer.allocUnsafeSlow(disks.sizes.length > 0 ? frameBytes : 0)
  }

  /** Frames of the epoch so far. */
  get frames(): number {
    return this.#frames
  }

  /**
   * Resolves when all that was there has been fed; what is not sent of it goes with the first epoch, for a guest that writes
   * always leaves something. Once a frame was sent, the standby has no checkpoint until the next commit.
   * @param first called after the first frame
   */
  async seed(signal: AbortSignal, first: () => Promise<void>): Promise<void> {
    let begun = false
    while (!signal.aborted && !this.#disks.complete) {
      const sent = await this.#reduceAndSend(noEpoch, false, 'none')
      if (sent) {
        await sent.done
        if (!begun) await first()
        begun = true
      } else await this.#clock.sleep(lookMs, signal)
    }
  }

  /** Sends what a busy guest writes, or one whose write waits, until the signal. @param epoch that comes next */
  async pump(epoch: number, until: AbortSignal): Promise<void> {
    if (this.#disks.sizes.length === 0) return
    this.#epoch = epoch
    while (!until.aborted) {
      const sent = !this.#held && this.#isDue ? this.#sendNow() : undefined
      if (sent) await sent.done
      else await this.#clock.sleep(lookMs, until)
    }
  }

  /** Until the next commit is handed over, nothing is known of what the standby has in its memory. */
  shadowMoves(): void {
    this.#shadowMoves = true
  }

  /** The guest stands still: what it has written is this epoch's. */
  hold(epoch: number): void {
    this.#epoch = epoch
    this.#held = true
    this.#shadowMoves = true
    this.#disks.seal()
    this.#lineages.held(epoch)
  }

  /** The pause was none. */
  resume(): void {
    this.#held = false
    this.#lineages.broken(this.#epoch)
    this.#disks.unseal()
  }

  /** Hands over what is left of the epoch, after its deltas; `sent` when the kernel has it. */
  async post(): Promise<{ sent: Promise<void> }> {
    const sent: Promise<void>[] = []
    for (;;) {
      const next = await this.#reduceAndSend(this.#epoch, true, 'after')
      if (!next) break
      this.#frames++
      sent.push(next.done)
    }
    const all = Promise.all(sent).then(() => undefined)
    // Awaited by the caller, later.
    all.catch(() => undefined)
    return { sent: all }
  }

  /** The commit has been handed over: what comes now is the next epoch's. */
  posted(): void {
    this.#frames = 0
    this.#bytes = 0
    this.#epoch++
    this.#held = false
    this.#shadowMoves = false
  }

  /** The standby holds the checkpoint. */
  acknowledged(epoch: number): void {
    this.#lineages.acknowledged(epoch)
  }

  get #isDue(): boolean {
    const { urgent, waitingBytes } = this.#disks
    if (this.#bytes >= epochBytesMax) return false
    return urgent || waitingBytes > (this.#reducer.busy ? pressingBytes : earlyBytes)
  }

  /** A small frame, without a pause between the look into the shadow and the sending. */
  #sendNow(): Sent | undefined {
    const taken = this.#take(diskHeaderBytes + inlineBytesMax, false)
    if (!taken) return undefined
    this.#frames++
    const reference = this.#shadowMoves ? 'none' : 'before'
    const reduced = this.#reducer.writesNow(taken.records, reference, diskHeaderBytes)
    return this.#send(this.#epoch, taken, reduced)
  }

  /** One frame. */
  async #reduceAndSend(epoch: number, sealed: boolean, reference: Reference): Promise<Sent | undefined> {
    const taken = this.#take(frameBytes, sealed)
    if (!taken) return undefined
    return this.#send(epoch, taken, await this.#reducer.writes(taken.records, reference, diskHeaderBytes))
  }

  /** Of the disks in turn: one that is written without a pause does not keep the others waiting. */
  #take(bytesMax: number, sealed: boolean): Taken | undefined {
    const { length } = this.#disks.sizes
    for (let tried = 0; tried < length; tried++) {
      const disk = this.#turn
      this.#turn = (disk + 1) % length
      const bytes = this.#disks.take(disk, this.#scratch.subarray(diskHeaderBytes, bytesMax), sealed)
      if (bytes === 0) continue
      this.#bytes += bytes
      return { disk, records: this.#scratch.subarray(diskHeaderBytes, diskHeaderBytes + bytes) }
    }
    return undefined
  }

  #send(epoch: number, { disk, records }: Taken, reduced: ReducedWrites | undefined): Sent {
    const payload = reduced
      ? Buffer.from(reduced.payload.buffer)
      : Buffer.concat([Buffer.alloc(diskHeaderBytes), records])
    payload.writeUInt32LE(disk, 0)
    payload.writeUInt32LE(reduced ? diskForm.reduced : diskForm.plain, 4)
    addTraffic(this.#traffic[disk]!, records.length, payload.length, reduced)
    const done = this.#connection.send(frameType.disk, epoch, payload)
    // A connection that fails says so to its reader.
    done.catch(() => undefined)
    return { done }
  }
}

interface Taken {
  disk: number
  records: Uint8Array
}

/** Handed over, in its order; the kernel has it when it is `done`. */
interface Sent {
  done: Promise<void>
}
