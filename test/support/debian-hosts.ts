/**
 * Two hosts, and who starts the Debian guest on the first: a person with `subpage run`, or libvirt, of a domain that virt-install has made.
 * Their bridge is one, as if a network joined them.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { clientAddress, guestRamBytes, makeSystemDisk } from './debian-guest.ts'
import { Libvirtd } from './libvirt.ts'
import type { TestNetwork } from './network.ts'
import { type Finished, subpage } from './subpage.ts'

export const managers = ['subpage', 'libvirt'] as const
export type Manager = (typeof managers)[number]
export const hostNames = ['a', 'b'] as const
export type HostName = (typeof hostNames)[number]

export const guestName = 'debian'

export interface DebianHosts extends AsyncDisposable {
  /** What runs an agent of this host. */
  prefix(host: HostName): string[]
  /** Of a subpage command on the first host. */
  subpage(...args: string[]): Promise<Finished>
  /** Starts the guest on the first host, and puts the clients on its bridge. @param directory for files */
  start(directory: string, stateDirectory: string): Promise<void>
  /** The guest, as `protect` is told of it. */
  readonly protected: string
  /** By which others find a file of this host. */
  pathOf(host: HostName, path: string): string
}

function succeeded(command: string, { status, said }: Finished): void {
  if (status !== 0) throw new Error(`${command}: ${said}`)
}

/** Both are in one network namespace. */
export class OwnHosts implements DebianHosts {
  readonly protected = guestName
  readonly #network: TestNetwork
  readonly #namespace: string
  readonly #client: string

  private constructor(network: TestNetwork, namespace: string, client: string) {
    this.#network = network
    this.#namespace = namespace
    this.#client = client
  }

  static async make(network: TestNetwork, client: string): Promise<OwnHosts> {
    return new OwnHosts(network, await network.namespace(), client)
  }

  prefix(): string[] {
    return ['ip', 'netns', 'exec', this.#namespace]
  }

  subpage(...args: string[]): Promise<Finished> {
    return subpage(args)
  }

  async start(directory: string, stateDirectory: string): Promise<void> {
    const disk = join(directory, 'system.raw')
    makeSystemDisk(disk)
    succeeded(
      'subpage run',
      await this.subpage(
        ...['run', guestName, '--state', stateDirectory, '--accel', 'tcg'],
        ...['--ram', `${guestRamBytes / 2 ** 20}M`, '--firmware', 'uefi', '--vnc', 'auto'],
        ...['--disk', `${disk},name=system`, '--net', 'bridge=br0', '--', '-smp', '2', '-vga', 'std'],
      ),
    )
    await this.#network.attach(this.#client, clientAddress, 'br0', this.#namespace)
  }

  pathOf(_host: HostName, path: string): string {
    return path
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

const images = '/var/lib/libvirt/images'

/** Each has a libvirtd of its own; their bridge is this machine's. */
export class LibvirtHosts implements DebianHosts {
  readonly protected = `libvirt:${guestName}`
  readonly #network: TestNetwork
  readonly #client: string
  readonly #daemons: Readonly<Record<HostName, Libvirtd>>

  private constructor(network: TestNetwork, client: string, daemons: Record<HostName, Libvirtd>) {
    this.#network = network
    this.#client = client
    this.#daemons = daemons
  }

  static async make(network: TestNetwork, client: string): Promise<LibvirtHosts> {
    const [a, b] = await Promise.all([Libvirtd.start(), Libvirtd.start()])
    return new LibvirtHosts(network, client, { a, b })
  }

  prefix(host: HostName): string[] {
    return this.#daemons[host].prefix
  }

  subpage(...args: string[]): Promise<Finished> {
    return this.#daemons.a.subpage(...args)
  }

  async start(directory: string): Promise<void> {
    const { a } = this.#daemons
    const bridge = await this.#network.bridge()
    await this.#network.attach(this.#client, clientAddress, bridge)
    const [made, disk] = [join(directory, 'system.raw'), `${images}/system.raw`]
    makeSystemDisk(made)
    succeeded('cp', await a.run('cp', '--sparse=always', made, disk))
    await a.run('chown', 'libvirt-qemu:kvm', disk)
    const domain = await a.run(
      ...['virt-install', '--name', guestName, '--memory', `${guestRamBytes / 2 ** 20}`, '--vcpus', '2'],
      ...[
        '--virt-type',
        'qemu',
        '--machine',
        'q35',
        '--import',
        '--disk',
        `path=${disk},format=raw,bus=virtio`,
      ],
      ...['--network', `bridge=${bridge},model=virtio`, '--graphics', 'vnc', '--video', 'vga'],
      ...['--osinfo', 'detect=off,require=off', '--noautoconsole', '--print-xml', '--boot'],
      'uefi,firmware.feature0.name=secure-boot,firmware.feature0.enabled=no',
    )
    succeeded('virt-install', domain)
    const description = join(directory, `${guestName}.xml`)
    writeFileSync(description, domain.out)
    await a.virsh('define', description)
    succeeded('subpage libvirt prepare', await a.subpage('libvirt', 'prepare', guestName, '--apply'))
    await a.virsh('start', guestName)
  }

  pathOf(host: HostName, path: string): string {
    return this.#daemons[host].pathOf(path)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const libvirtd of Object.values(this.#daemons)) await libvirtd[Symbol.asyncDispose]()
  }
}
