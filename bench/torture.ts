/**
 * Torture: two hosts, a guest that two witnesses watch, and one fault after the other. The witnesses are a client that adds
 * numbers over one TCP connection and knows each answer, and the victim program in the guest, whose memory proves itself.
 * After each fault everything is healed, and the guest must run in one place, protected, with nothing lost.
 *
 * SUBPAGE_TEST_SEED repeats a series of faults (their moments too, but not what the machine does meanwhile).
 */
import { execFileSync } from 'node:child_process'
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { GuestStatus } from '../src/agent/status.ts'
import { packageRoot } from '../src/memory/native.ts'
import {
  askVictim,
  type Console,
  consoleAt,
  demoGuestOptions,
  readConsole,
  typeLine,
  untilConsole,
  victimDamage,
  victimLines,
} from '../src/qemu/demo-guest.ts'
import { identify, isRunning } from '../src/qemu/process.ts'
import { type FaultPoint, faultPoints } from '../src/replication/fault.ts'
import { sendingDefault } from '../src/replication/sending.ts'
import type { Connection } from '../test/support/network.ts'
import { type SeededRandom, seededRandom } from '../test/support/random.ts'
import { type TestHost, TwoHosts } from '../test/support/two-hosts.ts'
import type { WireFault } from '../test/support/wire-proxy.ts'
import type { BenchOptions, BenchResult } from './main.ts'

const guestAddress = '10.78.0.2'
const name = 'tortured'
const ramBytes = 160 * 2 ** 20
const victimArguments = ['mib=8', 'rate=300']
/** Everything is whole again within this time after a fault, or the run has failed. */
const healMs = 45_000
const answerMsMax = 120_000
const addsAfter = 20

export interface Torture {
  runs: number
  failovers: number
  /** Answers that the client got and that do not hold any more. */
  acknowledgedLost: number
  /** Times that a copy put out frames after another one had. */
  splitBrain: number
  /** Times that the victim found its memory damaged, or not to be what its history must have led to. */
  tornGuests: number
  /** Guests that ran nowhere any more. */
  guestsLost: number
  tcpResets: number
  /** Runs that were not whole again in time. */
  notHealed: number
  takeoverMs: { p50: number; p99: number }
  /** The longest wait of the client in each run with a failover. */
  clientWaitMs: { p50: number; p99: number }
  adds: number
  seed: number
  faults: Record<string, number>
  errors: string[]
}

/** SIGINT ends it after the run that is under way. */
export async function run({ tiny, runs }: BenchOptions): Promise<BenchResult> {
  const enough = new AbortController()
  process.once('SIGINT', () => enough.abort())
  const json = await torture({ runs: runs ?? (tiny ? 3 : 200), enough: enough.signal })
  const { errors, faults, ...numbers } = json
  return { json, text: [...errors, JSON.stringify(faults), JSON.stringify(numbers)].join('\n') }
}

// ---- faults

interface Scene {
  hosts: TwoHosts
  /** Where the guest runs, and where its standby is. */
  from: TestHost
  to: TestHost
  /** Of the guest's QEMU. */
  pid: number
  random: SeededRandom
}

/** Resolves when the fault is over; agents that it killed run again. Says what exactly it did. */
type Fault = (scene: Scene) => Promise<string>

const some = (random: SeededRandom, minMs: number, maxMs: number) => random.integer(minMs, maxMs)

async function restartAfter(host: TestHost, ms: number, fault?: string): Promise<void> {
  await host.kill()
  await delay(ms)
  await host.start(fault)
}

const restart =
  (which: 'from' | 'to'): Fault =>
  async (scene) => {
    const ms = some(scene.random, 0, 1_500)
    await restartAfter(scene[which], ms)
    return `agent of ${scene[which].name}, back after ${ms} ms`
  }

/** Both stop, or one, and go on as if nothing had happened. */
const stop =
  (agentOf: ('from' | 'to')[], qemu: boolean): Fault =>
  async (scene) => {
    const ms = some(scene.random, 100, 2_000)
    if (qemu) signal(scene.pid, 'SIGSTOP')
    for (const which of agentOf) scene[which].signal('SIGSTOP')
    await delay(ms)
    // Either may be the first to go on.
    const first = scene.random.integer(0, 1)
    if (qemu && first === 0) signal(scene.pid, 'SIGCONT')
    for (const which of agentOf) scene[which].signal('SIGCONT')
    if (qemu && first === 1) signal(scene.pid, 'SIGCONT')
    return `for ${ms} ms`
  }

const wire =
  (draw: (random: SeededRandom) => WireFault, minMs: number, maxMs: number): Fault =>
  async ({ hosts, random }) => {
    const fault = draw(random)
    const ms = some(random, minMs, maxMs)
    hosts.spoil(fault)
    await delay(ms)
    hosts.spoil({ mode: 'pass' })
    return `${JSON.stringify(fault)} for ${ms} ms`
  }

/** Points that the primary's agent passes with each checkpoint, and those of the standby's. */
const primaryPoints = faultPoints.filter((point) => !/ack|apply|load/.test(point))
const standbyPoints = faultPoints.filter((point) => /ack|apply/.test(point))

/** An agent is started with a fault in it, and started anew when that has ended it. */
const faulty =
  (which: 'from' | 'to', points: readonly FaultPoint[]): Fault =>
  async (scene) => {
    const { random } = scene
    const host = scene[which]
    const action = (['kill', 'kill', 'stop', 'throw'] as const)[random.integer(0, 3)]
    const fault = `${points[random.integer(0, points.length - 1)]}:${random.integer(1, 60)}=${action}`
    await restartAfter(host, some(random, 0, 300), fault)
    const limit = delay(action === 'kill' ? 8_000 : some(random, 3_000, 5_000), undefined, { ref: false })
    await Promise.race([host.exited, limit])
    host.signal('SIGCONT')
    // A fault that was not met in time, since the roles have changed, must not come up in a later run.
    if (action !== 'throw') await restartAfter(host, 0)
    return `${host.name}: ${fault}`
  }

const faults: Readonly<Record<string, Fault>> = {
  'kill QEMU': async ({ pid }) => {
    signal(pid, 'SIGKILL')
    return `process ${pid}`
  },
  'kill the primary agent': restart('from'),
  'kill the standby agent': restart('to'),
  'host death': async ({ from, to, pid, random }) => {
    const order = random.integer(0, 1)
    if (order === 0) signal(pid, 'SIGKILL')
    const killed = from.kill()
    if (order === 1) signal(pid, 'SIGKILL')
    await killed
    await runsOn(to)
    await delay(some(random, 0, 1_000))
    await from.start()
    return order === 0 ? 'QEMU first' : 'agent first'
  },
  'link down': async ({ hosts, from, to, random }) => {
    const host = random.integer(0, 1) === 0 ? from : to
    const ms = some(random, 200, 3_000)
    await hosts.link(host, 'down')
    await delay(ms)
    await hosts.link(host, 'up')
    return `of ${host.name} for ${ms} ms`
  },
  'packets dropped': async ({ hosts, from, to, random }) => {
    const host = [undefined, from, to][random.integer(0, 2)]
    const ms = some(random, 200, 3_000)
    await hosts.drop(host)
    await delay(ms)
    await hosts.undrop()
    return `from ${host?.name ?? 'both'} for ${ms} ms`
  },
  'connections cut': wire(() => ({ mode: 'cut' }), 0, 100),
  'data delayed': wire((random) => ({ mode: 'delay', ms: random.integer(10, 800) }), 500, 3_000),
  'data throttled': wire((random) => ({ mode: 'throttle', bytesPerMs: random.integer(1, 400) }), 500, 3_000),
  'data swallowed': wire(() => ({ mode: 'swallow' }), 100, 1_500),
  'data truncated': wire(() => ({ mode: 'truncate' }), 200, 200),
  'data corrupted': wire(() => ({ mode: 'corrupt' }), 200, 200),
  'stop the primary agent': stop(['from'], false),
  'stop the standby agent': stop(['to'], false),
  'stop QEMU': stop([], true),
  'stop the primary host': stop(['from'], true),
  'stop both agents': stop(['from', 'to'], false),
  'the primary has no room': async ({ hosts, from }) => {
    await hosts.fill(from, 1_000)
    return from.name
  },
  'the standby has no room': async ({ hosts, to }) => {
    await hosts.fill(to, 1_000)
    return to.name
  },
  'fault point on the primary': faulty('from', primaryPoints),
  'fault point on the standby': faulty('to', standbyPoints),
  'killed after the takeover': async ({ from, to, pid, random }) => {
    await restartAfter(to, 0, 'after-load=kill')
    await whole(from, to, performance.now() + healMs)
    await delay(some(random, 0, 500))
    signal(pid, 'SIGKILL')
    await Promise.race([to.exited, delay(10_000, undefined, { ref: false })])
    await to.start()
    return to.name
  },
}
export const faultKinds = Object.keys(faults)

function signal(pid: number, what: NodeJS.Signals): void {
  try {
    process.kill(pid, what)
  } catch {
    // Superseded, or dead already.
  }
}

// ---- witnesses

/** Adds numbers one after the other over one connection, without a pause, and knows what each answer must be. */
class Client {
  readonly #hosts: TwoHosts
  #connection: Connection | undefined
  #over = false
  #adding: Promise<void> = Promise.resolve()
  #added = 0n
  #sum = 0n
  adds = 0
  lost = 0
  resets = 0
  /** Since it was last set to 0. */
  longestMs = 0
  readonly errors: string[] = []

  constructor(hosts: TwoHosts) {
    this.#hosts = hosts
  }

  async start(): Promise<void> {
    this.#over = false
    await this.#connect()
    this.#adding = this.#add()
  }

  async end(): Promise<void> {
    this.#over = true
    this.#connection?.close()
    await this.#adding
  }

  /** Another guest, which has added nothing yet. */
  forget(): void {
    this.#added = 0n
    this.#sum = 0n
  }

  async #connect(): Promise<void> {
    const { network, client } = this.#hosts
    this.#connection = await network.connect(client, guestAddress, 7070)
    // After a reset: an addition without an answer may have been done or not.
    const [seq, total] = await this.#ask('get')
    if (seq < this.#added)
      this.#lose(`after a reset the guest has ${seq} additions, acknowledged ${this.#added}`)
    this.#added = seq
    this.#sum = total
  }

  async #ask(line: string): Promise<[bigint, bigint]> {
    const connection = this.#connection!
    connection.received = ''
    connection.send(`${line}\n`)
    const text = await connection.until((received) => received.endsWith('\n'), answerMsMax)
    const [, seq, total] = /^ok (\d+) (\d+)\n$/.exec(text) ?? []
    if (seq === undefined || total === undefined) throw new Error(`no answer: ${text}`)
    return [BigInt(seq), BigInt(total)]
  }

  async #add(): Promise<void> {
    while (!this.#over) {
      const number = BigInt(++this.adds % 1000)
      const sentAt = performance.now()
      try {
        const [seq, total] = await this.#ask(`add ${number}`)
        if (seq !== this.#added + 1n || total !== this.#sum + number)
          this.#lose(
            `answer ${seq} ${total} after ${this.#added} ${this.#sum} and add ${number}: another history`,
          )
        this.#added = seq
        this.#sum = total
        this.longestMs = Math.max(this.longestMs, performance.now() - sentAt)
      } catch (error) {
        if (this.#over) return
        const reset = this.#connection?.ended !== undefined
        if (reset) this.resets++
        this.errors.push(`client: ${reset ? 'reset: ' : ''}${(error as Error).message}`)
        this.#connection?.close()
        await this.#connect().catch(() => delay(500))
      }
    }
  }

  #lose(what: string): void {
    this.lost++
    this.errors.push(`client: ${what}`)
  }
}

/** Sees which host's copy puts out frames, one after the other. */
class Emissions {
  readonly #hosts: TwoHosts
  readonly #timer: NodeJS.Timeout
  readonly #counts = new Map<string, number>()
  #last: TestHost | undefined
  /** Times that another host's copy began to speak. */
  changes = 0
  readonly log: string[] = []

  constructor(hosts: TwoHosts) {
    this.#hosts = hosts
    this.#timer = setInterval(() => this.#look(), 10)
  }

  #look(): void {
    const speakers = this.#hosts.hosts.filter((host) => {
      let spoke = false
      const frames = host.framesOut()
      for (const [tap, count] of frames) {
        const before = this.#counts.get(tap) ?? 0
        // Another tap of the same name counts from 0.
        if (count !== before) spoke ||= count > 0
        this.#counts.set(tap, count)
      }
      return spoke
    })
    // Both within one look: the former one was first.
    for (const speaker of speakers.sort((x) => (x === this.#last ? -1 : 1))) {
      if (speaker === this.#last) continue
      if (this.#last) this.changes++
      this.#last = speaker
      this.log.push(`${new Date().toISOString()} ${speaker.name} test: its copy speaks`)
    }
  }

  end(): void {
    clearInterval(this.#timer)
  }
}

/** What the guest has said on one host so far, even when the host forgets it. */
class Recording {
  readonly #file: number

  constructor(console: Console) {
    this.#file = openSync(console.log, 'r')
  }

  /** Undefined when it was truncated since. */
  until(bytes: number): string | undefined {
    if (fstatSync(this.#file).size < bytes) return undefined
    const text = Buffer.alloc(bytes)
    readSync(this.#file, text, 0, bytes, 0)
    return text.toString('latin1')
  }

  close(): void {
    closeSync(this.#file)
  }
}

function digestAt(step: number): string {
  const said = execFileSync(join(packageRoot, 'build/guest/victim'), [`until=${step}`, ...victimArguments], {
    encoding: 'utf8',
  })
  return /digest=([0-9a-f]+)/.exec(said)?.[1] ?? said
}

/** What is wrong with the victim, if anything. */
async function victimWrong(console: Console): Promise<string | undefined> {
  const whole = await askVictim(console).catch((error: Error) => error)
  const text = readConsole(console)
  if (whole !== true) return victimDamage(text) ?? (whole instanceof Error ? whole.message : 'damaged')
  const last = victimLines(text).at(-1)
  if (!last) return 'the victim says nothing'
  if (digestAt(last.step) !== last.digest) return `another history at step ${last.step}`
  return undefined
}

// ---- the course

/** An agent may not have noticed yet that its guest has died. */
const runsHere = (status: GuestStatus | undefined): boolean =>
  status !== undefined && status.role !== 'Standby' && alive(status.pid)

function alive(pid: number | null): boolean {
  const identity = pid === null ? undefined : identify(pid)
  return identity !== undefined && isRunning(identity)
}

async function runsOn(host: TestHost, limitMs = healMs): Promise<void> {
  const deadline = performance.now() + limitMs
  while (!runsHere(await host.guest(name))) {
    if (performance.now() > deadline) throw new Error(`the guest does not run on ${host.name}`)
    await delay(20)
  }
}

/** Waits until the guest runs on one of the hosts and is protected to the other. */
async function whole(x: TestHost, y: TestHost, deadline: number): Promise<[TestHost, TestHost, GuestStatus]> {
  for (;;) {
    const [atX, atY] = await Promise.all([x.guest(name), y.guest(name)])
    for (const [from, to, here, there] of [
      [x, y, atX, atY],
      [y, x, atY, atX],
    ] as const)
      if (
        here?.role === 'Primary' &&
        here.state === 'Protected' &&
        runsHere(here) &&
        there?.role === 'Standby' &&
        there.state === 'Protected' &&
        alive(there.pid)
      )
        return [from, to, here]
    if (performance.now() > deadline) {
      const words = [atX, atY].map((s) => (s ? `${s.role} ${s.state} ${s.reason}` : 'unknown'))
      throw new Error(`not whole: ${x.name} ${words[0]}; ${y.name} ${words[1]}`)
    }
    await delay(20)
  }
}

/**
 * Compares guest and image where the guest runs once it has settled: a cut link may be suspected only after the pair has
 * looked whole again. An agent that still has a fault in it may stumble between.
 */
async function verified(from: TestHost, to: TestHost, client: Client) {
  const deadline = performance.now() + 20_000
  for (;;) {
    const [owner, , status] = await whole(from, to, performance.now() + healMs)
    const target = client.adds + addsAfter
    const answersBy = performance.now() + answerMsMax
    while (client.adds < target && performance.now() < answersBy) await delay(10)
    const image = await owner.agent!.client.verify(name).catch((error: Error) => error)
    if (!(image instanceof Error) || performance.now() > deadline)
      return { owner, status, image, answered: client.adds >= target }
    await delay(200)
  }
}

async function boot(host: TestHost): Promise<void> {
  const options = demoGuestOptions(['workload=sum', `net=${guestAddress}/24`])
  const status = await host.agent!.client.run({
    name,
    ramBytes,
    accel: 'tcg',
    options,
    nics: [{ bridge: 'br0' }],
  })
  const console = consoleAt(status.console)
  const said = <T>(found: (text: string) => T | undefined) => untilConsole(console, 0, found, 120_000)
  await said((text) => text.includes('sum listening') || undefined)
  // Beside the sums, on the console's pipe for its commands.
  await typeLine(console, `run victim ${victimArguments.join(' ')} <>/run/commands &`)
  await said((text) => victimLines(text)[0])
}

async function protect(from: TestHost, to: TestHost): Promise<void> {
  await from.agent!.client.protect(name, {
    to: `${to.reached}:7475`,
    epochMs: 25,
    suspicionMs: 500,
    outputs: 'held',
    tracker: 'auto',
    codec: 'masked',
    ...sendingDefault,
  })
}

export interface TortureOptions {
  runs: number
  seed?: number
  /** Only these. */
  kinds?: string[]
  /** Ends it before all runs are done. */
  enough?: AbortSignal
}

export async function torture({ runs, seed, kinds = faultKinds, enough }: TortureOptions): Promise<Torture> {
  const random = seededRandom(seed)
  const say = (text: string) => process.stderr.write(`${text}\n`)
  await using hosts = await TwoHosts.make()
  const [a, b] = hosts.hosts
  await a.start()
  await b.start()
  await boot(a)
  await protect(a, b)
  const client = new Client(hosts)
  await client.start()
  const emissions = new Emissions(hosts)
  const result: Torture = {
    ...{ runs: 0, failovers: 0, acknowledgedLost: 0, splitBrain: 0, tornGuests: 0, guestsLost: 0 },
    ...{ tcpResets: 0, notHealed: 0, takeoverMs: { p50: 0, p99: 0 }, clientWaitMs: { p50: 0, p99: 0 } },
    ...{ adds: 0, seed: random.seed, faults: {}, errors: [] },
  }
  const [takeovers, waits]: [number[], number[]] = [[], []]
  try {
    let bag: string[] = []
    await whole(a, b, performance.now() + healMs)
    while (result.runs < runs && !enough?.aborted) {
      const [from, to, status] = await whole(a, b, performance.now() + healMs)
      if (bag.length === 0) bag = shuffled(kinds, random)
      const kind = bag.pop()!
      const number = ++result.runs
      result.faults[kind] = (result.faults[kind] ?? 0) + 1
      const marks = { a: a.events.length, b: b.events.length, log: emissions.log.length }
      const before = { changes: emissions.changes, lost: client.lost, errors: client.errors.length }
      const recording = new Recording(consoleAt(status.console))
      client.longestMs = 0
      const problems: string[] = []
      let what = ''
      try {
        await delay(random.integer(0, 400))
        // Each fault has a sequence of its own: what one draws does not change the next.
        const own = seededRandom(random.integer(0, 2 ** 30))
        what = await faults[kind]!({ hosts, from, to, pid: status.pid ?? 0, random: own })
        const { owner, status: now, image, answered } = await verified(from, to, client)
        if (!answered) problems.push('the client gets no answers')
        if (image instanceof Error) problems.push(`verify: ${image.message}`)
        else if (!image.equal) {
          result.tornGuests++
          problems.push(
            `the standby's image is not the guest's memory: ${JSON.stringify(image).slice(0, 300)}`,
          )
        }
        const console = consoleAt(now.console)
        const wrong = await victimWrong(console)
        if (wrong !== undefined) {
          result.tornGuests++
          problems.push(`victim: ${wrong}`)
        }
        const safe = owner === to && now.takeover ? recording.until(now.takeover.consoleBytes) : undefined
        const safeStep = safe === undefined ? 0 : (victimLines(safe).at(-1)?.step ?? 0)
        const first = victimLines(readConsole(console))[0]?.step ?? 0
        if (safeStep > first) {
          result.acknowledgedLost++
          problems.push(`victim: step ${safeStep} was safe, and it went on at ${first}`)
        }
      } catch (error) {
        result.notHealed++
        problems.push((error as Error).message)
      }
      recording.close()
      const since = [...a.events.slice(marks.a), ...b.events.slice(marks.b)]
      const took = since.flatMap((event) => / took over in ([\d.]+) ms/.exec(event)?.[1] ?? []).map(Number)
      takeovers.push(...took)
      result.failovers += took.length
      if (took.length > 0) waits.push(client.longestMs)
      // A takeover whose agent was killed before it could say so.
      const unsaid = since.filter((event) => /SUBPAGE_FAULT=after-load/.test(event)).length
      const changes = emissions.changes - before.changes
      if (changes > took.length + unsaid) {
        result.splitBrain++
        problems.push(`the speaking copy changed ${changes} times in ${took.length} failovers`)
      }
      if (client.lost > before.lost) result.acknowledgedLost++
      problems.push(...client.errors.slice(before.errors))
      say(
        `${number}/${runs} ${from.name} ${kind} (${what}): ${took.length} failovers, client waited ${client.longestMs.toFixed(0)} ms${problems.length > 0 ? `; PROBLEM ${problems.join('; ')}` : ''}`,
      )
      if (problems.length > 0) {
        result.errors.push(`seed ${random.seed}, run ${number}, ${kind} (${what}): ${problems.join('; ')}`)
        for (const line of [...since, ...emissions.log.slice(marks.log)].sort()) say(`    ${line}`)
      }
      for (const host of [from, to]) if (!host.running) await host.start()
      if (await gone([from, to])) {
        result.guestsLost++
        say('    the guest is lost; another one begins')
        await client.end()
        await anew(hosts)
        client.forget()
        await client.start()
      }
    }
  } finally {
    emissions.end()
    await client.end()
  }
  result.tcpResets = client.resets
  result.adds = client.adds
  result.takeoverMs = percentiles(takeovers)
  result.clientWaitMs = percentiles(waits)
  return result
}

/** True when the guest runs nowhere, and nobody would take it over. */
async function gone(hosts: TestHost[]): Promise<boolean> {
  const known = await Promise.all(hosts.map((host) => host.guest(name)))
  return known.every((status) => !status || status.state === 'Failed' || status.state === 'Ended')
}

/** Another guest in place of the one that was lost. */
async function anew({ hosts: [a, b] }: TwoHosts): Promise<void> {
  for (const host of [a, b]) {
    if (!host.running) await host.start()
    // It may know nothing of it any more.
    await host.agent?.client.remove(name).catch(() => undefined)
  }
  await boot(a)
  await protect(a, b)
}

function shuffled<T>(values: T[], random: SeededRandom): T[] {
  const left = [...values]
  return values.flatMap(() => left.splice(random.integer(0, left.length - 1), 1))
}

function percentiles(values: number[]): { p50: number; p99: number } {
  const sorted = values.sort((x, y) => x - y)
  const at = (share: number) =>
    Number((sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0).toFixed(1))
  return { p50: at(0.5), p99: at(0.99) }
}
