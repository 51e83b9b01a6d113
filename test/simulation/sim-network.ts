/**
 * A network of two hosts with the manners of TCP: bytes arrive in order or not at all; while the link is cut they wait and
 * come when it heals; a reset may reach one side only, or get lost; the other side of a lost host stays half open until it
 * sends something to a host that is back. What is between the hosts may cut a message short, damage it, or repeat a whole
 * attempt to connect much later.
 */
import { Duplex } from 'node:stream'
import { SubpageError } from '../../src/errors.ts'
import type { SeededRandom } from '../support/random.ts'
import type { SimTime } from './sim-clock.ts'
import type { SimProcess } from './sim-process.ts'

/** A machine on the network: whether it has power, and who listens. */
export interface Station {
  name: string
  alive: boolean
  listener: { process: SimProcess; accept: (stream: Duplex, from: string) => void } | undefined
}

type Segment = { kind: 'data'; bytes: Uint8Array } | { kind: 'end' } | { kind: 'reset' }

/** Written and not yet delivered: beyond it a writer waits. */
const sendBufferBytes = 256 * 1024
const connectMs = 10_000

export class SimNetwork {
  readonly time: SimTime
  readonly random: SeededRandom
  readonly sockets = new Set<SimSocket>()
  up = true
  /** One way, milliseconds, least and most. */
  delayMs: [number, number] = [0.2, 1]
  bytesPerMs = 1e6
  /** An attempt to connect may take this much longer: later ones overtake it. */
  connectDelayMs = 0
  /** An address has come to lead somewhere else: whoever calls from here gets that host. */
  readonly misled = new Map<Station, Station>()
  #hello: { from: string; to: Station; bytes: Uint8Array } | undefined

  constructor(time: SimTime, random: SeededRandom) {
    this.time = time
    this.random = random
  }

  delay(): number {
    const [least, most] = this.delayMs
    return least + ((most - least) * this.random.integer(0, 1000)) / 1000
  }

  cut(): void {
    this.up = false
  }

  /** The link, or a host, is back: what waits is sent again. */
  heal(): void {
    this.up = true
    this.retry()
  }

  retry(): void {
    for (const socket of this.sockets) socket.wire.go(this.random.integer(0, 200))
  }

  connect(process: SimProcess, from: Station, called: Station): Promise<Duplex> {
    const startedAt = this.time.nowMs
    return process.ask((answer, fail) => {
      const unreachable = (why: string) =>
        fail(new SubpageError('PEER_UNREACHABLE', `no supervisor answers: ${why}`))
      const knock = () => {
        const to = this.misled.get(from) ?? called
        if (this.time.nowMs - startedAt > connectMs) return unreachable('no answer in time')
        if (!this.up || !to.alive || !from.alive) {
          this.time.after(this.random.integer(200, 1000), knock)
          return
        }
        const { listener } = to
        if (!listener) {
          this.time.after(this.delay(), () => unreachable('refused'))
          return
        }
        const client = new SimSocket(this, process, from)
        const server = new SimSocket(this, listener.process, to)
        client.join(server)
        listener.process.enter(() => listener.accept(server, from.name))
        this.time.after(this.delay(), () => answer(client))
      }
      this.time.after(this.delay() + this.random.integer(0, this.connectDelayMs), knock)
    })
  }

  /** Its kernel closes what it had open; nobody does when the host has no power. */
  ended(process: SimProcess, station: Station): void {
    for (const socket of this.sockets) if (socket.process === process) socket.orphan(station.alive)
  }

  /** Something in between resets all connections: for one side or for both. */
  reset(sides: 'both' | 'one'): void {
    const chosen = [...this.sockets].filter((socket) => socket.open)
    const skipped = sides === 'one' ? this.random.integer(0, 1) : -1
    chosen.forEach((socket, index) => {
      if (index % 2 !== skipped) socket.receive({ kind: 'reset' })
    })
  }

  /** The next message in flight arrives cut short, and nothing after it; or with a byte that is wrong. */
  hurt(how: 'truncate' | 'damage'): void {
    const busy = [...this.sockets].filter((socket) => socket.wire.busy)
    if (busy.length > 0) busy[this.random.integer(0, busy.length - 1)]!.wire.hurt(how)
  }

  noteHello(from: string, to: Station, bytes: Uint8Array): void {
    this.#hello = { from, to, bytes }
  }

  /** The last hello comes once more, on a connection behind which there is nobody. */
  replay(): void {
    const hello = this.#hello
    const listener = hello?.to.listener
    if (!hello || !listener || !hello.to.alive) return
    const ghost = new SimSocket(this, listener.process, hello.to)
    listener.process.enter(() => listener.accept(ghost, hello.from))
    ghost.receive({ kind: 'data', bytes: hello.bytes })
    if (this.random.integer(0, 1)) this.time.after(this.delay() * 5, () => ghost.receive({ kind: 'reset' }))
  }
}

/** What travels from one socket to the other. */
class Wire {
  readonly #network: SimNetwork
  readonly #socket: SimSocket
  readonly #queue: { atMs: number; segment: Segment }[] = []
  #lastMs = 0
  #bytes = 0
  #cancel: (() => void) | undefined
  #waiting: (() => void)[] = []

  constructor(network: SimNetwork, socket: SimSocket) {
    this.#network = network
    this.#socket = socket
  }

  get busy(): boolean {
    return this.#queue.length > 0
  }

  send(segment: Segment, taken?: () => void): void {
    const { time, bytesPerMs } = this.#network
    const length = segment.kind === 'data' ? segment.bytes.length : 0
    const atMs = Math.max(this.#lastMs, time.nowMs + this.#network.delay()) + length / bytesPerMs
    this.#lastMs = atMs
    this.#bytes += length
    this.#queue.push({ atMs, segment })
    if (taken) this.#waiting.push(taken)
    this.#unblock()
    if (this.#queue.length === 1) this.go(0)
  }

  /** @param againMs until it is tried once more after an interruption */
  go(againMs: number): void {
    this.#cancel?.()
    this.#cancel = undefined
    const first = this.#queue[0]
    if (!first) return
    const { time } = this.#network
    this.#cancel = time.after(Math.max(againMs, first.atMs - time.nowMs), () => {
      this.#cancel = undefined
      if (!this.#network.up || !this.#socket.reachesPeer) return
      const { segment } = this.#queue.shift()!
      if (segment.kind === 'data') this.#bytes -= segment.bytes.length
      this.#unblock()
      this.#socket.deliver(segment)
      this.go(0)
    })
  }

  hurt(how: 'truncate' | 'damage'): void {
    const { segment } = this.#queue[0]!
    if (segment.kind !== 'data') return
    const at = this.#network.random.integer(0, segment.bytes.length - 1)
    if (how === 'damage') {
      segment.bytes[at]! ^= 1 << this.#network.random.integer(0, 7)
      return
    }
    segment.bytes = segment.bytes.subarray(0, at)
    this.#queue.splice(1, this.#queue.length, { atMs: this.#lastMs, segment: { kind: 'reset' } })
  }

  #unblock(): void {
    if (this.#bytes > sendBufferBytes) return
    for (const taken of this.#waiting.splice(0)) taken()
  }
}

class SimSocket extends Duplex {
  readonly process: SimProcess
  readonly wire: Wire
  readonly #network: SimNetwork
  readonly #station: Station
  #peer: SimSocket | undefined
  #greeted = false
  #ended = false
  /** Fails the write that is under way. */
  #giveUp: () => void = () => undefined
  /** As the kernel sees it. */
  open = true

  constructor(network: SimNetwork, process: SimProcess, station: Station) {
    super({ allowHalfOpen: false })
    this.#network = network
    this.process = process
    this.#station = station
    this.wire = new Wire(network, this)
    network.sockets.add(this)
    // It may be reset before anybody has taken it.
    this.on('error', () => undefined)
  }

  join(peer: SimSocket): void {
    this.#peer = peer
    peer.#peer = this
  }

  get stationName(): string {
    return this.#station.name
  }

  get reachesPeer(): boolean {
    return this.#station.alive && (this.#peer === undefined || this.#peer.#station.alive)
  }

  deliver(segment: Segment): void {
    const peer = this.#peer
    if (!peer) return
    if (segment.kind === 'data' && segment.bytes.length > 1 && this.#network.random.integer(0, 9) === 0) {
      const at = this.#network.random.integer(1, segment.bytes.length - 1)
      peer.receive({ kind: 'data', bytes: segment.bytes.subarray(0, at) })
      peer.receive({ kind: 'data', bytes: segment.bytes.subarray(at) })
    } else peer.receive(segment)
  }

  /** At this socket's host. */
  receive(segment: Segment): void {
    if (!this.#station.alive) return
    if (!this.open) {
      if (segment.kind === 'data') this.#answerWithReset()
      return
    }
    if (segment.kind === 'reset') this.#close()
    if (segment.kind === 'data' && !this.#greeted) {
      this.#greeted = true
      if (this.#station.listener?.process === this.process)
        this.#network.noteHello(this.#peer?.stationName ?? '', this.#station, segment.bytes)
    }
    this.process.enter(() => {
      if (this.destroyed || this.#ended) return
      this.#ended = segment.kind === 'end'
      if (segment.kind === 'data') this.push(segment.bytes)
      else if (segment.kind === 'end') this.push(null)
      else this.destroy(new Error('read ECONNRESET'))
    })
  }

  /** Its process has ended. */
  orphan(hostAlive: boolean): void {
    if (!this.open) return
    this.#close()
    if (hostAlive) this.wire.send(this.#network.random.integer(0, 1) ? { kind: 'end' } : { kind: 'reset' })
  }

  override _read(): void {
    // Everything is pushed as it comes.
  }

  override _write(chunk: Uint8Array, _: BufferEncoding, done: () => void): void {
    this.#transmit([chunk], done)
  }

  override _writev(chunks: { chunk: Uint8Array }[], done: () => void): void {
    this.#transmit(
      chunks.map(({ chunk }) => chunk),
      done,
    )
  }

  override _final(done: () => void): void {
    this.process.leave(() => {
      this.wire.send({ kind: 'end' })
      done()
    })
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.process.leave(() => {
      if (this.open) {
        this.#close()
        this.wire.send(this.readableLength > 0 ? { kind: 'reset' } : { kind: 'end' })
      }
    })
    done(error)
    this.#giveUp()
  }

  #transmit(chunks: Uint8Array[], done: (error?: Error) => void): void {
    let waits = true
    const settle = (error?: Error) => {
      if (waits) this.process.enter(() => done(error))
      waits = false
    }
    this.#giveUp = () => settle(new Error('write ECANCELED'))
    this.process.leave(() => {
      if (!this.open) return settle(new Error('write EPIPE'))
      this.wire.send({ kind: 'data', bytes: Buffer.concat(chunks) }, () => process.nextTick(settle))
    })
  }

  #close(): void {
    this.open = false
    if (!this.#peer?.open) {
      this.#network.sockets.delete(this)
      if (this.#peer) this.#network.sockets.delete(this.#peer)
    }
  }

  /** Lost when the link is. */
  #answerWithReset(): void {
    const { time } = this.#network
    const peer = this.#peer
    time.after(this.#network.delay(), () => {
      if (peer && this.#network.up && this.#station.alive) peer.receive({ kind: 'reset' })
    })
  }
}
