/**
 * The Debian guest on two hosts, which protect it, under the load of its clients. Kills a process of it, and says in words what is wrong
 * with the guest afterwards.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import type { GuestStatus } from '../../src/agent/status.ts'
import {
  assertSystemClean,
  balances,
  type Clocks,
  checkPostgres,
  clocks,
  complaints,
  databaseNames,
  Pgbench,
  Rows,
  Shell,
} from './debian-guest.ts'
import {
  type DebianHosts,
  type HostName,
  hostNames,
  LibvirtHosts,
  type Manager,
  guestName as name,
  OwnHosts,
} from './debian-hosts.ts'
import { endAgent, Hosts, supervisorPid, until, untilExited } from './hosts.ts'
import { TestNetwork } from './network.ts'

export const killKinds = ['QEMU', 'supervisor and QEMU', 'agent'] as const
export type KillKind = (typeof killKinds)[number]

export interface Outcome {
  kind: KillKind
  problems: string[]
  /** Undefined where nothing was to be taken over. */
  takeoverMs: number | undefined
  /** Of a client for the acknowledgement of a row. */
  longestMs: number
  /** That pgbench has done since the beginning. */
  transactions: number
  clocks: Clocks
}

const healMs = 240_000
const rowsAfter = 10

export class DebianPair {
  readonly #hosts = new Hosts()
  readonly #network: TestNetwork
  readonly #machines: DebianHosts
  readonly #client: string
  readonly #agents = new Map<HostName, EphemeralAgent>()
  /** Where the guest runs. */
  #at: HostName = 'a'
  #shell!: Shell
  #pgbench: Pgbench | undefined
  readonly #rows: Rows[] = []
  #transactions = 0

  private constructor(network: TestNetwork, machines: DebianHosts, client: string) {
    this.#network = network
    this.#machines = machines
    this.#client = client
  }

  /** Resolves when the guest has booted. */
  static async start(manager: Manager = 'subpage'): Promise<DebianPair> {
    const network = await TestNetwork.make()
    const client = await network.namespace()
    const machines = await (manager === 'libvirt' ? LibvirtHosts : OwnHosts).make(network, client)
    const pair = new DebianPair(network, machines, client)
    try {
      await pair.#boot()
      return pair
    } catch (error) {
      await pair[Symbol.asyncDispose]()
      throw error
    }
  }

  async #boot(): Promise<void> {
    for (const host of hostNames) await this.#startAgent(host)
    await this.#machines.start(this.#hosts.directory, this.#agent('a').stateDirectory)
    this.#shell = await Shell.open(this.#network, this.#client)
    await this.#shell.run('systemctl is-system-running --wait', 120_000)
  }

  async #startAgent(host: HostName): Promise<void> {
    this.#agents.set(host, await this.#hosts.add(host, {}, undefined, this.#machines.prefix(host)))
  }

  #agent(host: HostName): EphemeralAgent {
    return this.#agents.get(host)!
  }

  get #other(): HostName {
    return this.#at === 'a' ? 'b' : 'a'
  }

  /** Resolves when it is protected, with its disk. */
  async protect(): Promise<void> {
    // Half as often as usual: more of the time is the emulated processor's.
    const [from, to] = [this.#agent(this.#at), this.#agent(this.#other)].map((one) => one.stateDirectory)
    const { status, said } = await this.#machines.subpage(
      ...['protect', this.#machines.protected, '--state', from!, '--to', to!, '--epoch', '50ms'],
    )
    if (status !== 0) throw new Error(`subpage protect: ${said}`)
    await this.#untilProtected()
  }

  #untilProtected(): Promise<GuestStatus> {
    return until(
      this.#agent(this.#at),
      name,
      ({ role, state }) => role === 'Primary' && state === 'Protected',
      healMs,
    )
  }

  /** The clients begin. Resolves when all have been answered. */
  async load(): Promise<void> {
    for (const database of databaseNames)
      this.#rows.push(await Rows.begin(database, this.#network, this.#client))
    this.#pgbench = new Pgbench(this.#client)
    await this.#further()
  }

  async #further(): Promise<void> {
    await Promise.all(this.#rows.map((rows) => rows.further(rowsAfter)))
    const from = this.#transactions
    for (;;) {
      const broken = this.#pgbench?.broken
      if (broken) throw new Error(`pgbench: ${broken}`)
      const { transactions, wrong } = await balances(this.#shell)
      this.#transactions = transactions
      if (wrong) throw new Error(wrong)
      if (transactions > from) return
    }
  }

  /** Kills it after so many milliseconds, and resolves when all is as before, on one host or the other. */
  async kill(kind: KillKind, afterMs = 0): Promise<Outcome> {
    for (const rows of this.#rows) rows.longestMs = 0
    await delay(afterMs)
    const problems: string[] = []
    let takeoverMs: number | undefined
    const ignore = (error: Error) => void problems.push(error.message)
    try {
      takeoverMs = await this.#killed(kind)
      await this.#further()
      problems.push(...(await complaints(this.#shell)))
    } catch (error) {
      ignore(error as Error)
    }
    const longestMs = Math.round(Math.max(...this.#rows.map((rows) => rows.longestMs)))
    const time = await clocks(this.#shell)
    await this.#untilProtected().catch(ignore)
    return { kind, problems, takeoverMs, longestMs, transactions: this.#transactions, clocks: time }
  }

  /** @returns how long the takeover took */
  async #killed(kind: KillKind): Promise<number | undefined> {
    const agent = this.#agent(this.#at)
    if (kind === 'agent') {
      await endAgent(agent, 'SIGKILL')
      await this.#startAgent(this.#at)
      return undefined
    }
    const { pid } = await agent.client.guest(name)
    if (pid === null) throw new Error('the guest has no process')
    const pids = [...(kind === 'QEMU' ? [] : [await supervisorPid(agent, name)]), pid]
    for (const one of pids) process.kill(one, 'SIGKILL')
    await untilExited(pids)
    this.#at = this.#other
    const taken = await until(
      this.#agent(this.#at),
      name,
      ({ role, pid: runs }) => role !== 'Standby' && runs !== null,
    )
    return taken.takeover?.ms
  }

  /** The picture of its screen. */
  async screen(): Promise<Buffer> {
    const { png } = await this.#agent(this.#at).client.screenshot(name)
    return Buffer.from(png, 'base64')
  }

  /** In a root shell of the guest. @returns what it prints */
  command(text: string): Promise<string> {
    return this.#shell.run(text)
  }

  clocks(): Promise<Clocks> {
    return clocks(this.#shell)
  }

  /** Sets the guest's time of day from its battery clock, as an administrator would. */
  async setClock(): Promise<void> {
    await this.#shell.run('date -s "@$(cat /sys/class/rtc/rtc0/since_epoch)"')
  }

  get tps(): number {
    return this.#pgbench?.tps ?? 0
  }

  /** Ends the clients and the guest. @returns what is wrong with databases, file system and connections */
  async end(): Promise<string[]> {
    const problems: string[] = []
    const broken = this.#pgbench?.broken
    if (broken) problems.push(`pgbench: ${broken}`)
    await this.#pgbench?.end()
    for (const rows of this.#rows) problems.push(...[await rows.end()].filter((wrong) => wrong !== undefined))
    const note = (error: Error) => void problems.push(error.message)
    await checkPostgres(this.#shell).catch(note)
    problems.push(...(await complaints(this.#shell)))
    const agent = this.#agent(this.#at)
    const { path } = (await agent.client.guest(name)).disks[0]!
    // Nothing is synced: its disk is that of a machine that was switched off.
    this.#shell.connection.send('systemctl poweroff --force --force\n')
    await until(agent, name, ({ state }) => state === 'Ended')
    try {
      assertSystemClean(this.#machines.pathOf(this.#at, path))
    } catch (error) {
      note(error as Error)
    }
    return problems
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pgbench?.end()
    await this.#hosts[Symbol.asyncDispose]()
    await this.#machines[Symbol.asyncDispose]()
    await this.#network[Symbol.asyncDispose]()
  }
}
