/** A protection in one process: the real Primary and Standby over real sockets, with a scripted guest (scripted-guest.ts, scripted-host.ts). */
import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { expect, onTestFinished } from 'vitest'
import { pageBytes } from '../../src/memory/page.ts'
import { release } from '../../src/release.ts'
import type { Arbiter } from '../../src/replication/arbiter.ts'
import { type Clock, realClock } from '../../src/replication/clock.ts'
import { type Hello, protocolVersion } from '../../src/replication/messages.ts'
import { type PauseLimits, pauseLimits } from '../../src/replication/pause-limits.ts'
import { Primary } from '../../src/replication/primary.ts'
import type { PrimaryOptions } from '../../src/replication/primary-options.ts'
import type { Durability, Sending } from '../../src/replication/sending.ts'
import type { HotPageCosts } from '../../src/tracking/hot-pages.ts'
import type { SeededRandom } from '../support/random.ts'
import { digestOf, ScriptedGuest } from './scripted-guest.ts'
import { ScriptedHost, successionFor } from './scripted-host.ts'
import { dial } from './sockets.ts'

/** Silence is tested elsewhere: here a peer may be slow. */
const patientMs = 60_000

/** The machine's time, and what a test has let pass beside. */
export class WarpedClock implements Clock {
  #passedMs = 0
  readonly sleep = realClock.sleep
  readonly after = realClock.after
  readonly afterInput = realClock.afterInput
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

/** A page is left unarmed when it has changed in half of the last epochs. */
const eagerCosts: HotPageCosts = { faultNs: 1000, compareNs: 200, runNs: 100 }

/** Deltas go through all that makes them smaller. */
const everyPart: Sending = {
  reduce: ['dictionary', 'sharing', 'similar'],
  blockBytes: 256,
  compress: 'zstd',
  speculate: 'auto',
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
      hotPages: eagerCosts,
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

/** Ends with the test. */
export async function startPair(options: PairOptions): Promise<Pair> {
  const pair = await Pair.make(options)
  onTestFinished(() => pair[Symbol.asyncDispose]())
  return pair
}

/** And its first checkpoints are committed. */
export async function protectedPair(options: PairOptions): Promise<Pair> {
  const pair = await startPair(options)
  await pair.protect()
  await pair.epochs(3)
  return pair
}

export const stateOf = (pair: Pair) =>
  expect.poll(() => pair.primary?.state, { timeout: 10_000, interval: 5 })

/** Waits until guest and image are equal, with nobody writing. @param seed by which a test says how to repeat it */
export async function expectEqualAtRest(pair: Pair, seed: number): Promise<void> {
  pair.rest()
  await stateOf(pair).toBe('Protected')
  expect(await pair.primary?.verify(), `seed ${seed}`).toMatchObject({ equal: true })
  expect(digestOf(pair.guest.ram) === digestOf(pair.host.waiting.image), `seed ${seed}`).toBe(true)
}
