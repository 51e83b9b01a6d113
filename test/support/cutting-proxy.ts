/**
 * A TCP proxy that lets requests through and keeps answers back: the server has done what it was asked, and the client
 * does not know.
 */
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'

/** pass; cut: close on the first byte of an answer; half: let the first half of an answer through, then close; swallow: stay silent. */
export type Mode = 'pass' | 'cut' | 'half' | 'swallow'

export class CuttingProxy {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  /** Used up one for each answer; then answers pass. */
  plan: Mode[] = []
  /** Answers that did not arrive whole. */
  lostAnswers = 0

  private constructor(target: number) {
    this.#server = createServer((client) => {
      const server = connect(target, '127.0.0.1')
      let silent = false
      client.on('data', (chunk) => server.write(chunk))
      server.on('data', (chunk) => {
        const mode = silent ? 'swallow' : (this.plan.shift() ?? 'pass')
        if (mode === 'pass') return client.write(chunk)
        if (!silent) this.lostAnswers++
        if (mode === 'swallow') silent = true
        else if (mode === 'cut') client.destroy()
        else client.end(chunk.subarray(0, chunk.length / 2))
        return undefined
      })
      for (const [socket, other] of [
        [client, server],
        [server, client],
      ] as const) {
        this.#sockets.add(socket)
        // Cut connections are what this is about.
        socket.on('error', () => socket.destroy())
        socket.on('close', () => {
          this.#sockets.delete(socket)
          other.destroy()
        })
      }
    })
  }

  static async start(target: number): Promise<CuttingProxy> {
    const proxy = new CuttingProxy(target)
    await once(proxy.#server.listen(0, '127.0.0.1'), 'listening')
    return proxy
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server.close(), 'close')
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }
}
