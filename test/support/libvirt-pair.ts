/** Two hosts with a libvirtd of their own each, whose bridge is one, and a client beside them; domains are made as people make them. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { guestImage } from '../../src/qemu/demo-guest.ts'
import { Hosts, until } from './hosts.ts'
import { Libvirtd } from './libvirt.ts'
import { type Connection, TestNetwork } from './network.ts'
import type { Finished } from './subpage.ts'

export interface LibvirtHost {
  agent: EphemeralAgent
  libvirtd: Libvirtd
}

/** @throws Error what the command said, if it failed or said anything */
function silent(command: string, { status, said }: Finished): void {
  if (status !== 0 || said !== '') throw new Error(`${command}: exit ${status}: ${said}`)
}

export class LibvirtPair implements AsyncDisposable {
  readonly a: LibvirtHost
  readonly b: LibvirtHost
  readonly #hosts: Hosts
  readonly #network: TestNetwork
  readonly #bridge: string
  readonly #client: string

  private constructor(
    [a, b]: [LibvirtHost, LibvirtHost],
    hosts: Hosts,
    network: TestNetwork,
    [bridge, client]: [string, string],
  ) {
    this.a = a
    this.b = b
    this.#hosts = hosts
    this.#network = network
    this.#bridge = bridge
    this.#client = client
  }

  static async make(): Promise<LibvirtPair> {
    const network = await TestNetwork.make()
    const hosts = new Hosts()
    const host = async (name: string): Promise<LibvirtHost> => {
      const libvirtd = await Libvirtd.start()
      return { libvirtd, agent: await hosts.add(name, {}, undefined, libvirtd.prefix) }
    }
    const pair = await Promise.all([host('a'), host('b')])
    const [bridge, client] = [await network.bridge(), await network.namespace()]
    await network.attach(client, '10.79.0.1/24', bridge)
    return new LibvirtPair(pair, hosts, network, [bridge, client])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#hosts[Symbol.asyncDispose]()
    for (const { libvirtd } of [this.a, this.b]) await libvirtd[Symbol.asyncDispose]()
    await this.#network[Symbol.asyncDispose]()
  }

  /** A file of a test's own, on neither host. */
  path(name: string): string {
    return join(this.#hosts.directory, name)
  }

  /**
   * Makes a domain of the demo guest on a, which sums what clients send it, and prepares it.
   * @param address in 10.79.0.0/24 @param options of virt-install @param boot of its --boot, beside the kernel
   * @param append further kernel arguments
   */
  async define(
    name: string,
    address: string,
    options: string[],
    boot: string[] = [],
    append: string[] = [],
  ): Promise<void> {
    const { libvirtd } = this.a
    const kernel = [`kernel=${guestImage('vmlinuz')}`, `initrd=${guestImage('initrd.gz')}`]
    const { status, out, said } = await libvirtd.run(
      ...['virt-install', '--name', name, '--memory', '160', '--virt-type', 'qemu', '--machine', 'q35'],
      ...['--network', `bridge=${this.#bridge},model=virtio`, ...options],
      ...['--osinfo', 'detect=off,require=off', '--noautoconsole', '--print-xml', '--boot'],
      [
        ...boot,
        ...kernel,
        `kernel_args=${['console=ttyS0', 'workload=sum', `net=${address}/24`, ...append].join(' ')}`,
      ].join(','),
    )
    if (status !== 0) throw new Error(`virt-install: ${said}`)
    const description = this.path(`${name}.xml`)
    writeFileSync(description, out)
    await libvirtd.virsh('define', description)
    silent('prepare', await libvirtd.subpage('libvirt', 'prepare', name, '--apply', '--json'))
  }

  /** The command that protects it, from a to b. */
  protect(name: string): Promise<Finished> {
    const to = ['--to', this.b.agent.stateDirectory]
    const from = ['--state', this.a.agent.stateDirectory]
    return this.a.libvirtd.subpage('protect', `libvirt:${name}`, ...from, ...to, '--json')
  }

  async startAndProtect(name: string): Promise<void> {
    await this.a.libvirtd.virsh('start', name)
    await this.untilProtected(name)
  }

  /** Of one that runs. */
  async untilProtected(name: string): Promise<void> {
    silent('protect', await this.protect(name))
    await until(this.a.agent, name, ({ state }) => state === 'Protected')
  }

  /** The guest has its address when it has booted. */
  async connect(address: string, port = 7070): Promise<Connection> {
    for (;;)
      try {
        return await this.#network.connect(this.#client, address, port)
      } catch {
        // Not yet.
        await delay(100)
      }
  }
}
