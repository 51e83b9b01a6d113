/** One side of a protection played by hand, against the real other side: peers that break the protocol. */
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { onTestFinished } from 'vitest'
import { captureSync } from '../../src/delta/capture.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'
import type { Arbiter } from '../../src/replication/arbiter.ts'
import { realClock } from '../../src/replication/clock.ts'
import { Connection } from '../../src/replication/connection.ts'
import { DeviceStateWriter } from '../../src/replication/device-state.ts'
import { type Frame, type FrameType, frameType } from '../../src/replication/frame.ts'
import { encodeCommit, type Hello } from '../../src/replication/messages.ts'
import { pauseLimits } from '../../src/replication/pause-limits.ts'
import { Primary } from '../../src/replication/primary.ts'
import type { Succession } from '../../src/replication/succession.ts'
import type { SeededRandom } from '../support/random.ts'
import { helloFor } from './pair.ts'
import { ScriptedGuest } from './scripted-guest.ts'
import { ScriptedHost, successionFor } from './scripted-host.ts'
import { dial, portOf } from './sockets.ts'

export const pages = 64

/** A connection whose frames a test sends and awaits one by one. */
export class Peer {
  readonly socket: Socket
  readonly connection: Connection
  /** Settles when the other side has closed. */
  readonly ended: Promise<void>
  readonly #devices = new DeviceStateWriter()
  readonly #received: Frame[] = []
  readonly #heard = new Map<FrameType, () => void>()
  #wake = () => {}
  #done = false

  constructor(socket: Socket) {
    this.socket = socket
    this.connection = new Connection(socket)
    this.ended = this.#read()
  }

  async #read(): Promise<void> {
    try {
      for await (const frame of this.connection) {
        this.#received.push(frame)
        this.#heard.get(frame.type)?.()
        this.#wake()
      }
    } catch {
      // Reset by the other side, which is an end like any other here.
    }
    this.#done = true
    this.#wake()
  }

  async sendDevice(epoch: number, state: string): Promise<void> {
    await this.connection.send(frameType.device, epoch, this.#devices.encode(Buffer.from(state)))
  }

  async next(): Promise<Frame> {
    for (;;) {
      const frame = this.#received.shift()
      if (frame) return frame
      if (this.#done) throw new Error('the connection ended')
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  /** The next frame of this type; others before it are dropped. */
  async answer(type: FrameType): Promise<Frame> {
    for (;;) {
      const frame = await this.next()
      if (frame.type === type) return frame
    }
  }

  /** Resolves when such a frame has come, whoever takes it. */
  async heard(type: FrameType): Promise<void> {
    await new Promise<void>((resolve) => this.#heard.set(type, resolve))
  }

  /** The code and message that the other side refuses with. */
  async refusal(): Promise<{ code: string; message: string }> {
    const { payload } = await this.answer(frameType.refuse)
    return JSON.parse(Buffer.from(payload).toString())
  }
}

/** A delta that makes whole pages of one byte each: {page: byte}. */
export function delta(content: Record<number, number>, imagePages = pages): Buffer {
  const ram = Region.anonymous(imagePages * pageBytes)
  const shadow = Region.anonymous(imagePages * pageBytes)
  const numbers = Object.keys(content).map(Number)
  for (const page of numbers) ram.write(page * pageBytes, Buffer.alloc(pageBytes, content[page]))
  const out = new Uint8Array(2 ** 20)
  const ranges = PageRanges.of(numbers.map((page) => [page, 1] as const))
  const { bytes } = captureSync(ram, shadow, ranges, { codec: 'masked', whole: true, out })
  ram.close()
  shadow.close()
  return Buffer.from(out.subarray(0, bytes))
}

export const commitOf = (deltas: Uint8Array[], consoleBytes = 0): Uint8Array =>
  encodeCommit({
    deltas: deltas.length,
    deltaBytes: deltas.reduce((sum, { length }) => sum + length, 0),
    diskFrames: 0,
    consoleBytes,
    digest: 0n,
    suspended: false,
  })

export async function sendCheckpoint(peer: Peer, epoch: number, deltas: Uint8Array[]): Promise<void> {
  for (const bytes of deltas) await peer.connection.send(frameType.pages, epoch, bytes)
  await peer.sendDevice(epoch, `state ${epoch}`)
  await peer.connection.send(frameType.commit, epoch, commitOf(deltas))
}

/** A real standby, and us as its primary. */
export async function asPrimary(prepare: (host: ScriptedHost) => void = () => undefined): Promise<{
  host: ScriptedHost
  peer: Peer
  reconnect: () => Promise<Peer>
}> {
  const host = await new ScriptedHost(pages).listen()
  host.source = 'runs'
  prepare(host)
  onTestFinished(() => host.close())
  const connect = async (hello: Hello) => {
    const peer = new Peer(await dial(host.port))
    onTestFinished(() => peer.connection.close())
    await peer.connection.sendJson(frameType.hello, hello)
    await peer.answer(frameType.welcome)
    return peer
  }
  const reconnect = () => connect(helloFor({ pages }))
  return { host, peer: await reconnect(), reconnect }
}

/** A real primary, and us as its standby: `play` is called for each connection, after its hello. */
export async function asStandby(
  random: SeededRandom,
  play: (peer: Peer) => Promise<void>,
  arbiter?: Arbiter,
): Promise<{
  guest: ScriptedGuest
  succession: Succession
  connections: () => number
  protect: () => Promise<Primary>
}> {
  let connections = 0
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    connections++
    const peer = new Peer(socket)
    sockets.add(socket)
    peer
      .answer(frameType.hello)
      .then(() => play(peer))
      // The primary has hung up, which the test looks at from the other side.
      .catch(() => undefined)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const guest = new ScriptedGuest(pages, random)
  const succession = successionFor('primary', arbiter)
  let primary: Primary | undefined
  onTestFinished(async () => {
    server.close()
    for (const socket of sockets) socket.destroy()
    await primary?.detach()
    guest.ram.close()
  })
  return {
    guest,
    succession,
    connections: () => connections,
    protect: async () => {
      primary = await Primary.start({
        guest,
        hello: async () => helloFor({ pages }),
        connect: () => dial(portOf(server)),
        tracker: 'auto',
        codec: 'masked',
        pace: { epochMs: 2 },
        limits: pauseLimits,
        hotPages: undefined,
        suspicionMs: 60_000,
        outputs: 'held',
        succession,
        exposed: false,
        clock: realClock,
        faults: () => undefined,
      })
      return primary
    },
  }
}

export const welcome = (peer: Peer, imagePages = pages, arbitrated = false): Promise<void> =>
  peer.connection.sendJson(frameType.welcome, {
    release: 'any',
    claimant: 'standby',
    imagePages,
    image: 'fresh',
    arbitrated,
    disks: [],
  })

/** Acknowledges every commit up to an epoch. */
export async function acknowledge(peer: Peer, last = Number.POSITIVE_INFINITY): Promise<void> {
  for (;;) {
    const { epoch } = await peer.answer(frameType.commit)
    if (epoch > last) return
    await peer.connection.send(frameType.ack, epoch)
  }
}
