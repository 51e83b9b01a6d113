/** One connection of a primary to its standby: the handshake, and what the standby answers afterwards. */
import type { Duplex } from 'node:stream'
import { type ErrorCode, errorTable, SubpageError } from '../errors.ts'
import { Connection } from './connection.ts'
import { type Frame, frameType } from './frame.ts'
import { type Hello, Refusal, readJson, Welcome } from './messages.ts'

interface Waiter {
  resolve: (payload: Uint8Array) => void
  reject: (error: Error) => void
}

export class PrimarySession {
  readonly connection: Connection
  /** Settles when the connection is lost, with the reason. */
  readonly lost: Promise<SubpageError>
  readonly #acks = new Map<number, Waiter>()
  readonly #answers: Waiter[] = []
  #failure: SubpageError | undefined

  private constructor(connection: Connection, frames: AsyncIterator<Frame>) {
    this.connection = connection
    this.lost = this.#read(frames)
  }

  /** @throws SubpageError what the standby refused with, or PEER_UNREACHABLE */
  static async open(stream: Duplex, hello: Hello): Promise<PrimarySession> {
    const connection = new Connection(stream)
    const frames = connection[Symbol.asyncIterator]()
    try {
      await connection.sendJson(frameType.hello, hello)
      const { value, done } = await frames.next()
      if (done)
        throw new SubpageError('PEER_UNREACHABLE', 'the other host closed the connection without an answer')
      if (value.type === frameType.refuse) throw refusal(value.payload)
      if (value.type !== frameType.welcome)
        throw new SubpageError('FRAME_MALFORMED', `expected a welcome, got frame type ${value.type}`)
      const welcome = readJson(Welcome, value.payload, 'the welcome')
      if (welcome.imagePages * 4096 !== hello.guest.ramBytes)
        throw new SubpageError('PEER_MISMATCH', 'the image on the standby has another size than the guest')
      return new PrimarySession(connection, frames)
    } catch (error) {
      connection.close()
      throw error
    }
  }

  /** Resolves when the standby holds this checkpoint whole. */
  async acknowledged(epoch: number): Promise<void> {
    await this.#wait((waiter) => this.#acks.set(epoch, waiter))
  }

  /** XXH3-128 of every page of the image, as of the last checkpoint sent. Shape: 16 bytes a page. */
  async imageHashes(pages: number): Promise<Uint8Array> {
    const hashes = new Uint8Array(pages * 16)
    let filled = 0
    const first = this.#wait((waiter) => this.#answers.push(waiter))
    await this.connection.send(frameType.askHashes)
    for (let part = await first; ; part = await this.#wait((waiter) => this.#answers.push(waiter))) {
      if (filled + part.length > hashes.length)
        throw new SubpageError('FRAME_MALFORMED', 'more hashes than pages')
      hashes.set(part, filled)
      filled += part.length
      if (filled === hashes.length) return hashes
    }
  }

  async imagePage(page: number): Promise<Uint8Array> {
    const answer = this.#wait((waiter) => this.#answers.push(waiter))
    await this.connection.send(frameType.askPage, page)
    return await answer
  }

  #wait(register: (waiter: Waiter) => void): Promise<Uint8Array> {
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
      failure =
        error instanceof SubpageError ? error : new SubpageError('INTERNAL', String(error), { cause: error })
    }
    this.#failure = failure
    this.connection.close()
    for (const waiter of [...this.#acks.values(), ...this.#answers]) waiter.reject(failure)
    return failure
  }

  #dispatch(frame: Frame): void {
    if (frame.type === frameType.ack) {
      this.#acks.get(frame.epoch)?.resolve(frame.payload)
      this.#acks.delete(frame.epoch)
    } else if (frame.type === frameType.hashes || frame.type === frameType.page) {
      this.#answers.shift()?.resolve(frame.payload)
    } else if (frame.type === frameType.refuse) throw refusal(frame.payload)
    else throw new SubpageError('FRAME_MALFORMED', `a standby does not send frame type ${frame.type}`)
  }
}

function refusal(payload: Uint8Array): SubpageError {
  const { code, message } = readJson(Refusal, payload, 'the refusal')
  return new SubpageError(
    code in errorTable ? (code as ErrorCode) : 'PEER_UNREACHABLE',
    `the other host: ${message}`,
  )
}
