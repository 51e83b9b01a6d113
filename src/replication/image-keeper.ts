/**
 * The image and the checkpoint that is on its way to it. Whole checkpoints only: what belongs to the next one waits beside
 * the image, checked on arrival, until its commit.
 */
import { apply, applySync, checkDelta } from '../delta/apply.ts'
import { Restorer } from '../delta/reduce.ts'
import { SubpageError } from '../errors.ts'
import type { Region } from '../memory/region.ts'
import { DeviceStateReader } from './device-state.ts'
import type { Faults } from './fault.ts'
import { type FrameType, frameType } from './frame.ts'
import type { Commit } from './messages.ts'

/** The last checkpoint whose content is in the image, or is being applied to it. */
export interface Committed {
  epoch: number
  deviceState: Uint8Array
  consoleBytes: number
}

/** Deltas up to this size are applied on the event loop's own thread. */
const inlineBytesMax = 64 * 1024
/** A checkpoint may not be larger than the guest's memory and this much for what goes with it. */
const overheadBytesMax = 64 * 2 ** 20
/** What a held frame takes beside its bytes; a flood of tiny ones must not pass for a small checkpoint. */
const frameOverheadBytes = 512

export class ImageKeeper {
  readonly #image: Region
  readonly #faults: Faults
  #committed: Committed | undefined
  /** Frames of the checkpoint that is on its way, all of one epoch. */
  #deltas: Uint8Array[] = []
  /** Of the frames, and of the deltas that they became. */
  #receivedBytes = 0
  #deltaBytes = 0
  /** What this connection's deltas and device states are told by. */
  #restorer: Restorer | undefined
  #devices: DeviceStateReader | undefined
  #device: Uint8Array | undefined
  #partialEpoch: number | undefined
  /** The last epoch of this connection. */
  #lastEpoch = 0
  /** Seeding frames may come: from the start of a connection to its first commit. */
  #seeding = false
  #applying: Promise<void> = Promise.resolve()

  constructor(image: Region, faults: Faults) {
    this.#image = image
    this.#faults = faults
  }

  get committed(): Committed | undefined {
    return this.#committed
  }

  /**
   * A new connection: it may seed, and counts its epochs from anywhere.
   * @param reduces whether its deltas may be reduced
   */
  begin(reduces: boolean): void {
    this.#dropPartial()
    this.close()
    this.#restorer = reduces ? new Restorer() : undefined
    this.#devices = new DeviceStateReader()
    this.#seeding = true
    this.#lastEpoch = 0
  }

  /** What the image holds is no state to take over any more; its pages still save seeding. */
  forgetCheckpoint(): void {
    this.#committed = undefined
  }

  /** Changes the image at once: until the next commit there is no checkpoint to take over. */
  async seed(payload: Uint8Array, type: FrameType): Promise<void> {
    if (!this.#seeding) throw unexpected('it seeds after its first checkpoint')
    const delta = await this.#deltaOf(payload, type, this.#bytesMax)
    this.#committed = undefined
    await this.#apply([delta])
  }

  async hold(epoch: number, payload: Uint8Array, type: FrameType): Promise<void> {
    this.#partOf(epoch)
    const room = this.#bytesMax - this.#deltaBytes - this.#deltas.length * frameOverheadBytes
    const delta = await this.#deltaOf(payload, type, room)
    if (delta.length + frameOverheadBytes > room) throw unexpected('its checkpoint is larger than the guest')
    this.#receivedBytes += payload.length
    this.#deltaBytes += delta.length
    this.#deltas.push(delta)
  }

  holdDevice(epoch: number, payload: Uint8Array): void {
    this.#partOf(epoch)
    if (this.#device) throw unexpected(`checkpoint ${epoch} has two device states`)
    this.#device = this.#devices?.decode(payload)
  }

  /** Acknowledges before it applies: from there on the checkpoint is ours, and a takeover waits for `settle`. */
  async commit(epoch: number, commit: Commit, acknowledge: () => Promise<void>): Promise<void> {
    this.#partOf(epoch)
    const device = this.#device
    if (!device) throw unexpected('its checkpoint has no device state')
    if (commit.deltas !== this.#deltas.length || commit.deltaBytes !== this.#receivedBytes)
      throw unexpected('its checkpoint is not whole')
    if (commit.digest !== 0n && commit.digest !== this.#restorer?.digest)
      throw unexpected('its dictionary of lines is another one than ours')
    const deltas = this.#deltas
    this.#dropPartial()
    this.#seeding = false
    this.#lastEpoch = epoch
    this.#faults('before-ack')
    this.#committed = { epoch, deviceState: device, consoleBytes: commit.consoleBytes }
    // A connection that fails says so to its reader; the checkpoint is ours all the same.
    const acknowledged = acknowledge().catch(() => undefined)
    const applied = this.#apply(deltas, true).catch((error) => {
      this.forgetCheckpoint()
      throw error
    })
    // Whoever waits for it looks at `committed` afterwards.
    this.#applying = applied.catch(() => undefined)
    await Promise.all([acknowledged, applied])
  }

  /** Resolves when nothing is being written to the image; what was not committed is dropped. */
  async settle(): Promise<void> {
    this.#dropPartial()
    await this.#applying
  }

  /** Lets go of what belongs to a connection. */
  close(): void {
    this.#restorer?.close()
    this.#devices?.close()
    this.#restorer = undefined
    this.#devices = undefined
  }

  get #bytesMax(): number {
    return this.#image.bytes + overheadBytesMax
  }

  /** Restored if need be, and checked. What a reduced one refers to is in the image: nothing is being applied now. */
  async #deltaOf(payload: Uint8Array, type: FrameType, bytesMax: number): Promise<Uint8Array> {
    const reduced = type === frameType.reduced
    if (reduced && !this.#restorer) throw unexpected('it sends reduced deltas and did not say so')
    const delta =
      reduced && this.#restorer ? await this.#restorer.restore(payload, this.#image, bytesMax) : payload
    checkDelta(delta, this.#image.pages)
    if (type === frameType.pages) this.#restorer?.learn(delta)
    return delta
  }

  async #apply(deltas: Uint8Array[], acknowledged = false): Promise<void> {
    if (acknowledged) this.#faults('after-ack')
    this.#faults('before-apply')
    for (const delta of deltas)
      if (delta.length <= inlineBytesMax) applySync(this.#image, delta)
      else await apply(this.#image, delta)
    this.#faults('after-apply')
  }

  /** One checkpoint at a time, each newer than the last. */
  #partOf(epoch: number): void {
    if (epoch <= this.#lastEpoch) throw unexpected(`it sends epoch ${epoch} again`)
    this.#partialEpoch ??= epoch
    if (epoch !== this.#partialEpoch)
      throw unexpected(`it sends epoch ${epoch} in the middle of epoch ${this.#partialEpoch}`)
  }

  #dropPartial(): void {
    this.#deltas = []
    this.#receivedBytes = 0
    this.#deltaBytes = 0
    this.#device = undefined
    this.#partialEpoch = undefined
  }
}

function unexpected(what: string): SubpageError {
  return new SubpageError('FRAME_MALFORMED', `the primary broke the protocol: ${what}`)
}
