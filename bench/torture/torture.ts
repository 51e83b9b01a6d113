/**
 * Torture: two hosts, a guest that two witnesses watch, and one fault after the other. The witnesses are a client that adds
 * numbers over one TCP connection and knows each answer, and the victim program in the guest, whose memory proves itself.
 * After each fault everything is healed, and the guest must run in one place, protected, with nothing lost.
 *
 * SUBPAGE_TEST_SEED repeats a series of faults (their moments too, but not what the machine does meanwhile).
 */
import { setTimeout as delay } from 'node:timers/promises'
import { consoleAt, readConsole, recordsIn, victimLines } from '../../src/qemu/demo-guest.ts'
import { type SeededRandom, seededRandom } from '../../test/support/random.ts'
import { type TestHost, TwoHosts } from '../../test/support/two-hosts.ts'
import type { BenchOptions, BenchResult } from '../bench.ts'
import { faultKinds, faults } from './faults.ts'
import { anew, healMs, heals, verified, whole } from './guest.ts'
import { Client, diskWrong, Emissions, Recording, victimWrong } from './witnesses.ts'

export interface Torture {
  runs: number
  failovers: number
  /** Answers that the client got and that do not hold any more. */
  acknowledgedLost: number
  /** Times that a copy put out frames after another one had. */
  splitBrain: number
  /** Times that the victim found its memory damaged, or not to be what its history must have led to. */
  tornGuests: number
  /** Times that a record which the guest had synced to its disk was not there, or the standby's disk was another one. */
  disksWrong: number
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
  await anew(hosts)
  const series = new Series(hosts, seededRandom(seed))
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
  readonly #client: Client
  readonly #emissions: Emissions
  readonly #takeovers: number[] = []
  readonly #waits: number[] = []

  constructor(hosts: TwoHosts, random: SeededRandom) {
    this.#hosts = hosts
    this.random = random
    this.#client = new Client(hosts)
    this.#emissions = new Emissions(hosts)
    this.result = {
      ...{ runs: 0, failovers: 0, acknowledgedLost: 0, splitBrain: 0, tornGuests: 0 },
      ...{ disksWrong: 0, guestsLost: 0 },
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
    const [client, emissions] = [this.#client, this.#emissions]
    const [a, b] = this.#hosts.hosts
    const [from, to, status] = await whole(a, b, performance.now() + healMs)
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
      what = await faults[kind]!({ hosts: this.#hosts, from, to, pid: status.pid ?? 0, random: own })
      problems.push(...(await this.#healed(from, to, recording)))
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
    if (notHealed && !(await heals(from, to))) await this.#beginAnew()
  }

  /** Once all is whole again: what is wrong with guest, image and client. @throws Error when it does not become whole */
  async #healed(from: TestHost, to: TestHost, recording: Recording): Promise<string[]> {
    const problems: string[] = []
    const { owner, status, image, answered } = await verified(from, to, this.#client)
    if (!answered) problems.push('the client gets no answers')
    if (image instanceof Error) problems.push(`verify: ${image.message}`)
    else if (!image.equal && image.difference === undefined) {
      this.result.disksWrong++
      problems.push(`the standby's disk is not the guest's: ${JSON.stringify(image.disks)}`)
    } else if (!image.equal) {
      this.result.tornGuests++
      problems.push(`the standby's image is not the guest's memory: ${JSON.stringify(image).slice(0, 300)}`)
    }
    const console = consoleAt(status.console)
    const wrong = await victimWrong(console)
    if (wrong !== undefined) {
      this.result.tornGuests++
      problems.push(`victim: ${wrong}`)
    }
    const record = diskWrong(status.disks[0]!.path, console)
    if (record !== undefined) {
      this.result.disksWrong++
      problems.push(`disk: ${record}`)
    }
    const safe = owner === to && status.takeover ? recording.until(status.takeover.consoleBytes) : undefined
    const safeStep = safe === undefined ? 0 : (victimLines(safe).at(-1)?.step ?? 0)
    const first = victimLines(readConsole(console))[0]?.step ?? 0
    if (safeStep > first) {
      this.result.acknowledgedLost++
      problems.push(`victim: step ${safeStep} was safe, and it went on at ${first}`)
    }
    const safeRecord = safe === undefined ? undefined : (recordsIn(safe).at(-1) ?? 0)
    const firstRecord = recordsIn(readConsole(console))[0]
    // The line of one may have been cut by the takeover.
    const next = safeRecord === undefined ? [] : [safeRecord + 1, safeRecord + 2]
    if (safeRecord !== undefined && firstRecord !== undefined && !next.includes(firstRecord)) {
      this.result.disksWrong++
      problems.push(`disk: record ${safeRecord} was safe, and they went on at ${firstRecord}`)
    }
    return problems
  }

  async #beginAnew(): Promise<void> {
    this.result.guestsLost++
    say('    the guest is lost; another one begins')
    await this.#client.end()
    await anew(this.#hosts)
    this.#client.forget()
    await this.#client.start()
  }
}

const say = (text: string) => process.stderr.write(`${text}\n`)

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
