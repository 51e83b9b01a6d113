/**
 * The image and the checkpoint that is on its way to it. Whole checkpoints only: what belongs to the next one waits beside
 * the image, checked on arrival, until its commit.
 */
import { apply, applySync, changedPages, checkDelta } from '../delta/apply.ts'
import { Restorer } from '../delta/reduce.ts'
import { spareBuffers } from '../delta/spare-buffers.ts'
import { invariant } from '../errors.ts'
import { DeviceStateReader } from './device-state.ts'
import { CopyLineages } from './disk-lineages.ts'
import { type DiskJournal, noJournal, noSpill } from './disks.ts'
import type { Faults } from './fault.ts'
import { type FrameType, frameType } from './frame.ts'
import { frameOverheadBytes, HeldWrites, keep, redo, type Writes } from './held-writes.ts'
import type { GiveBack, Image } from './image.ts'
import { brokeProtocol, type Commit } from './messages.ts'
import { checkpointBytesMax } from './pause-limits.ts'
import type { Durability } from './sending.ts'
import type { StandbyOptions } from './standby-options.ts'
import type { StandbyMachine } from './standby-state.ts'

/** The last checkpoint whose content is in the image, or is being applied to it. */
export interface Committed {
  epoch: number
  deviceState: Uint8Array
  consoleBytes: number
  /** The guest stands still, as somebody wanted. */
  suspended: boolean
}

/** A delta that can be applied, its pages borrowed for that: once a checkpoint is acknowledged nothing may be missing. */
interface Held {
  delta: Uint8Array
  giveBack: GiveBack
}

/** A checkpoint that is applied, and what happens once its writes are kept. */
interface Kept {
  epoch: number
  kept: () => Promise<void>
}

type KeptDisks = Pick<StandbyOptions, 'disks' | 'journal' | 'spill'>

/** Deltas up to this size are applied on the event loop's own thread. */
const inlineBytesMax = 64 * 1024

export class ImageKeeper {
  readonly #image: Image
  readonly #faults: Faults
  readonly #machine: StandbyMachine
  readonly #writes: HeldWrites
  readonly #journal: DiskJournal
  readonly lineages: CopyLineages
  /** Checkpoints of this connection are acknowledged when their writes to disks outlast a loss of power. */
  #durable = false
  /** The disks may have what no journal has. */
  #seeded = true
  /** Whole in the image; whether it is outdated says the state. */
  #checkpoint: Committed | undefined
  /** Frames of the checkpoint that is on its way, all of one epoch. */
  #held: Held[] = []
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
  #applying: Promise<void> = Promise.resolve()

  constructor(
    image: Image,
    faults: Faults,
    machine: StandbyMachine,
    { disks, journal, spill }: KeptDisks = { disks: [], journal: noJournal, spill: noSpill },
  ) {
    this.#journal = journal
    this.lineages = new CopyLineages(disks)
    this.#image = image
    this.#writes = new HeldWrites(image, disks, spill)
    this.#faults = faults
    this.#machine = machine
  }

  /** What may be taken over: once the end has begun, that which it began with. */
  get checkpoint(): Committed | undefined {
    const { whole, outdated, ending } = this.#machine
    const held = this.#checkpoint !== undefined
    invariant(ending || held === (whole || outdated), 'the image holds a checkpoint when the state says so')
    return this.#checkpoint
  }

  /**
   * A new connection: it may seed, and counts its epochs from anywhere.
   * @param reduces whether its deltas may be reduced
   * @param durability of its checkpoints
   * @param lineages of the primary's disks
   */
  begin(reduces: boolean, durability: Durability = 'memory', lineages?: readonly string[]): void {
    this.lineages.begin(lineages)
    this.#durable = durability === 'disk'
    // What such a connection brings is in no journal.
    if (!this.#durable) this.#seeded = true
    this.#dropPartial()
    this.#writes.forget()
    this.close()
    this.#restorer = reduces ? new Restorer() : undefined
    this.#devices = new DeviceStateReader()
    this.#lastEpoch = 0
  }

  /** Before a connection begins: where its writes are not journalled, what was before must not be played back over them. */
  async prepare({ durability }: { durability?: Durability }): Promise<void> {
    if (durability !== 'disk') await this.#journal.remove()
  }

  /** The disks stay as they are, without us. */
  async leaveDisks(): Promise<void> {
    // A broken one cannot be brought up any more.
    await this.#journal.remove().catch(() => undefined)
  }

  /** The guest has gone on without us: the checkpoint is outdated. Its pages still save seeding. */
  forgetCheckpoint(): void {
    this.#machine.fire('outdate')
  }

  /**
   * Changes the image at once: until the next commit there is no checkpoint to take over. What was held for one is dropped: the
   * primary sends that anew.
   * @param check asked when the delta is ready to be applied; throws if the image must stay as it is
   */
  async seed(payload: Uint8Array, type: FrameType, check: () => void): Promise<void> {
    this.#dropPartial()
    const held = await this.#take(payload, type, this.#bytesMax)
    try {
      check()
    } catch (error) {
      held.giveBack()
      throw error
    }
    this.#beginSeeding()
    const applied = this.#apply([held], this.#writes.take())
    this.#applying = settled(applied)
    await applied
  }

  /** As `seed`, of a disk. */
  async seedDisk(payload: Uint8Array, check: () => void): Promise<void> {
    const writes = await this.#writes.read(payload, this.#restorer)
    try {
      check()
    } catch (error) {
      writes.giveBack()
      throw error
    }
    this.#dropPartial()
    this.#beginSeeding()
    const applied = this.#apply([], [...this.#writes.take(), writes])
    this.#applying = settled(applied)
    await applied
  }

  async holdDisk(epoch: number, payload: Uint8Array): Promise<void> {
    this.#partOf(epoch)
    await this.#writes.hold(payload, this.#restorer)
  }

  async hold(epoch: number, payload: Uint8Array, type: FrameType): Promise<void> {
    this.#partOf(epoch)
    const room = this.#bytesMax - this.#deltaBytes - this.#held.length * frameOverheadBytes
    const held = await this.#take(payload, type, Math.max(0, room - frameOverheadBytes))
    this.#receivedBytes += payload.length
    this.#deltaBytes += held.delta.length
    this.#held.push(held)
  }

  holdDevice(epoch: number, payload: Uint8Array): void {
    this.#partOf(epoch)
    if (this.#device) throw brokeProtocol(`checkpoint ${epoch} has two device states`)
    this.#device = this.#devices?.decode(payload)
  }

  /** Acknowledges before it applies: from there on the checkpoint is ours, and a takeover waits for `settle`. */
  async commit(epoch: number, commit: Commit, acknowledge: () => Promise<void>): Promise<void> {
    this.#partOf(epoch)
    const device = this.#device
    if (!device) throw brokeProtocol('its checkpoint has no device state')
    if (commit.deltas !== this.#held.length || commit.deltaBytes !== this.#receivedBytes)
      throw brokeProtocol('its checkpoint is not whole')
    if (commit.diskFrames !== this.#writes.frames)
      throw brokeProtocol('its checkpoint has not all writes to disks')
    if (commit.digest !== 0n && commit.digest !== this.#restorer?.digest)
      throw brokeProtocol('its dictionary of lines is another one than ours')
    const held = this.#held
    this.#held = []
    const writes = this.#writes.take()
    this.#writes.forget()
    this.#dropPartial()
    this.#lastEpoch = epoch
    this.#faults('before-ack')
    this.#machine.fire('commit')
    const { consoleBytes, suspended } = commit
    this.#checkpoint = { epoch, deviceState: device, consoleBytes, suspended }
    // A connection that fails says so to its reader; the checkpoint is ours all the same.
    const acknowledged = () => acknowledge().catch(() => undefined)
    const early = this.#durable ? undefined : acknowledged()
    const applied = this.#apply(held, writes, { epoch, kept: acknowledged }).catch((error) => {
      this.#machine.fire('torn')
      this.#checkpoint = undefined
      throw error
    })
    this.#applying = settled(applied)
    await Promise.all([early, applied])
    // Once the guest runs here it marks what it writes.
    if (!this.#machine.ending) this.lineages.applied()
  }

  /** Resolves when nothing is being written to the image; what was not committed is dropped. */
  async settle(): Promise<void> {
    this.#dropPartial()
    this.#writes.forget()
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
    return checkpointBytesMax(this.#image.region.bytes)
  }

  /** Restored if need be, and checked. */
  async #take(payload: Uint8Array, type: FrameType, bytesMax: number): Promise<Held> {
    const reduced = type === frameType.reduced
    if (reduced && !this.#restorer) throw brokeProtocol('it sends reduced deltas and did not say so')
    const delta = reduced && this.#restorer ? await this.#restore(this.#restorer, payload, bytesMax) : payload
    const { pages } = checkDelta(delta, this.#image.region.pages)
    if (type === frameType.pages) this.#restorer?.learn(delta)
    if (delta.length > bytesMax) throw brokeProtocol('its checkpoint is larger than the guest')
    return { delta, giveBack: await this.#image.borrow(() => changedPages(delta, pages)) }
  }

  /** What it refers to is in the image: nothing is being applied now. */
  async #restore(restorer: Restorer, payload: Uint8Array, bytesMax: number): Promise<Uint8Array> {
    const { region } = this.#image
    const giveBack = await this.#image.borrow(() => restorer.references(payload, region.pages, bytesMax))
    try {
      return await restorer.restore(payload, region, bytesMax, (bytes) => spareBuffers.take(bytes))
    } finally {
      giveBack()
    }
  }

  /** All of it has ended when this settles. */
  async #apply(held: Held[], writes: Writes[], committed?: Kept): Promise<void> {
    try {
      if (committed) this.#faults('after-ack')
      this.#faults('before-apply')
      const applied = this.#applyDeltas(held)
      const written = this.#write(writes, applied, committed)
      for (const done of await Promise.allSettled([applied, written]))
        if (done.status === 'rejected') throw done.reason
      this.#faults('after-apply')
    } finally {
      for (const { giveBack } of [...held, ...writes]) giveBack()
      for (const { delta } of held) spareBuffers.keep(delta)
    }
  }

  /** After seeding nothing is kept before the disks themselves are on stable storage: what came then was not journalled. */
  async #write(writes: Writes[], applied: Promise<void>, committed: Kept | undefined): Promise<void> {
    const { region } = this.#image
    if (this.#durable && committed) {
      if (this.#seeded) await this.#journal.clear()
      this.#seeded = false
      await keep(this.#journal, committed.epoch, writes, region, applied)
      await committed.kept()
    }
    await redo(writes, region, applied)
  }

  async #applyDeltas(held: Held[]): Promise<void> {
    const { region } = this.#image
    for (const { delta } of held)
      if (delta.length <= inlineBytesMax) applySync(region, delta)
      else await apply(region, delta)
  }

  /** One checkpoint at a time, each newer than the last. */
  #partOf(epoch: number): void {
    if (epoch <= this.#lastEpoch) throw brokeProtocol(`it sends epoch ${epoch} again`)
    this.#partialEpoch ??= epoch
    if (epoch !== this.#partialEpoch)
      throw brokeProtocol(`it sends epoch ${epoch} in the middle of epoch ${this.#partialEpoch}`)
  }

  /** The image holds no whole checkpoint any more. */
  #beginSeeding(): void {
    this.#seeded = true
    this.#checkpoint = undefined
    this.#machine.change('seed', undefined)
  }

  #dropPartial(): void {
    for (const { giveBack } of this.#held) giveBack()
    this.#held = []
    this.#receivedBytes = 0
    this.#deltaBytes = 0
    this.#device = undefined
    this.#partialEpoch = undefined
  }
}

/** For whoever waits until the image stands still; whether it then holds a checkpoint says `checkpoint`. */
const settled = (applied: Promise<void>): Promise<void> => applied.catch(() => undefined)
