/**
 * A protection in one process: the real Primary and Standby over real sockets, and a guest whose memory is real but
 * whose processor is a script. Its device state is a digest of its memory at the pause, so a takeover proves by itself
 * that image and device state belong together.
 */
import { once } from 'node:events'
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { asSubpageError, SubpageError } from '../../src/errors.ts'
import { hashBlocksSync } from '../../src/memory/hash.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'
import { release } from '../../src/release.ts'
import {
  admit,
  greet,
  type Present,
  refuseOurselves,
  sharesArbiter,
} from '../../src/replication/admission.ts'
import type { Arbiter, Holder } from '../../src/replication/arbiter.ts'
import { type Clock, realClock } from '../../src/replication/clock.ts'
import { Connection } from '../../src/replication/connection.ts'
import {
  type DiskImage,
  type DiskJournal,
  type GuestDisks,
  noDisks,
  noJournal,
} from '../../src/replication/disks.ts'
import type { GuestEnd } from '../../src/replication/guest.ts'
import { type Image, wholeImage } from '../../src/replication/image.ts'
import { type Hello, protocolVersion } from '../../src/replication/messages.ts'
import { type PauseLimits, pauseLimits } from '../../src/replication/pause-limits.ts'
import { Primary } from '../../src/replication/primary.ts'
import type { PrimaryOptions } from '../../src/replication/primary-options.ts'
import type { Durability, Sending } from '../../src/replication/sending.ts'
import { Standby } from '../../src/replication/standby.ts'
import type { StandbyOutcome } from '../../src/replication/standby-options.ts'
import { Succession } from '../../src/replication/succession.ts'
import type { EarlyHarvest, Tracker } from '../../src/tracking/tracker.ts'
import type { SeededRandom } from '../support/random.ts'

/** Two ends of one TCP connection on this machine. */
export async function socketPair(): Promise<[Socket, Socket]> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const left = createConnection(portOf(server), '127.0.0.1')
  const [[right]] = (await Promise.all([once(server, 'connection'), once(left, 'connect')])) as [[Socket], []]
  server.close()
  // A test that resets a connection looks at the Connection, not at the socket.
  for (const socket of [left, right]) socket.on('error', () => undefined)
  return [left, right]
}

export function portOf(server: Server): number {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the server does not listen')
  return address.port
}

export async function dial(port: number): Promise<Socket> {
  const socket = createConnection({ port, host: '127.0.0.1', noDelay: true })
  await once(socket, 'connect')
  return socket
}

/** The arbiter's contract, within this process. */
export class ScriptedArbiter implements Arbiter {
  readonly description = 'the test'
  memory = 0
  readonly #decisions = new Map<string, Holder>()
  readonly #marks = new Set<string>()
  reachable = true

  async claim(guest: string, generation: number, claimant: string): Promise<Holder> {
    if (!this.reachable) throw new SubpageError('ARBITER_UNREACHABLE', 'the test says so')
    const key = `${guest} ${generation}`
    const holder = this.#decisions.get(key) ?? { claimant, generation, at: new Date().toISOString() }
    this.#decisions.set(key, holder)
    return holder
  }

  async holder(guest: string, generation: number): Promise<Holder | undefined> {
    return this.#decisions.get(`${guest} ${generation}`)
  }

  async leaveMark(mark: string): Promise<void> {
    this.#marks.add(mark)
  }

  async seesMark(mark: string): Promise<boolean> {
    return this.#marks.has(mark)
  }

  close(): void {}
}

/** Silence is tested elsewhere: here a peer may be slow. */
const patientMs = 60_000

/** The machine's time, and what a test has let pass beside. */
export class WarpedClock implements Clock {
  #passedMs = 0
  readonly sleep = realClock.sleep
  readonly after = realClock.after
  now(): number {
    return realClock.now() + this.#passedMs
  }
  pass(ms: number): void {
    this.#passedMs += ms
  }
}

export function helloFor({ pages, name = 'script' }: { pages: number; name?: string }): Hello {
  return {
    protocol: protocolVersion,
    release,
    guest: {
      id: '00000000-0000-4000-8000-000000000000',
      name,
      memoryBytes: pages * pageBytes,
      diskBytes: [],
      hypervisor: { kind: 'script' },
    },
    source: {
      host: 'primary',
      claimant: 'primary',
      address: 'primary:1',
      bootId: 'this boot',
      process: { pid: 1, startTime: '1' },
    },
    generation: 1,
    settings: {
      epochMs: 2,
      suspicionMs: patientMs,
      outputs: 'held',
      tracker: 'auto',
      codec: 'masked',
      ...everyPart,
    },
  }
}

/** Deltas go through all that makes them smaller. */
const everyPart: Sending = {
  reduce: ['dictionary', 'sharing', 'similar'],
  blockBytes: 256,
  compress: 'zstd',
  speculate: 'auto',
}

export function successionFor(
  claimant: string,
  arbiter: Arbiter | undefined,
  save: () => Promise<void> = async () => undefined,
): Succession {
  const { guest, generation } = helloFor({ pages: 1 })
  return new Succession({
    arbitrated: true,
    guest: guest.id,
    claimant,
    generation,
    arbiter,
    save,
  })
}

export function digestOf(region: Region): string {
  return Buffer.from(hashBlocksSync(region, PageRanges.all(region.pages), pageBytes)).toString('hex')
}

/** Things that a test lets go wrong, each called where its name says. */
interface Mishaps {
  pause?(): void
  harvest?(): void
  resume?(): { valid: boolean }
}

/** A guest of the Guest interface. Its memory changes only through `write` and only while it runs. */
export class ScriptedGuest {
  readonly description
  readonly ram: Region
  readonly ended: Promise<GuestEnd>
  alive = true
  pauseMsMax = 2_000
  disks: GuestDisks = noDisks
  trackerName: Tracker['name'] = 'userfault'
  openTrackers = 0
  end: (end: GuestEnd) => void = () => undefined
  mishaps: Mishaps = {}
  paused = false
  /** What memory was at each pause, by `consoleBytes`, which counts the pauses. */
  readonly history = new Map<number, string>()
  consoleBytes = 0
  readonly #dirty = new Set<number>()
  readonly #random: SeededRandom

  constructor(pages: number, random: SeededRandom) {
    this.description = helloFor({ pages }).guest
    this.ram = Region.anonymous(pages * pageBytes)
    this.#random = random
    this.ended = new Promise((resolve) => {
      this.end = (end) => {
        this.alive = false
        resolve(end)
      }
    })
  }

  /** Also used to write behind the tracker's back. */
  write(offset: number, data: Uint8Array, tracked = true): void {
    if (this.paused) throw new Error('a guest that stands still cannot write')
    this.ram.write(offset, data)
    const last = Math.floor((offset + data.length - 1) / pageBytes)
    if (tracked) for (let p = Math.floor(offset / pageBytes); p <= last; p++) this.#dirty.add(p)
  }

  /** A few writes as programs make them: words, lines, whole pages, zeros. */
  work(writes = 8): void {
    const { integer } = this.#random
    for (let n = 0; n < writes && !this.paused; n++) {
      const page = integer(0, this.ram.pages - 1)
      const kind = integer(0, 3)
      const length = [8, 64, pageBytes, pageBytes][kind]!
      const offset = page * pageBytes + (length < pageBytes ? integer(0, pageBytes / length - 1) * length : 0)
      this.write(offset, new Uint8Array(length).fill(kind === 3 ? 0 : integer(1, 255)))
    }
  }

  track(): Tracker {
    let everything = true
    const early: EarlyHarvest = {
      peek: () => (everything ? PageRanges.empty : PageRanges.of([...this.#dirty].map((page) => [page, 1]))),
      harvest: (within) => {
        const pages = [...this.#dirty].filter((page) => within.has(page))
        for (const page of pages) this.#dirty.delete(page)
        return PageRanges.of(pages.map((page) => [page, 1]))
      },
    }
    const compares = this.trackerName === 'compare'
    this.openTrackers++
    return {
      name: this.trackerName,
      fallback: undefined,
      early: compares ? undefined : early,
      harvest: () => {
        const all = everything || compares
        everything = true
        this.mishaps.harvest?.()
        everything = false
        const dirty = PageRanges.of([...this.#dirty].map((page) => [page, 1] as const))
        this.#dirty.clear()
        return all ? PageRanges.all(this.ram.pages) : dirty
      },
      close: () => void this.openTrackers--,
    }
  }

  async pause() {
    this.mishaps.pause?.()
    this.paused = true
    this.consoleBytes++
    const digest = digestOf(this.ram)
    this.history.set(this.consoleBytes, digest)
    const deviceState = Buffer.from(digest)
    return {
      deviceState: async () => deviceState,
      resume: async () => {
        this.paused = false
        const { valid } = this.mishaps.resume?.() ?? { valid: true }
        return { valid, pauseUs: 1, flushUs: 0 }
      },
    }
  }

  supersede(detail: string): void {
    this.end({ how: 'superseded', detail })
  }

  async holdOutputs(): Promise<void> {}
  async freeOutputs(): Promise<void> {}
  async releaseOutputs(): Promise<void> {}
  outputPending(): undefined {}
}

/** A machine of the WaitingGuest interface. */
export class ScriptedWaiting {
  readonly image: Region
  readonly ended = new Promise<GuestEnd>(() => undefined)
  /** Whether the image was what the device state said, at the takeover. */
  whole: boolean | undefined
  discarded = false
  /** A takeover waits for it, and so does its end. */
  gate: Promise<void> = Promise.resolve()
  refuses: Error | undefined

  constructor(pages: number) {
    this.image = Region.anonymous(pages * pageBytes)
  }

  async takeOver(deviceState: Uint8Array, begin: () => void): Promise<void> {
    if (this.refuses) throw this.refuses
    await this.gate
    begin()
    this.whole = digestOf(this.image) === Buffer.from(deviceState).toString()
  }

  async discard(): Promise<void> {
    this.discarded = true
    await this.gate
  }
}

/** The standby's host: answers connections as an agent does, for one guest. */
export class ScriptedHost {
  readonly server: Server
  readonly waiting: ScriptedWaiting
  readonly refused: SubpageError[] = []
  readonly states: string[] = []
  readonly outcome: Promise<StandbyOutcome>
  /** Whether the primary's guest is known to be gone. */
  gone: boolean | undefined
  standby: Standby | undefined
  /** Its identity, and what is on it in place of a standby. */
  claimant = 'standby'
  present: Present | undefined
  /** Writes down what its succession has learned. */
  save = async (): Promise<void> => undefined
  /** As the standby uses it. */
  image: Image
  disks: DiskImage[] = []
  journal: DiskJournal = noJournal
  readonly #arbiter: Arbiter | undefined
  readonly #sockets = new Set<Socket>()
  #ended: (outcome: StandbyOutcome) => void = () => undefined

  readonly #clock: Clock

  constructor(pages: number, arbiter?: Arbiter, clock: Clock = realClock) {
    this.#arbiter = arbiter
    this.#clock = clock
    this.waiting = new ScriptedWaiting(pages)
    this.image = wholeImage(this.waiting.image)
    this.outcome = new Promise((resolve) => {
      this.#ended = resolve
    })
    this.server = createServer({ noDelay: true }, (socket) => void this.#answer(socket))
  }

  async listen(): Promise<this> {
    this.server.listen(0, '127.0.0.1')
    await once(this.server, 'listening')
    return this
  }

  get port(): number {
    return portOf(this.server)
  }

  dropConnections(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  /** The digest of what the image must hold now; undefined when the standby says that it has no whole checkpoint. */
  committedIn(history: Map<number, string>): string | undefined {
    const committed = this.standby?.committed
    return committed && history.get(committed.consoleBytes)
  }

  close(): void {
    this.server.close()
    this.dropConnections()
    // Ends its watch; a takeover that failed has ended it already.
    this.standby?.discard('the test is over').catch(() => undefined)
  }

  async #answer(socket: Socket): Promise<void> {
    this.#sockets.add(socket)
    socket.once('close', () => this.#sockets.delete(socket))
    const connection = new Connection(socket)
    try {
      const { frames, hello } = await greet(connection)
      const present: Present = this.standby
        ? { kind: 'standby', standby: this.standby }
        : (this.present ?? { kind: 'nothing' })
      refuseOurselves(hello, this.claimant, present)
      const arbitrated = this.#arbiter ? await sharesArbiter(hello, this.#arbiter, true) : false
      await admit(hello, present)
      this.standby ??= this.#start(hello)
      await this.standby.serve(connection, frames, hello, arbitrated)
    } catch (thrown) {
      const error = asSubpageError(thrown)
      this.refused.push(error)
      await connection.refuse(error)
    }
  }

  #start(hello: Hello): Standby {
    const standby = new Standby({
      guest: this.waiting,
      image: this.image,
      disks: this.disks,
      journal: this.journal,
      hello,
      succession: successionFor(this.claimant, this.#arbiter, () => this.save()),
      sourceGone: () => this.gone,
      clock: this.#clock,
      faults: () => undefined,
    })
    standby.on('state', (state, reason) => this.states.push(reason ? `${state}: ${reason}` : state))
    standby.once('outcome', this.#ended)
    return standby
  }
}

export interface PairOptions {
  pages?: number
  epochMs?: number
  random: SeededRandom
  /** Whom both ask; without it only commands decide. */
  arbiter?: Arbiter
  /** Beside what makes deltas smaller. */
  sending?: Sending
  limits?: Partial<PauseLimits>
  suspicionMs?: number
  durability?: Durability
  /** Of the standby. */
  clock?: Clock
  /** Instead of a direct connection to the host. */
  connect?: (port: number) => Promise<Duplex>
}

/** A guest that works, its primary and its standby. Disposing ends all of it. */
export class Pair {
  readonly guest: ScriptedGuest
  readonly host: ScriptedHost
  readonly options: PrimaryOptions
  readonly arbiter: Arbiter | undefined
  primary: Primary | undefined
  /** How often the primary has called its standby. */
  connections = 0
  readonly #worker: NodeJS.Timeout

  private constructor(
    guest: ScriptedGuest,
    host: ScriptedHost,
    {
      epochMs = 2,
      connect = dial,
      arbiter,
      sending,
      limits,
      suspicionMs = patientMs,
      durability,
    }: PairOptions,
  ) {
    this.guest = guest
    this.host = host
    this.arbiter = arbiter
    const { port } = host
    this.options = {
      guest,
      hello: async () => {
        const { generation } = this.options.succession
        await arbiter?.leaveMark('seen')
        const hello = helloFor({ pages: guest.ram.pages })
        const settings = { ...hello.settings, suspicionMs, ...(durability && { durability }) }
        return { ...hello, settings, generation, ...(arbiter && { mark: 'seen' }) }
      },
      connect: () => {
        this.connections++
        return connect(port)
      },
      tracker: 'auto',
      codec: 'masked',
      sending: { ...everyPart, ...sending },
      pace: { epochMs },
      limits: { ...pauseLimits, ...limits },
      suspicionMs,
      outputs: 'held',
      succession: successionFor('primary', arbiter),
      exposed: false,
      clock: realClock,
      faults: () => undefined,
    }
    this.#worker = setInterval(() => guest.paused || guest.work(), 1)
  }

  static async make(options: PairOptions): Promise<Pair> {
    const pages = options.pages ?? 64
    const host = await new ScriptedHost(pages, options.arbiter, options.clock).listen()
    return new Pair(new ScriptedGuest(pages, options.random), host, options)
  }

  async protect(): Promise<Primary> {
    this.primary = await Primary.start(this.options)
    return this.primary
  }

  /** Runs `write` at once, or when the guest runs again. */
  async whileRunning(write: () => void): Promise<void> {
    while (this.guest.paused) await new Promise(setImmediate)
    write()
  }

  rest(): void {
    clearInterval(this.#worker)
  }

  /** Waits for `count` more committed epochs. */
  async epochs(count: number): Promise<void> {
    for (let n = 0; n < count; n++) if (this.primary) await once(this.primary, 'epoch')
  }

  /** Whether the image is the checkpoint that the standby says it is. Only between two frames. */
  imageIsCommitted(): boolean {
    const committed = this.host.committedIn(this.guest.history)
    return committed !== undefined && committed === digestOf(this.host.waiting.image)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.rest()
    this.host.close()
    await this.primary?.detach()
    this.guest.ram.close()
  }
}
