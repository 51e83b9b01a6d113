/**
 * Torture of several guests that one pair of hosts protects. In each run one process of each kind gets SIGKILL, each at a moment of
 * its own: an agent, a supervisor of a primary and one of a standby, the QEMU of a guest, a QEMU that waits, and the keeper of the
 * image that is held densely. The four that belong to one guest meet four different guests. What is lost is counted for each guest.
 *
 * SUBPAGE_TEST_SEED repeats a series (the moments too, but not what the machine does meanwhile).
 */
import { setTimeout as delay } from 'node:timers/promises'
import { consoleAt } from '../../src/qemu/demo-guest.ts'
import { supervisorsOfGuest } from '../../test/support/hosts.ts'
import { processesWith } from '../../test/support/processes.ts'
import { type SeededRandom, seededRandom } from '../../test/support/random.ts'
import { type TestHost, TwoHosts } from '../../test/support/two-hosts.ts'
import { say } from '../bench.ts'
import { signal } from './faults.ts'
import { healMs, TorturedGuest } from './guest.ts'
import { judge, type Losses, noLosses, percentiles } from './judgement.ts'
import { leftOf, surplusOf } from './leftovers.ts'
import { shuffled } from './shuffled.ts'
import { Client, Emissions, Recording } from './witnesses.ts'

type Kind = 'agent' | 'primary supervisor' | 'standby supervisor' | 'QEMU' | 'waiting QEMU' | 'keeper'
/** What belongs to one guest. */
const guestKinds: Kind[] = ['primary supervisor', 'standby supervisor', 'QEMU', 'waiting QEMU']

interface GuestLosses extends Losses {
  name: string
  /** QEMUs beside the one of each host, and what was there after it had been removed. */
  leftovers: number
  tcpResets: number
  adds: number
}

export interface TortureOfMany {
  guests: number
  runs: number
  failovers: number
  perGuest: GuestLosses[]
  /** Guests that were not whole again in time, each counted for its run. */
  notHealed: number
  killed: Partial<Record<Kind, number>>
  takeoverMs: { p50: number; p99: number }
  /** The longest wait of a client for its answer, in each run in which its guest was failed over. */
  clientWaitMs: { p50: number; p99: number }
  seed: number
  errors: string[]
}

/** Each process dies within this time after the run has begun. */
const momentMsMax = 2_000
const agentBackMsMax = 1_500
const recordPauseS = 0.2
/** In which a process that is superseded ends. */
const endMs = 10_000
/** Guests of 160 MiB; the rest is for what QEMU allocates beside, the keeper, and a guest that begins anew. */
const shmMibPerGuest = 260
const density = { recentMs: 1_000, coldMs: 1_000, budget: 0.05 }

interface Options {
  guests: number
  runs: number
  seed?: number
  enough?: AbortSignal
}

export async function tortureMany({ guests, runs, seed, enough }: Options): Promise<TortureOfMany> {
  await using hosts = await TwoHosts.make(guests * shmMibPerGuest)
  for (const host of hosts.hosts) await host.start()
  const watched = Array.from({ length: guests }, (_, index) => new Watched(hosts, index))
  await Promise.all(watched.map((one) => one.begin()))
  const series = new Series(hosts, watched, seededRandom(seed))
  try {
    while (series.result.runs < runs && !enough?.aborted) await series.run(runs)
    await series.leave()
  } finally {
    await Promise.all(watched.map((one) => one.end()))
  }
  return series.outcome()
}

/** A guest with its witnesses. */
class Watched {
  readonly guest: TorturedGuest
  readonly client: Client
  readonly emissions: Emissions
  readonly losses: GuestLosses
  readonly #hosts: TwoHosts

  constructor(hosts: TwoHosts, index: number) {
    this.#hosts = hosts
    this.guest = new TorturedGuest(`tortured${index}`, `10.78.0.${2 + index}`, recordPauseS)
    this.client = new Client(hosts, this.guest.address)
    this.emissions = new Emissions(hosts, this.guest.name)
    this.losses = { name: this.guest.name, ...noLosses, leftovers: 0, tcpResets: 0, adds: 0 }
  }

  async begin(): Promise<void> {
    await this.guest.anew(this.#hosts)
    await this.client.start()
  }

  async beginAnew(): Promise<void> {
    this.losses.guestsLost++
    say(`    ${this.guest.name} is lost; another one begins`)
    await this.client.end()
    this.client.forget()
    await this.begin()
  }

  async end(): Promise<void> {
    this.emissions.end()
    await this.client.end()
    this.losses.tcpResets = this.client.resets
    this.losses.adds = this.client.adds
  }
}

class Series {
  readonly result: TortureOfMany
  readonly #hosts: TwoHosts
  readonly #watched: Watched[]
  readonly #random: SeededRandom
  readonly #takeovers: number[] = []
  readonly #waits: number[] = []

  constructor(hosts: TwoHosts, watched: Watched[], random: SeededRandom) {
    this.#hosts = hosts
    this.#watched = watched
    this.#random = random
    this.result = {
      ...{ guests: watched.length, runs: 0, failovers: 0, perGuest: watched.map(({ losses }) => losses) },
      ...{ notHealed: 0, killed: {}, takeoverMs: { p50: 0, p99: 0 }, clientWaitMs: { p50: 0, p99: 0 } },
      ...{ seed: random.seed, errors: [] },
    }
  }

  outcome(): TortureOfMany {
    this.result.takeoverMs = percentiles(this.#takeovers)
    this.result.clientWaitMs = percentiles(this.#waits)
    return this.result
  }

  /** @param of how many there will be */
  async run(of: number): Promise<void> {
    const [a, b] = this.#hosts.hosts
    const number = ++this.result.runs
    await this.#dense()
    const whole = (one: Watched) => one.guest.whole(a, b, performance.now() + healMs)
    const before = await Promise.all(this.#watched.map(whole))
    const marks = [a.events.length, b.events.length]
    const witnesses = this.#watched.map((one, index) => {
      one.client.longestMs = 0
      return {
        ...{ changes: one.emissions.changes, lost: one.client.lost, errors: one.client.errors.length },
        recording: new Recording(consoleAt(before[index]![2].console)),
      }
    })
    const said = await this.#killAll(before)
    // An agent that comes back tells again what the supervisors of its guests have kept.
    const since = () => [...new Set([...a.events.slice(marks[0]), ...b.events.slice(marks[1])])]
    const problems = await Promise.all(
      this.#watched.map(async (one, index) => {
        const [from, to, { generation, pid }] = before[index]!
        const { recording, changes, lost, errors } = witnesses[index]!
        const { guest, client, emissions, losses } = one
        const found: string[] = []
        try {
          found.push(...(await judge({ guest, from, to, client, recording, losses })))
          const [, , after] = await whole(one)
          const decided = after.generation - generation
          if (emissions.changes - changes > decided) {
            losses.splitBrain++
            found.push(
              `the speaking copy changed ${emissions.changes - changes} times in ${decided} decisions`,
            )
          }
          if (after.pid !== pid) this.#waits.push(client.longestMs)
          found.push(...(await this.#surplus(one)))
        } catch (error) {
          this.result.notHealed++
          found.push((error as Error).message)
        }
        recording.close()
        if (client.lost > lost) losses.acknowledgedLost++
        found.push(...client.errors.slice(errors))
        return found.map((text) => `${guest.name}: ${text}`)
      }),
    )
    const took = since()
      .flatMap((event) => / took over in ([\d.]+) ms/.exec(event)?.[1] ?? [])
      .map(Number)
    this.#takeovers.push(...took)
    this.result.failovers += took.length
    const all = problems.flat()
    say(
      `${number}/${of} ${said.join(', ')}: ${took.length} failovers${all.length > 0 ? `; PROBLEM ${all.join('; ')}` : ''}`,
    )
    if (all.length === 0) return
    this.result.errors.push(`seed ${this.result.seed}, run ${number}, ${said.join(', ')}: ${all.join('; ')}`)
    const speaking = this.#watched.flatMap(({ guest, emissions }) =>
      emissions.log.map((line) => `${line} (${guest.name})`),
    )
    for (const line of [...since(), ...speaking].sort()) say(`    ${line}`)
    for (const host of [a, b]) if (!host.running) await host.start()
    for (const one of this.#watched) if (!(await one.guest.heals(a, b))) await one.beginAnew()
  }

  /** The image of the last guest is held densely, wherever its standby is. */
  async #dense(): Promise<void> {
    const { guest } = this.#watched.at(-1)!
    const [, to] = await guest.whole(...this.#hosts.hosts, performance.now() + healMs)
    const { guests } = await to.agent!.client.density()
    if (!guests.some(({ name }) => name === guest.name)) await to.agent!.client.densityOn(guest.name, density)
  }

  /** One process of each kind; says which, and when. */
  async #killAll(before: [TestHost, TestHost, { pid: number | null }][]): Promise<string[]> {
    const random = this.#random
    const order = shuffled([...this.#watched.keys()], random)
    const kinds = shuffled(guestKinds, random)
    const agentOf = this.#hosts.hosts[random.integer(0, 1)]!
    const backMs = random.integer(0, agentBackMsMax)
    const jobs: { kind: Kind; what: string; pids: () => number[] }[] = []
    for (const [index, kind] of kinds.slice(0, order.length).entries()) {
      const [from, to, { pid }] = before[order[index]!]!
      const { name } = this.#watched[order[index]!]!.guest
      const waiting = (await to.guest(name))?.pid ?? 0
      const host = kind === 'primary supervisor' || kind === 'QEMU' ? from : to
      const qemu = kind === 'QEMU' ? (pid ?? 0) : waiting
      const pids = () =>
        /supervisor/.test(kind)
          ? supervisorsOfGuest(host.stateDirectory, name)
          : [qemu].filter((one) => one > 0)
      jobs.push({ kind, what: `${kind} of ${name} on ${host.name}`, pids })
    }
    for (const host of this.#hosts.hosts) {
      const { keeper } = await host.agent!.client.density()
      if (keeper) jobs.push({ kind: 'keeper', what: `keeper of ${host.name}`, pids: () => [keeper.pid] })
    }
    const moments = jobs.map(() => random.integer(0, momentMsMax))
    const agentMs = random.integer(0, momentMsMax)
    const count = (kind: Kind) => {
      this.result.killed[kind] = (this.result.killed[kind] ?? 0) + 1
    }
    const agent = async () => {
      await delay(agentMs)
      await agentOf.endAgent('SIGKILL')
      count('agent')
      await delay(backMs)
      await agentOf.start()
    }
    const kill = async ({ kind, pids }: (typeof jobs)[number], ms: number) => {
      await delay(ms)
      for (const pid of pids()) {
        signal(pid, 'SIGKILL')
        count(kind)
      }
    }
    await Promise.all([agent(), ...jobs.map((job, index) => kill(job, moments[index]!))])
    return [
      `agent of ${agentOf.name} at ${agentMs} ms, back after ${backMs}`,
      ...jobs.map(({ what }, index) => `${what} at ${moments[index]} ms`),
    ]
  }

  /** What runs for a guest that is whole beside its two QEMUs, once these are alone or it is too late. */
  async #surplus({ guest, losses }: Watched): Promise<string[]> {
    const deadline = performance.now() + endMs
    for (;;) {
      const surplus = this.#hosts.hosts.flatMap((host) => surplusOf(host, guest.name))
      if (surplus.length === 0) return []
      if (performance.now() > deadline) {
        losses.leftovers += surplus.length
        return surplus
      }
      await delay(100)
    }
  }

  /** Removes all guests: nothing may be left of any. */
  async leave(): Promise<void> {
    for (const { guest, client, losses } of this.#watched) {
      await client.end()
      const [from] = await guest.whole(...this.#hosts.hosts, performance.now() + healMs)
      const { hosts } = this.#hosts
      const supervisors = hosts.flatMap((host) => supervisorsOfGuest(host.stateDirectory, guest.name))
      await from.agent!.client.remove(guest.name)
      const left = () => [
        ...hosts.flatMap((host) => leftOf(host, guest.name)),
        ...processesWith(`subpage supervisor ${guest.name}`)
          .filter((pid) => supervisors.includes(pid))
          .map((pid) => `supervisor ${pid}`),
      ]
      for (const deadline = performance.now() + endMs; left().length > 0 && performance.now() < deadline; )
        await delay(50)
      losses.leftovers += left().length
      this.result.errors.push(...left().map((what) => `removed, and left: ${what}`))
    }
  }
}
