/**
 * A connection that carries frames, over any duplex byte stream (TCP, TLS, or a test's own). Frames are read with
 * `for await`; the stream is paused while the reader is behind, so memory stays bounded. Sending resolves when the
 * payload has been handed to the kernel and its buffer may be reused.
 */
import type { Duplex } from 'node:stream'
import { SubpageError } from '../errors.ts'
import { type Clock, realClock } from './clock.ts'
import { encodeHeader, type Frame, FrameParser, type FrameType, frameType } from './frame.ts'
import { HeldElsewhere } from './held-elsewhere.ts'

const none = new Uint8Array(0)

/** How long the peer has to read our last words before the connection is torn down. */
const lastWordsMs = 1_000

export class Connection {
  readonly #stream: Duplex
  readonly #clock: Clock
  #sent = 0
  #failure: Error | undefined
  /** Bytes handed to the stream, headers included. */
  bytesSent = 0
  /** Called for every piece of input, before it makes a frame. */
  onInput: () => void = () => undefined

  constructor(stream: Duplex, clock: Clock = realClock) {
    this.#stream = stream
    this.#clock = clock
    // The reader meets the error through the iterator; a writer through its callback.
    stream.on('error', (error) => {
      this.#failure ??= error
    })
  }

  send(type: FrameType, epoch = 0, payload: Uint8Array = none): Promise<void> {
    const header = encodeHeader({ type, epoch, payload }, this.#sent++)
    this.bytesSent += header.length + payload.length
    return new Promise((resolve, reject) => {
      const done = (error?: Error | null) => (error ? reject(this.#lost(error)) : resolve())
      if (this.#stream.destroyed) return done(this.#failure ?? new Error('the connection is closed'))
      this.#stream.cork()
      if (payload.length === 0) this.#stream.write(header, done)
      else {
        this.#stream.write(header)
        this.#stream.write(payload, done)
      }
      this.#stream.uncork()
    })
  }

  sendJson(type: FrameType, value: unknown): Promise<void> {
    return this.send(type, 0, Buffer.from(JSON.stringify(value)))
  }

  /**
   * Ends when the peer closes between two frames; throws on damage or a cut within a frame. After damage the stream is
   * still open, so that the peer can be told.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Frame, void, void> {
    const parser = new FrameParser()
    try {
      for await (const chunk of this.#stream.iterator({ destroyOnReturn: false })) {
        this.onInput()
        yield* parser.push(chunk as Uint8Array)
      }
    } catch (error) {
      throw error instanceof SubpageError ? error : this.#lost(error)
    }
    this.close()
    if (!parser.atBoundary) throw this.#lost(new Error('it was cut within a frame'))
  }

  get closed(): boolean {
    return this.#stream.destroyed
  }

  /** At once; what was sent last may not arrive. */
  close(): void {
    this.#stream.destroy()
  }

  /** Gives the connection up; whoever reads or writes it learns why. */
  fail(why: string): void {
    this.#failure ??= new Error(why)
    this.#stream.destroy(this.#failure)
  }

  /**
   * Closes so that what was sent last arrives: a socket that is destroyed with unread input resets the connection, and
   * a reset overtakes data. The peer gets a second to read; what it still sends is thrown away.
   */
  async finish(): Promise<void> {
    if (this.#stream.destroyed) return
    const closed = new Promise((resolve) => this.#stream.once('close', resolve))
    // Too slow: there is nobody to tell.
    const relax = this.#clock.after(lastWordsMs, () => this.close())
    const discard = () => {
      while (this.#stream.read() !== null);
    }
    this.#stream.on('readable', discard)
    this.#stream.end()
    discard()
    await closed
    relax()
  }

  /** Tells the peer why, and closes. */
  async refuse(error: SubpageError): Promise<void> {
    const { code, message } = error
    const copy = error instanceof HeldElsewhere ? { copy: error.copy } : {}
    const refusal = { code, message: message.slice(0, 4096), ...copy }
    await this.sendLast(frameType.refuse, Buffer.from(JSON.stringify(refusal)))
  }

  /** Sends a last frame, and closes. */
  async sendLast(type: FrameType, payload: Uint8Array = none): Promise<void> {
    // A peer that is gone needs no word.
    void this.send(type, 0, payload).catch(() => undefined)
    await this.finish()
  }

  #lost(cause: unknown): SubpageError {
    const why = cause instanceof Error ? cause.message : String(cause)
    return new SubpageError('PEER_UNREACHABLE', `the connection to the other host was lost: ${why}`, {
      cause,
    })
  }
}
