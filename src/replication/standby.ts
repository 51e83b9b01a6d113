/**
 * The standby's side of a protection. It keeps the image, which is at every moment one whole checkpoint: the frames of
 * the next one are held beside it, verified, acknowledged when complete, and only then applied. When the primary's
 * guest has died it takes over: finish applying, load the device state, run.
 */
import { EventEmitter } from 'node:events'
import { isDeepStrictEqual } from 'node:util'
import { apply, applySync, checkDelta } from '../delta/apply.ts'
import { asSubpageError, invariant, SubpageError } from '../errors.ts'
import { hashBlocks } from '../memory/hash.ts'
import { pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import { Connection } from './connection.ts'
import { type Frame, frameType, payloadBytesMax } from './frame.ts'
import type { GuestEnd, WaitingGuest } from './guest.ts'
import { type Commit, decodeCommit, Ended, Hello, protocolVersion, readJson } from './messages.ts'

export type StandbyState = 'Connecting' | 'Seeding' | 'Protected' | 'Failed'

/** The last checkpoint whose content is in the image. */
export interface Committed {
  epoch: number
  deviceState: Uint8Array
  consoleBytes: number
}

/** How a standby ended. */
export type StandbyOutcome =
  | {
      how: 'took-over'
      reason: string
      at: number
      takeoverMs: number
      committed: Omit<Committed, 'deviceState'>
    }
  | { how: 'discarded'; reason: string }

interface StandbyEvents {
  state: [StandbyState, string]
  outcome: [StandbyOutcome]
}

/** Deltas up to this size are applied on the event loop's own thread. */
const inlineBytesMax = 64 * 1024
/** A checkpoint may not be larger than the guest's memory and this much for what goes with it. */
const overheadBytesMax = 64 * 2 ** 20
/** What a held frame takes beside its bytes; a flood of tiny ones must not pass for a small checkpoint. */
const frameOverheadBytes = 512
/** How often a standby without a connection looks whether the primary's guest, on this same machine, is gone. */
const watchMs = 100

export class Standby extends EventEmitter<StandbyEvents> {
  readonly #guest: WaitingGuest
  readonly #hello: Hello
  readonly #sourceGone: (hello: Hello) => boolean | undefined
  #connection: Connection | undefined
  #committed: Committed | undefined
  /** Frames of the checkpoint that is on its way, all of one epoch. */
  #deltas: Uint8Array[] = []
  #deltaBytes = 0
  #device: Uint8Array | undefined
  #partialEpoch: number | undefined
  /** Seeding frames may come: from the start of a connection to its first commit. */
  #seeding = false
  #applying: Promise<void> = Promise.resolve()
  #outcome: Promise<StandbyOutcome> | undefined
  #watch: NodeJS.Timeout | undefined
  state: StandbyState = 'Seeding'
  reason = ''

  /**
   * @param sourceGone whether the primary's guest process is known to be gone; undefined when it cannot be seen from here
   */
  constructor(guest: WaitingGuest, hello: Hello, sourceGone: (hello: Hello) => boolean | undefined) {
    super()
    this.#guest = guest
    this.#hello = hello
    this.#sourceGone = sourceGone
  }

  get committed(): Omit<Committed, 'deviceState'> | undefined {
    const c = this.#committed
    return c && { epoch: c.epoch, consoleBytes: c.consoleBytes }
  }

  get connected(): boolean {
    return this.#connection !== undefined
  }

  get guestName(): string {
    return this.#hello.guest.name
  }

  /** Whether a primary that connects anew speaks for the same guest: of the same form, and the same process. */
  belongsTo({ guest, source }: Hello): boolean {
    const ours = this.#hello
    return (
      isDeepStrictEqual(guest, ours.guest) &&
      source.bootId === ours.source.bootId &&
      isDeepStrictEqual(source.process, ours.source.process)
    )
  }

  /** Serves one connection to its end. */
  async serve(connection: Connection, frames: AsyncIterator<Frame>): Promise<void> {
    invariant(!this.#connection, 'a standby serves one connection at a time')
    this.#connection = connection
    this.#seeding = true
    clearInterval(this.#watch)
    let reason = 'the primary closed the connection'
    try {
      await connection.sendJson(frameType.welcome, {
        release: this.#hello.release,
        imagePages: this.#guest.image.pages,
      })
      for (let next = await frames.next(); !next.done; next = await frames.next()) {
        // Once the end has begun the image belongs to it: what arrives now is too late.
        if (this.#outcome) break
        await this.#receive(connection, next.value)
      }
    } catch (error) {
      const refused = asSubpageError(error)
      reason = refused.message
      await connection.refuse(refused)
    } finally {
      connection.close()
      this.#dropPartial()
      // The next connection must not write to the image before this one has.
      await this.#applying.catch(() => undefined)
      this.#connection = undefined
    }
    if (!this.#outcome) this.#disconnected(reason)
  }

  /** Failover by command. @throws SubpageError STANDBY_NOT_READY */
  async failover(reason: string): Promise<StandbyOutcome> {
    if (!this.#committed)
      throw new SubpageError(
        'STANDBY_NOT_READY',
        `${this.guestName} has no whole checkpoint on this host (${this.state})`,
      )
    return await this.#end(() => this.#takeOver(reason, performance.now()))
  }

  /** Also possible after a failed takeover, of which nothing can be saved. */
  discard(reason: string): Promise<StandbyOutcome> {
    if (this.state === 'Failed') this.#outcome = undefined
    return this.#end(async () => {
      await this.#guest.discard()
      return { how: 'discarded', reason }
    })
  }

  async #receive(connection: Connection, frame: Frame): Promise<void> {
    switch (frame.type) {
      case frameType.pages:
        checkDelta(frame.payload, this.#guest.image.pages)
        if (frame.epoch === 0) await this.#seed(frame.payload)
        else this.#hold(frame.epoch, frame.payload)
        return
      case frameType.device:
        this.#partOf(frame.epoch)
        if (this.#device) throw unexpected(`checkpoint ${frame.epoch} has two device states`)
        this.#device = frame.payload
        return
      case frameType.commit:
        return await this.#commit(connection, frame.epoch, decodeCommit(frame.payload))
      case frameType.guestEnded:
        return this.#sourceEnded(readJson(Ended, frame.payload, 'the end of the guest'))
      case frameType.unprotect:
        void this.discard('the primary ended the protection')
        return
      case frameType.askHashes:
        return await this.#sendHashes(connection)
      case frameType.askPage: {
        if (frame.epoch >= this.#guest.image.pages) throw unexpected(`it asks for page ${frame.epoch}`)
        return await connection.send(
          frameType.page,
          frame.epoch,
          this.#guest.image.read(frame.epoch * pageBytes, pageBytes),
        )
      }
      default:
        throw unexpected(`a primary does not send frame type ${frame.type}`)
    }
  }

  /** Changes the image at once: until the next commit there is no checkpoint to take over. */
  async #seed(delta: Uint8Array): Promise<void> {
    if (!this.#seeding) throw unexpected('it seeds after its first checkpoint')
    this.#committed = undefined
    this.#enter('Seeding', '')
    await this.#apply([delta])
  }

  #hold(epoch: number, delta: Uint8Array): void {
    this.#partOf(epoch)
    this.#deltaBytes += delta.length
    this.#deltas.push(delta)
    const held = this.#deltaBytes + this.#deltas.length * frameOverheadBytes
    if (held > this.#guest.image.bytes + overheadBytesMax)
      throw unexpected('its checkpoint is larger than the guest')
  }

  /** One checkpoint at a time, each newer than the last. */
  #partOf(epoch: number): void {
    if (epoch <= (this.#committed?.epoch ?? 0)) throw unexpected(`it sends epoch ${epoch} again`)
    this.#partialEpoch ??= epoch
    if (epoch !== this.#partialEpoch)
      throw unexpected(`it sends epoch ${epoch} in the middle of epoch ${this.#partialEpoch}`)
  }

  async #commit(connection: Connection, epoch: number, commit: Commit): Promise<void> {
    this.#partOf(epoch)
    const device = this.#device
    if (!device) throw unexpected('its checkpoint has no device state')
    if (commit.deltas !== this.#deltas.length || commit.deltaBytes !== this.#deltaBytes)
      throw unexpected('its checkpoint is not whole')
    const deltas = this.#deltas
    this.#dropPartial()
    this.#seeding = false
    // From here on this checkpoint is ours: a failover waits for #applying and continues from it.
    this.#committed = { epoch, deviceState: device, consoleBytes: commit.consoleBytes }
    this.#applying = this.#apply(deltas)
    await Promise.all([connection.send(frameType.ack, epoch), this.#applying])
    this.#enter('Protected', '')
  }

  async #apply(deltas: Uint8Array[]): Promise<void> {
    for (const delta of deltas)
      if (delta.length <= inlineBytesMax) applySync(this.#guest.image, delta)
      else await apply(this.#guest.image, delta)
  }

  async #sendHashes(connection: Connection): Promise<void> {
    const { image } = this.#guest
    const hashes = await hashBlocks(image, PageRanges.all(image.pages), pageBytes)
    for (let at = 0; at < hashes.length; at += payloadBytesMax)
      await connection.send(frameType.hashes, 0, hashes.subarray(at, at + payloadBytesMax))
  }

  #sourceEnded(end: GuestEnd): void {
    if (end.how === 'died' && this.#committed)
      void this.#end(() => this.#takeOver(`the guest died: ${end.detail}`, performance.now()))
    else void this.discard(`the guest ended: ${end.detail}`)
  }

  /** Without a connection it is unknown whether the primary lives, unless its process can be seen to be gone. */
  #disconnected(reason: string): void {
    const look = () => {
      const gone = this.#sourceGone(this.#hello)
      if (gone && this.#committed) {
        clearInterval(this.#watch)
        void this.#end(() => this.#takeOver('the primary and its guest are gone', performance.now()))
      } else if (gone) void this.discard('the primary is gone and no checkpoint was whole')
      else if (gone === undefined)
        this.#enter(
          'Connecting',
          `${reason}; whether the guest still runs there cannot be seen from here, so it is not taken over by itself`,
        )
      else this.#enter('Connecting', `${reason}; the guest still runs there`)
    }
    this.#watch = setInterval(look, watchMs)
    look()
  }

  async #takeOver(reason: string, startedAt: number): Promise<StandbyOutcome> {
    const committed = this.#committed
    invariant(committed, 'only a committed checkpoint is taken over')
    await this.#applying
    await this.#guest.takeOver(committed.deviceState)
    const { epoch, consoleBytes } = committed
    return {
      how: 'took-over',
      reason,
      at: Date.now(),
      takeoverMs: performance.now() - startedAt,
      committed: { epoch, consoleBytes },
    }
  }

  /** There is one end: the first that is asked for; whoever asks again gets the same. */
  #end(run: () => Promise<StandbyOutcome>): Promise<StandbyOutcome> {
    if (!this.#outcome) {
      clearInterval(this.#watch)
      this.#outcome = run()
      this.#outcome.then(
        (outcome) => this.emit('outcome', outcome),
        (error) => this.#enter('Failed', asSubpageError(error).message),
      )
      this.#outcome.finally(() => this.#connection?.close()).catch(() => undefined)
    }
    return this.#outcome
  }

  #dropPartial(): void {
    this.#deltas = []
    this.#deltaBytes = 0
    this.#device = undefined
    this.#partialEpoch = undefined
  }

  #enter(state: StandbyState, reason: string): void {
    if (this.state === state && this.reason === reason) return
    this.state = state
    this.reason = reason
    this.emit('state', state, reason)
  }
}

/**
 * Reads the hello of a new connection. The connection is the caller's: after an error, to refuse.
 * @throws SubpageError FRAME_MALFORMED, PEER_MISMATCH
 */
export async function greet(
  connection: Connection,
): Promise<{ frames: AsyncIterator<Frame>; hello: Hello }> {
  const frames = connection[Symbol.asyncIterator]()
  const { value, done } = await frames.next()
  if (done) throw unexpected('the connection ended before a hello')
  if (value.type !== frameType.hello)
    throw unexpected(`it begins with frame type ${value.type}, not with a hello`)
  const hello = readJson(Hello, value.payload, 'the hello')
  if (hello.protocol !== protocolVersion)
    throw new SubpageError(
      'PEER_MISMATCH',
      `the primary speaks protocol ${hello.protocol}, this host ${protocolVersion}: install the same release on both`,
    )
  return { frames, hello }
}

function unexpected(what: string): SubpageError {
  return new SubpageError('FRAME_MALFORMED', `the primary broke the protocol: ${what}`)
}
