/**
 * A TCP proxy as a process of its own, to be run in a network namespace, that does to the bytes what a bad wire does. Its
 * arguments are LISTEN=TARGET, each HOST:PORT; its parent says over IPC what to do from now on (`Fault`).
 */
import { connect, createServer, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

export interface WireFault {
  /**
   * pass; delay each piece by `ms`; throttle to `bytesPerMs`; swallow what comes; truncate: the next piece loses its end and
   * the connection ends; corrupt: one bit of the next piece is turned; cut: all connections end.
   */
  mode: 'pass' | 'delay' | 'throttle' | 'swallow' | 'truncate' | 'corrupt' | 'cut'
  ms?: number
  bytesPerMs?: number
}

let fault: WireFault = { mode: 'pass' }
const sockets = new Set<Socket>()

/** What becomes of a piece; undefined when the connection has to end. */
async function suffer(piece: Buffer): Promise<Buffer | undefined> {
  const { mode, ms = 0, bytesPerMs = 1 } = fault
  if (mode === 'delay') await delay(ms)
  if (mode === 'throttle') await delay(Math.min(piece.length / bytesPerMs, 3_000))
  if (mode === 'swallow') return Buffer.alloc(0)
  if (mode !== 'truncate' && mode !== 'corrupt') return piece
  // Once; the small ones are heartbeats, which matter as much.
  fault = { mode: 'pass' }
  if (mode === 'truncate') return undefined
  const damaged = Buffer.from(piece)
  const at = Math.floor(damaged.length / 2)
  damaged[at] = (damaged[at] ?? 0) ^ 4
  return damaged
}

async function carry(from: Socket, to: Socket): Promise<void> {
  for await (const piece of from as AsyncIterable<Buffer>) {
    const rest = await suffer(piece)
    if (rest === undefined) {
      to.write(piece.subarray(0, piece.length / 2))
      break
    }
    if (rest.length > 0 && !to.write(rest))
      await new Promise<void>((resolve) => {
        const settle = () => resolve(void to.off('drain', settle).off('close', settle))
        to.once('drain', settle).once('close', settle)
      })
  }
}

/** Runs only as a process of its own: others import the type. */
function main(): void {
  for (const pair of process.argv.slice(2)) {
    const [listen = '', target = ''] = pair.split('=')
    const [host, port] = listen.split(':')
    const [targetHost, targetPort] = target.split(':')
    createServer({ noDelay: true }, (near) => {
      const far = connect({ host: targetHost ?? '', port: Number(targetPort), noDelay: true })
      for (const socket of [near, far]) {
        sockets.add(socket)
        // Broken connections are what this is about.
        socket.on('error', () => undefined)
        socket.on('close', () => {
          sockets.delete(socket)
          near.destroy()
          far.destroy()
        })
      }
      for (const way of [carry(near, far), carry(far, near)])
        way
          // Broken connections are what this is about.
          .catch(() => undefined)
          .finally(() => {
            near.destroySoon()
            far.destroySoon()
          })
    }).listen(Number(port), host, () => process.send?.('listening'))
  }
  process.on('message', (message) => {
    fault = message as WireFault
    if (fault.mode === 'cut') {
      for (const socket of sockets) socket.destroy()
      fault = { mode: 'pass' }
    }
  })
  process.on('disconnect', () => process.exit(0))
}

if (process.argv[1] === import.meta.filename) main()
