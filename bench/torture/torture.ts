/**
 * Torture: two hosts, a guest that two witnesses watch, and one fault after the other. The witnesses are a client that adds
 * numbers over one TCP connection and knows each answer, and the victim program in the guest, whose memory proves itself.
 * After each fault everything is healed, and the guest must run in one place, protected, with nothing lost.
 *
 * SUBPAGE_TEST_SEED repeats a series of faults (their moments too, but not what the machine does meanwhile).
 */
import { setTimeout as delay } from 'node:timers/promises'
import { consoleAt } from '../../src/qemu/demo-guest.ts'
import { type SeededRandom, seededRandom } from '../../test/support/random.ts'
import { TwoHosts } from '../../test/support/two-hosts.ts'
import { type BenchOptions, type BenchResult, say } from '../bench.ts'
import { tortureDatabase } from './database.ts'
import { faultKinds, faults } from './faults.ts'
import { healMs, TorturedGuest } from './guest.ts'
import { judge, type Losses, noLosses, percentiles } from './judgement.ts'
import { tortureMany } from './many.ts'
import { shuffled } from './shuffled.ts'
import { Client, Emissions, Recording } from './witnesses.ts'

export interface Torture extends Losses {
  runs: number
  failovers: number
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
export async function run({ tiny, runs, guests = 1, database }: BenchOptions): Promise<BenchResult> {
  const enough = new AbortController()
  process.once('SIGINT', () => enough.abort())
  if (database) {
    const json = await tortureDatabase({
      manager: database,
      runs: runs ?? (tiny ? 2 : 20),
      enough: enough.signal,
    })
    const { errors, ...numbers } = json
    return { json, text: [...errors, JSON.stringify(numbers)].join('\n') }
  }
  if (guests > 1) {
    const json = await tortureMany({ guests, runs: runs ?? (tiny ? 1 : 50), enough: enough.signal })
    const { errors, perGuest, ...numbers } = json
    const lines = perGuest.map((one) => JSON.stringify(one))
    return { json, text: [...errors, ...lines, JSON.stringify(numbers)].join('\n') }
  }
  const json = await torture({ runs: runs ?? (tiny ? 3 : 200), enough: enough.signal })
  const { errors, faults, ...numbers } = json
  return { json, text: [...errors, JSON.stringify(faults), JSON.stringify(numbers)].join('\n') }
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
  await using hosts = await TwoHosts.make()
  for (const host of hosts.hosts) await host.start()
  const guest = new TorturedGuest('tortured', '10.78.0.2')
  await guest.anew(hosts)
  const series = new Series(hosts, guest, seededRandom(seed))
  await series.begin()
  try {
    let bag: string[] = []
    while (series.result.runs < runs && !enough?.aborted) {
      if (bag.length === 0) bag = shuffled(kinds, series.random)
      await series.run(bag.pop()!, runs)
    }
  } finally {
    await series.end()
  }
  return series.result
}

class Series {
  readonly random: SeededRandom
  readonly result: Torture
  readonly #hosts: TwoHosts
  readonly #guest: TorturedGuest
  readonly #client: Client
  readonly #emissions: Emissions
  readonly #takeovers: number[] = []
  readonly #waits: number[] = []

  constructor(hosts: TwoHosts, guest: TorturedGuest, random: SeededRandom) {
    this.#hosts = hosts
    this.#guest = guest
    this.random = random
    this.#client = new Client(hosts, guest.address)
    this.#emissions = new Emissions(hosts, guest.name)
    this.result = {
      ...{ runs: 0, failovers: 0, ...noLosses },
      ...{ tcpResets: 0, notHealed: 0, takeoverMs: { p50: 0, p99: 0 }, clientWaitMs: { p50: 0, p99: 0 } },
      ...{ adds: 0, seed: random.seed, faults: {}, errors: [] },
    }
  }

  begin(): Promise<void> {
    return this.#client.start()
  }

  async end(): Promise<void> {
    this.#emissions.end()
    await this.#client.end()
    this.result.tcpResets = this.#client.resets
    this.result.adds = this.#client.adds
    this.result.takeoverMs = percentiles(this.#takeovers)
    this.result.clientWaitMs = percentiles(this.#waits)
  }

  /** One fault, and what the witnesses say of it. @param of how many there will be */
  async run(kind: string, of: number): Promise<void> {
    const { result, random } = this
    const guest = this.#guest
    const [client, emissions] = [this.#client, this.#emissions]
    const [a, b] = this.#hosts.hosts
    const [from, to, status] = await guest.whole(a, b, performance.now() + healMs)
    const number = ++result.runs
    result.faults[kind] = (result.faults[kind] ?? 0) + 1
    const marks = { a: a.events.length, b: b.events.length, log: emissions.log.length }
    const before = { changes: emissions.changes, lost: client.lost, errors: client.errors.length }
    const recording = new Recording(consoleAt(status.console))
    client.longestMs = 0
    const problems: string[] = []
    let what = ''
    let notHealed = false
    try {
      await delay(random.integer(0, 400))
      // Each fault has a sequence of its own: what one draws does not change the next.
      const own = seededRandom(random.integer(0, 2 ** 30))
      what = await faults[kind]!({ hosts: this.#hosts, guest, from, to, pid: status.pid ?? 0, random: own })
      problems.push(...(await judge({ guest, from, to, client, recording, losses: result })))
    } catch (error) {
      result.notHealed++
      notHealed = true
      problems.push((error as Error).message)
    }
    recording.close()
    const since = [...a.events.slice(marks.a), ...b.events.slice(marks.b)]
    const took = since.flatMap((event) => / took over in ([\d.]+) ms/.exec(event)?.[1] ?? []).map(Number)
    this.#takeovers.push(...took)
    result.failovers += took.length
    if (took.length > 0) this.#waits.push(client.longestMs)
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
      `${number}/${of} ${from.name} ${kind} (${what}): ${took.length} failovers, client waited ${client.longestMs.toFixed(0)} ms${problems.length > 0 ? `; PROBLEM ${problems.join('; ')}` : ''}`,
    )
    if (problems.length > 0) {
      result.errors.push(`seed ${random.seed}, run ${number}, ${kind} (${what}): ${problems.join('; ')}`)
      for (const line of [...since, ...emissions.log.slice(marks.log)].sort()) say(`    ${line}`)
    }
    for (const host of [from, to]) if (!host.running) await host.start()
    // A guest that nobody goes on with is lost, whatever its hosts call it.
    if (notHealed && !(await guest.heals(from, to))) await this.#beginAnew()
  }

  async #beginAnew(): Promise<void> {
    this.result.guestsLost++
    say('    the guest is lost; another one begins')
    await this.#client.end()
    await this.#guest.anew(this.#hosts)
    this.#client.forget()
    await this.#client.start()
  }
}
