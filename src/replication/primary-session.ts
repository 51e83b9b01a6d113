/** One connection of a primary to its standby: the handshake, and what the standby answers afterwards. */
import type { Duplex } from 'node:stream'
import { type ChunkRange, chunksOf } from '../disk/records.ts'
import { asSubpageError, type ErrorCode, errorTable, SubpageError } from '../errors.ts'
import { hashBytes } from '../memory/hash.ts'
import { pageBytes } from '../memory/page.ts'
import type { Clock } from './clock.ts'
import { Connection } from './connection.ts'
import type { DeltaSender } from './delta-sender.ts'
import { DeviceStateWriter } from './device-state.ts'
import type { DiskSender } from './disk-sender.ts'
import { type Frame, type FrameType, frameType } from './frame.ts'
import type { GuestEnd } from './guest.ts'
import { Heartbeat } from './heartbeat.ts'
import { HeldElsewhere } from './held-elsewhere.ts'
import { alsoDisks, encodeRange, type Hello, Refusal, readJson, Welcome } from './messages.ts'

interface Waiter<T> {
  resolve: (value: T) => void
  reject: (error: Error) => void
}

/** A question to the standby: how its answers are marked, and the room that they fill. */
interface Question extends Waiter<Uint8Array> {
  answer: FrameType
  into: Uint8Array
  filled: number
}

/** What sends over a connection. */
export interface Senders {
  deltas: DeltaSender
  disks: DiskSender
}

const answers = new Set<FrameType>([frameType.hashes, frameType.page, frameType.changes])

/** A standby starts a QEMU before it answers. */
const welcomeMs = 30_000

export class PrimarySession {
  readonly connection: Connection
  /** Settles when the connection is lost, with the reason. */
  readonly lost: Promise<SubpageError>
  /** What it was told. */
  readonly hello: Hello
  /** What the standby said of itself when it agreed. */
  readonly welcome: Welcome
  readonly devices = new DeviceStateWriter()
  readonly deltas: DeltaSender
  readonly disks: DiskSender
  /** Bytes sent over the connection until the last commit. */
  sentBytesAtCommit = 0
  readonly #closed: AbortController
  readonly #heartbeat: Heartbeat
  readonly #acks = new Map<number, Waiter<void>>()
  #probe: (Waiter<void> & { number: number }) | undefined
  #probes = 0
  #question: Question | undefined
  #asked: Promise<Uint8Array> = Promise.resolve(new Uint8Array())
  #handover: Waiter<void> | undefined
  readonly #dismissals: Waiter<void>[] = []
  #failure: SubpageError | undefined

  private constructor(
    connection: Connection,
    frames: AsyncIterator<Frame>,
    hello: Hello,
    welcome: Welcome,
    closed: AbortController,
    heartbeat: Heartbeat,
    { deltas, disks }: Senders,
  ) {
    this.connection = connection
    this.deltas = deltas
    this.disks = disks
    this.hello = hello
    this.welcome = welcome
    this.#closed = closed
    this.#heartbeat = heartbeat
    connection.onInput = () => heartbeat.heard()
    this.lost = this.#read(frames)
  }

  /**
   * @param abandon closes the connection, now or later, whatever it is waiting for
   * @param greeting what the standby is told; asked for once the connection stands
   * @param senders makes what sends this connection's deltas and writes to disks
   * @returns undefined when the other host has just begun a process for the guest: connect again
   * @throws SubpageError what the standby refused with, or PEER_UNREACHABLE
   */
  static async open(
    stream: Duplex,
    greeting: () => Promise<Hello>,
    clock: Clock,
    abandon: AbortSignal,
    senders: (connection: Connection) => Senders,
  ): Promise<PrimarySession | undefined> {
    const connection = new Connection(stream, clock)
    const closed = new AbortController()
    abandon.addEventListener('abort', () => connection.close(), { signal: closed.signal })
    // Also while the connection was made.
    if (abandon.aborted) connection.close()
    const frames = connection[Symbol.asyncIterator]()
    let silent = false
    const relax = clock.after(welcomeMs, () => {
      silent = true
      connection.close()
    })
    try {
      const hello = await greeting()
      await connection.sendJson(frameType.hello, hello)
      const { value, done } = await frames.next()
      if (done)
        throw new SubpageError('PEER_UNREACHABLE', 'the other host closed the connection without an answer')
      if (value.type === frameType.refuse) throw refusal(value.payload)
      if (value.type === frameType.again) {
        closed.abort()
        connection.close()
        return undefined
      }
      if (value.type !== frameType.welcome)
        throw new SubpageError('FRAME_MALFORMED', `expected a welcome, got frame type ${value.type}`)
      const welcome = readJson(Welcome, value.payload, 'the welcome')
      if (welcome.imagePages * pageBytes !== hello.guest.memoryBytes)
        throw new SubpageError('PEER_MISMATCH', 'the image on the standby has another size than the guest')
      const { suspicionMs } = hello.settings
      const heartbeat = new Heartbeat(
        clock,
        suspicionMs,
        // A connection that fails says so to its reader.
        () => void connection.send(frameType.heartbeat).catch(() => undefined),
        () => connection.fail(`the standby was silent for ${suspicionMs} ms`),
      )
      return new PrimarySession(connection, frames, hello, welcome, closed, heartbeat, senders(connection))
    } catch (error) {
      closed.abort()
      connection.close()
      throw silent
        ? new SubpageError('PEER_UNREACHABLE', `the other host gave no answer within ${welcomeMs / 1000} s`)
        : error
    } finally {
      relax()
    }
  }

  /** Closes the connection, and lets go of what it knew: when nothing is being sent over it any more. */
  release(): void {
    this.connection.close()
    this.devices.close()
    this.deltas.close()
  }

  /** Whether this host stood still for so long that the standby may have gone on meanwhile. */
  get stalled(): boolean {
    return this.#heartbeat.stalled
  }

  /** Aborts when the connection is lost. */
  get closed(): AbortSignal {
    return this.#closed.signal
  }

  /** Resolves when the standby holds this checkpoint whole. */
  acknowledged(epoch: number): Promise<void> {
    return this.#wait<void>((waiter) => this.#acks.set(epoch, waiter))
  }

  /** Resolves when the standby has answered: at some moment since this call it listened to us. One at a time. */
  async probe(): Promise<void> {
    const number = ++this.#probes
    const answered = this.#wait<void>((waiter) => {
      this.#probe = { ...waiter, number }
    })
    await Promise.all([this.connection.send(frameType.heartbeat, number), answered])
  }

  /** The guest stands still and its last checkpoint is committed: resolves when the standby runs it. */
  async handOver(epoch: number): Promise<void> {
    const answered = this.#wait<void>((waiter) => {
      this.#handover = waiter
    })
    await Promise.all([this.connection.send(frameType.handover, epoch), answered])
  }

  /**
   * Resolves when the standby has given its checkpoint up, for good: it does not take over any more.
   * @param disksToo its copies of the disks go, too
   * @param given called at once then, before the connection can end
   */
  async dismiss(disksToo: boolean, given: () => void): Promise<void> {
    const answered = this.#wait<void>(({ resolve, reject }) =>
      this.#dismissals.push({ reject, resolve: () => resolve(given()) }),
    )
    await Promise.all([this.connection.send(frameType.unprotect, disksToo ? alsoDisks : 0), answered])
  }

  /** The guest has ended as somebody wanted. Resolves when the standby has given its checkpoint up, as above. */
  async layDown(how: GuestEnd): Promise<void> {
    const answered = this.#wait<void>((waiter) => this.#dismissals.push(waiter))
    await Promise.all([this.connection.sendJson(frameType.guestEnded, how), answered])
  }

  /**
   * XXH3-128 of every 64 KiB of the standby's copy of a disk. Shape: 16 bytes each.
   * @param of some chunks of it, or all of a disk of this size
   */
  async diskHashes(disk: number, of: ChunkRange | number): Promise<Uint8Array> {
    const { first, count } = typeof of === 'number' ? { first: 0, count: chunksOf(of) } : of
    const range = encodeRange(first, count)
    return await this.#ask(frameType.askHashes, disk + 1, frameType.hashes, count * hashBytes, range)
  }

  /** Which chunks of a disk of this size its guest has written there. Shape: a bit each, the first one the lowest of its byte. */
  async diskChanges(disk: number, bytes: number): Promise<Uint8Array> {
    const bits = Math.ceil(chunksOf(bytes) / 8)
    return await this.#ask(frameType.askChanges, disk + 1, frameType.changes, bits)
  }

  /** What the copy of a disk becomes with the first checkpoint. @param lineage 16 bytes */
  async renewLineage(disk: number, lineage: Uint8Array): Promise<void> {
    await this.connection.send(frameType.lineage, disk + 1, lineage)
  }

  /** XXH3-128 of every page of the image, as of the last checkpoint sent. Shape: 16 bytes a page. */
  async imageHashes(pages: number): Promise<Uint8Array> {
    return await this.#ask(frameType.askHashes, 0, frameType.hashes, pages * hashBytes)
  }

  async imagePage(page: number): Promise<Uint8Array> {
    return await this.#ask(frameType.askPage, page, frameType.page, pageBytes)
  }

  /** Its answer fills `bytes`, over as many frames as the standby likes. */
  #ask(asking: FrameType, epoch: number, answer: FrameType, bytes: number, payload?: Uint8Array) {
    const put = () => this.#put(asking, epoch, answer, bytes, payload)
    // One at a time, whoever asks.
    this.#asked = this.#asked.then(put, put)
    return this.#asked
  }

  async #put(
    question: FrameType,
    epoch: number,
    answer: FrameType,
    bytes: number,
    payload?: Uint8Array,
  ): Promise<Uint8Array> {
    const whole = this.#wait<Uint8Array>((waiter) => {
      this.#question = { ...waiter, answer, into: new Uint8Array(bytes), filled: 0 }
    })
    const [, answered] = await Promise.all([this.connection.send(question, epoch, payload), whole])
    return answered
  }

  #wait<T>(register: (waiter: Waiter<T>) => unknown): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#failure) reject(this.#failure)
      else register({ resolve, reject })
    })
  }

  async #read(frames: AsyncIterator<Frame>): Promise<SubpageError> {
    let failure = new SubpageError('PEER_UNREACHABLE', 'the other host closed the connection')
    try {
      for (let next = await frames.next(); !next.done; next = await frames.next()) this.#dispatch(next.value)
    } catch (error) {
      failure = asSubpageError(error)
    }
    this.#failure = failure
    this.#heartbeat.stop()
    this.connection.close()
    for (const waiter of [
      ...this.#acks.values(),
      this.#probe,
      this.#question,
      this.#handover,
      ...this.#dismissals,
    ])
      waiter?.reject(failure)
    this.#closed.abort()
    return failure
  }

  #dispatch(frame: Frame): void {
    if (frame.type === frameType.ack) {
      const waiter = this.#acks.get(frame.epoch)
      if (!waiter) throw unexpected(`it acknowledges checkpoint ${frame.epoch}, which nobody sent`)
      this.#acks.delete(frame.epoch)
      this.#heartbeat.seeded()
      waiter.resolve()
    } else if (answers.has(frame.type)) this.#answered(frame)
    else if (frame.type === frameType.refuse) throw refusal(frame.payload)
    else if (frame.type === frameType.tookOver && this.#handover) this.#handover.resolve()
    else if (frame.type === frameType.dismissed && this.#dismissals.length > 0)
      for (const waiter of this.#dismissals.splice(0)) waiter.resolve()
    else if (frame.type === frameType.heartbeat) {
      if (frame.epoch === this.#probe?.number) this.#probe.resolve()
    } else throw unexpected(`a standby does not send frame type ${frame.type}`)
  }

  #answered({ type, payload }: Frame): void {
    const question = this.#question
    if (question?.answer !== type)
      throw unexpected(`it answers with frame type ${type}, which nobody asked for`)
    const { into, filled } = question
    if (payload.length === 0 || filled + payload.length > into.length)
      throw unexpected(`it answers with ${filled + payload.length} bytes, ${into.length} were asked for`)
    into.set(payload, filled)
    question.filled += payload.length
    if (question.filled < into.length) return
    this.#question = undefined
    question.resolve(into)
  }
}

/** What a host says that does not let us in. */
export async function readRefusal(stream: Duplex): Promise<SubpageError> {
  for await (const frame of new Connection(stream))
    if (frame.type === frameType.refuse) return refusal(frame.payload)
  return new SubpageError('PEER_UNREACHABLE', 'the other host closed the connection without an answer')
}

function refusal(payload: Uint8Array): SubpageError {
  const { code, message, copy } = readJson(Refusal, payload, 'the refusal')
  if (copy && code === 'HELD_ELSEWHERE') return new HeldElsewhere(`the other host: ${message}`, copy)
  return new SubpageError(
    Object.hasOwn(errorTable, code) ? (code as ErrorCode) : 'PEER_UNREACHABLE',
    `the other host: ${message}`,
  )
}

function unexpected(what: string): SubpageError {
  return new SubpageError('FRAME_MALFORMED', `the standby broke the protocol: ${what}`)
}
