/**
 * Two hosts for torture: a network, a /dev/shm and a boot of its own for each, so that neither sees the other's processes,
 * on one machine. Their agents speak mutual TLS through a wire that can fail; both see one arbiter directory, as on
 * shared storage. The guests' network is another one, with a client on it.
 *
 *   client ── br0 of a ── br0 of b         a (10.99.0.1) ── wire (10.99.0.11, .12: the proxies) ── b (10.99.0.2)
 */
import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type EphemeralAgent, startEphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { makeOwnedDirectory, removeOwnedDirectory } from '../../src/agent/owned-directory.ts'
import type { GuestStatus } from '../../src/agent/status.ts'
import { packageRoot } from '../../src/memory/native.ts'
import { TestCa, tlsEnvironment } from './certificates.ts'
import { supervisorsOf, untilExited } from './hosts.ts'
import { ip, TestNetwork } from './network.ts'
import type { WireFault } from './wire-proxy.ts'

const port = 7475

export class TestHost {
  readonly name: string
  readonly namespace: string
  /** Where its agent listens, and where others reach it: the wire's proxy. */
  readonly address: string
  readonly reached: string
  readonly stateDirectory: string
  readonly #environment: Record<string, string>
  readonly #holder: ChildProcess
  agent: EphemeralAgent | undefined
  /** All that its agents have said, one after the other. */
  readonly events: string[] = []

  constructor(
    of: Pick<TestHost, 'name' | 'namespace' | 'address' | 'reached' | 'stateDirectory'>,
    environment: Record<string, string>,
    holder: ChildProcess,
  ) {
    this.name = of.name
    this.namespace = of.namespace
    this.address = of.address
    this.reached = of.reached
    this.stateDirectory = of.stateDirectory
    this.#environment = environment
    this.#holder = holder
  }

  /** Starts the agent, or the next one. */
  async start(fault?: string): Promise<EphemeralAgent> {
    const agent = await startEphemeralAgent({
      stateDirectory: this.stateDirectory,
      host: this.name,
      listen: `${this.address}:${port}`,
      env: { ...this.#environment, SUBPAGE_FAULT: fault ?? '' },
      prefix: ['nsenter', '-t', String(this.#holder.pid), '-m', '-n', '--'],
    })
    this.agent = agent
    this.#note(fault ? `agent started, SUBPAGE_FAULT=${fault}` : 'agent started')
    void this.#follow(agent)
    return agent
  }

  async #follow({ client }: EphemeralAgent): Promise<void> {
    try {
      for await (const { time, kind, guest, text } of client.events())
        this.events.push(`${time} ${this.name} ${guest} ${kind}: ${text}`)
    } catch {
      // The agent was killed.
    }
  }

  #note(text: string): void {
    this.events.push(`${new Date().toISOString()} ${this.name} test: ${text}`)
  }

  get running(): boolean {
    const child = this.agent?.process
    return child !== undefined && child.exitCode === null && child.signalCode === null
  }

  /** To the agent alone. */
  signalAgent(signal: NodeJS.Signals): void {
    if (!this.running) return
    this.#note(`agent gets ${signal}`)
    this.agent?.process.kill(signal)
  }

  /** To all processes of subpage on this host. */
  signal(signal: NodeJS.Signals): void {
    this.signalAgent(signal)
    for (const pid of this.supervisors) {
      this.#note(`supervisor ${pid} gets ${signal}`)
      process.kill(pid, signal)
    }
  }

  get supervisors(): number[] {
    return supervisorsOf(this.stateDirectory)
  }

  /** Ends the agent; its guests, and what is done for them, go on. */
  async endAgent(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    if (!this.running || !this.agent) return
    const exited = once(this.agent.process, 'exit')
    this.signalAgent(signal)
    await exited
  }

  /** Ends all processes of subpage on this host, and no guest. SIGTERM as a machine that goes down does it. */
  async endAll(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    // First the agent, which would start supervisors anew.
    await this.endAgent(signal)
    const { supervisors } = this
    this.signal(signal)
    await untilExited(supervisors)
  }

  /** The guest as this host has it; undefined when it knows no such guest, or does not answer in time. */
  async guest(name: string, limitMs = 2_000): Promise<GuestStatus | undefined> {
    if (!this.running || !this.agent) return undefined
    // An agent that is being killed, or does not know the guest.
    const answer = this.agent.client.guest(name).catch(() => undefined)
    return await Promise.race([answer, delay(limitMs, undefined, { ref: false })])
  }

  /** A path on this host. */
  path(path: string): string {
    return `/proc/${this.#holder.pid}/root${path}`
  }

  /** Frames that guests have put out, by tap. */
  framesOut(): Map<string, number> {
    const frames = new Map<string, number>()
    for (const line of readFileSync(`/proc/${this.#holder.pid}/net/dev`, 'utf8').split('\n')) {
      const [, tap, packets] = /^\s*(sp[0-9a-f]{10}-\d+):\s*\d+\s+(\d+)/.exec(line) ?? []
      if (tap !== undefined) frames.set(tap, Number(packets))
    }
    return frames
  }

  async end(): Promise<void> {
    this.signal('SIGCONT')
    await Promise.race([this.agent?.end(), delay(15_000, undefined, { ref: false })])
    await this.endAll('SIGKILL')
    this.#holder.kill('SIGKILL')
  }
}

export class TwoHosts {
  readonly directory: string
  readonly network: TestNetwork
  readonly hosts: readonly [TestHost, TestHost]
  readonly client: string
  readonly #wire: string
  readonly #proxy: ChildProcess
  /** The hosts' ports on the wire. */
  readonly #ports = new Map<TestHost, string>()

  private constructor(
    of: Pick<TwoHosts, 'directory' | 'network' | 'hosts' | 'client'>,
    wire: string,
    proxy: ChildProcess,
    ports: [string, string],
  ) {
    this.directory = of.directory
    this.network = of.network
    this.hosts = of.hosts
    this.client = of.client
    this.#wire = wire
    this.#proxy = proxy
    for (const [index, host] of of.hosts.entries()) this.#ports.set(host, ports[index] ?? '')
  }

  /** @param shmMib of each host's own /dev/shm */
  static async make(shmMib = 700): Promise<TwoHosts> {
    const directory = makeOwnedDirectory('subpage-test-')
    const network = await TestNetwork.make()
    const wire = await network.namespace()
    await ip('-netns', wire, 'link', 'add', 'name', 'wbr', 'type', 'bridge')
    await ip('-netns', wire, 'link', 'set', 'dev', 'wbr', 'up')
    for (const address of ['10.99.0.11/24', '10.99.0.12/24'])
      await ip('-netns', wire, 'address', 'add', address, 'dev', 'wbr')
    const arbiter = join(directory, 'arbiter')
    mkdirSync(arbiter, { mode: 0o700 })
    const ca = await TestCa.make(join(directory, 'ca'))
    const make = async (name: string, index: number) => {
      const namespace = await network.namespace()
      await ip('-netns', namespace, 'link', 'add', 'name', 'br0', 'type', 'bridge')
      await ip('-netns', namespace, 'link', 'set', 'dev', 'br0', 'up')
      const [address, reached] = [`10.99.0.${1 + index}`, `10.99.0.${11 + index}`]
      const at = await network.attach(namespace, `${address}/24`, 'wbr', wire)
      const files = await ca.files(name, [address, reached])
      const holder = await hold(namespace, join(directory, `boot-${name}`), index, shmMib)
      const environment = {
        ...tlsEnvironment(files),
        SUBPAGE_ARBITER: `file:${arbiter}`,
        SUBPAGE_ADVERTISE: `${reached}:${port}`,
        NO_COLOR: '1',
      }
      const stateDirectory = join(directory, name)
      const host = new TestHost({ name, namespace, address, reached, stateDirectory }, environment, holder)
      return { host, at }
    }
    const [a, b] = [await make('a', 0), await make('b', 1)]
    await network.cable(['br0', a.host.namespace], ['br0', b.host.namespace])
    const client = await network.namespace()
    await network.attach(client, '10.78.0.1/24', 'br0', a.host.namespace)
    const proxy = fork(
      join(packageRoot, 'dist/test/support/wire-proxy.js'),
      [a, b].map(({ host }) => `${host.reached}:${port}=${host.address}:${port}`),
      { detached: true, execPath: 'ip', execArgv: ['netns', 'exec', wire, process.execPath] },
    )
    await once(proxy, 'message')
    return new TwoHosts({ directory, network, hosts: [a.host, b.host], client }, wire, proxy, [a.at, b.at])
  }

  /** What the wire does to the bytes between the agents. */
  spoil(fault: WireFault): void {
    this.#proxy.send(fault)
  }

  async link(host: TestHost, state: 'up' | 'down'): Promise<void> {
    await ip('-netns', this.#wire, 'link', 'set', 'dev', this.#ports.get(host) ?? '', state)
  }

  /** Drops what goes over the wire; without hosts: what comes from any. */
  async drop(host?: TestHost): Promise<void> {
    const which = host ? ['ip', 'saddr', host.address] : []
    await this.#nft('add', 'table', 'inet', 'wire')
    await this.#nft('add', 'chain', 'inet', 'wire', 'in', '{ type filter hook input priority 0; }')
    await this.#nft('add', 'rule', 'inet', 'wire', 'in', ...which, 'tcp', 'dport', '0-65535', 'drop')
  }

  async undrop(): Promise<void> {
    // There may be nothing to delete.
    await this.#nft('delete', 'table', 'inet', 'wire').catch(() => undefined)
  }

  async #nft(...args: string[]): Promise<void> {
    await ip('netns', 'exec', this.#wire, 'nft', args.join(' '))
  }

  /** Takes all the room in a host's /dev/shm, and gives it back. */
  async fill(host: TestHost, ms: number): Promise<void> {
    const file = host.path('/dev/shm/full')
    const filler = spawn('dd', ['if=/dev/zero', `of=${file}`, 'bs=256k'], { stdio: 'ignore' })
    await once(filler, 'exit')
    await delay(ms)
    rmSync(file, { force: true })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.hosts.map((host) => host.end()))
    this.#proxy.kill('SIGKILL')
    await removeOwnedDirectory(this.directory)
    await this.network[Symbol.asyncDispose]()
  }
}

/** A process that keeps a host's mounts: its own /dev/shm, and the boot id of another boot. */
async function hold(
  namespace: string,
  bootFile: string,
  index: number,
  shmMib: number,
): Promise<ChildProcess> {
  writeFileSync(bootFile, `${index}0000000-0000-4000-8000-00000000000${index}\n`)
  const script = `mount -t tmpfs -o size=${shmMib}m,mode=1777 none /dev/shm && mount --bind ${bootFile} /proc/sys/kernel/random/boot_id && echo held && exec cat`
  // `ip netns exec` gives its command a mount namespace of its own.
  const holder = spawn('ip', ['netns', 'exec', namespace, 'sh', '-c', script], {
    // It ends with us, however we end.
    stdio: ['pipe', 'pipe', 'ignore'],
    // A Ctrl-C on our terminal is ours.
    detached: true,
  })
  await Promise.race([
    once(holder.stdout!, 'data'),
    once(holder, 'exit').then(() => {
      throw new Error('cannot make the mounts of a host')
    }),
  ])
  return holder
}
