/**
 * Sends what a guest writes to its disks, over one connection: first what differs from the standby's copies, then the writes of
 * each epoch, those of a busy one before its end. The standby keeps them beside its disks until the epoch is committed.
 *
 *   seed -> [pump …] hold (in the pause) -> post -> committed -> [pump …]
 */
import { limits } from '../limits.ts'
import type { Clock } from './clock.ts'
import type { FrameSink } from './delta-sender.ts'
import { diskHeaderBytes, type GuestDisks } from './disks.ts'
import { frameType } from './frame.ts'

const frameBytes = 1 << 20
/** Less than this waits for the end of the epoch. */
const earlyBytes = 256 * 1024
/** A guest that writes more than the standby holds waits for the end of its epoch; a pause and a journal may come on top. */
const epochBytesMax = limits.diskWritesBytes.value / 2
const lookMs = 5
/** Of seeding: it belongs to no epoch. */
const noEpoch = 0

export class DiskSender {
  readonly #disks: GuestDisks
  readonly #connection: FrameSink
  readonly #clock: Clock
  readonly #scratch: Buffer
  #epoch = 0
  /** Of the epoch so far. */
  #frames = 0
  #bytes = 0
  #held = false

  constructor(disks: GuestDisks, connection: FrameSink, clock: Clock) {
    this.#disks = disks
    this.#connection = connection
    this.#clock = clock
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
      const sent = this.#send(noEpoch, false)
      if (sent) {
        await sent
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
      const due = (this.#disks.urgent || this.#disks.waitingBytes > earlyBytes) && this.#bytes < epochBytesMax
      const sent = due && !this.#held ? this.#send(this.#epoch, false) : undefined
      if (sent) {
        this.#frames++
        await sent
      } else await this.#clock.sleep(lookMs, until)
    }
  }

  /** The guest stands still: what it has written is this epoch's. */
  hold(epoch: number): void {
    this.#epoch = epoch
    this.#held = true
    this.#disks.seal()
  }

  /** The pause was none. */
  resume(): void {
    this.#held = false
    this.#disks.unseal()
  }

  /** Hands over what is left of the epoch; `sent` when the kernel has it. */
  post(): { sent: Promise<void> } {
    const sent: Promise<void>[] = []
    for (let next = this.#send(this.#epoch, true); next; next = this.#send(this.#epoch, true)) {
      this.#frames++
      sent.push(next)
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
  }

  /** One frame, of the first disk that has something. */
  #send(epoch: number, sealed: boolean): Promise<void> | undefined {
    for (let disk = 0; disk < this.#disks.sizes.length; disk++) {
      const bytes = this.#disks.take(disk, this.#scratch.subarray(diskHeaderBytes), sealed)
      if (bytes === 0) continue
      this.#bytes += bytes
      this.#scratch.writeUInt32LE(disk, 0)
      this.#scratch.writeUInt32LE(0, 4)
      const sent = this.#connection.send(
        frameType.disk,
        epoch,
        Buffer.from(this.#scratch.subarray(0, diskHeaderBytes + bytes)),
      )
      // A connection that fails says so to its reader.
      sent.catch(() => undefined)
      return sent
    }
    return undefined
  }
}
