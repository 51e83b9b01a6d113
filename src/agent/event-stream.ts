/**
 * An answer that goes on: server-sent events (HTML, "Server-sent events"). A client that does not read must not grow the
 * agent: one that has more than a bound outstanding is dropped, and connects anew if it likes.
 */
import type { FastifyReply } from 'fastify'

/** More than the events that are kept for a client that has just come. */
export const outstandingBytesMax = 4 * 2 ** 20

export class EventStream {
  readonly #raw: FastifyReply['raw']

  /** @param closed called once, however it ends */
  constructor(reply: FastifyReply, closed: () => void) {
    reply.hijack()
    this.#raw = reply.raw
    this.#raw.once('close', closed)
    this.#raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
    this.#raw.flushHeaders()
  }

  send(event: unknown): void {
    if (this.#raw.destroyed) return
    this.#raw.write(`data: ${JSON.stringify(event)}\n\n`)
    if (this.#raw.writableLength > outstandingBytesMax) this.#raw.destroy()
  }

  /** As send, unless the client has not read all of what was sent before: it is about to be followed by a newer one. */
  sendIfRead(event: unknown): void {
    if (this.#raw.writableLength === 0) this.send(event)
  }

  /** Resolves when all has been handed to the kernel, or there is nobody any more to read it. */
  async end(): Promise<void> {
    if (this.#raw.destroyed) return
    const ended = new Promise<void>((resolve) => this.#raw.once('close', resolve).end(resolve))
    await ended
  }
}
