/**
 * Feeds what a guest writes to its disks to replication: QEMU mirrors each disk into an endpoint of ours, in write-blocking mode,
 * so that at the answer of `stop` the endpoint has seen every write that the guest sees done. The mirror is begun and ended on
 * the running guest. Whatever goes wrong with it is no concern of the guest's: QEMU drops the mirror, and the disk works on.
 */
import { DiskEndpoint } from '../disk/endpoint.ts'
import { SubpageError } from '../errors.ts'
import type { DiskReader, GuestDisks } from '../replication/disks.ts'
import { type Disk, diskNode, mirrorNode } from './disk.ts'
import { openExports } from './disk-export.ts'
import type { GuestFiles } from './guest-files.ts'
import type { PauseLease } from './pause-lease.ts'
import type { Qmp, QmpEvent } from './qmp.ts'

/** For what a guest writes faster than it is sent; then it waits. */
const journalBytesMax = 64 * 2 ** 20
const jobPrefix = 'subpage-mirror-'
const targetPrefix = 'subpage-nbd-'
const endMsMax = 10_000

interface Mirror {
  disk: Disk
  endpoint: DiskEndpoint
  ready: boolean
}

export class DiskMirrors implements GuestDisks {
  readonly sizes: readonly number[]
  readonly #qmp: Qmp
  readonly #files: GuestFiles
  readonly #disks: readonly Disk[]
  readonly #lease: PauseLease
  #mirrors: Mirror[] = []
  #failed: (why: Error) => void = () => undefined

  constructor(qmp: Qmp, files: GuestFiles, disks: readonly Disk[], lease: PauseLease) {
    this.#qmp = qmp
    this.#lease = lease
    this.#files = files
    this.#disks = disks
    this.sizes = disks.map(({ bytes }) => bytes)
    if (disks.length > 0) qmp.on('event', (event) => this.#heard(event))
  }

  get complete(): boolean {
    return this.#mirrors.length === this.#disks.length && this.#mirrors.every(({ ready }) => ready)
  }

  get fedBytes(): number {
    // What the guest writes meanwhile counts as well: the bound keeps the sum below what there is.
    return this.#mirrors.reduce(
      (sum, { disk, endpoint, ready }) =>
        sum + (ready ? disk.bytes : Math.min(endpoint.stats.writtenBytes, disk.bytes)),
      0,
    )
  }

  get waitingBytes(): number {
    return this.#sum(({ currentBytes }) => currentBytes)
  }

  get urgent(): boolean {
    return this.#mirrors.some(({ endpoint }) => endpoint.stats.waitingMs > 0)
  }

  async begin(hashes: Uint8Array[], failed: (why: Error) => void): Promise<void> {
    await this.end()
    this.#failed = failed
    try {
      this.#lease.mirrors(this.#disks.map(({ name }) => targetPrefix + name))
      for (const [index, disk] of this.#disks.entries()) await this.#mirror(disk, index, hashes[index]!)
    } catch (cause) {
      this.drop()
      throw new SubpageError('DISK_FAILED', `a disk cannot be copied: ${(cause as Error).message}`, { cause })
    }
  }

  async #mirror(disk: Disk, index: number, hashes: Uint8Array): Promise<void> {
    const path = this.#files.mirror(index)
    const endpoint = DiskEndpoint.open({ path, bytes: disk.bytes, journalBytesMax })
    this.#mirrors.push({ disk, endpoint, ready: false })
    endpoint.know(hashes)
    endpoint.record()
    await this.#qmp.run('blockdev-add', {
      driver: 'nbd',
      'node-name': targetPrefix + disk.name,
      export: '',
      // A write must not wait for an endpoint that has ended.
      'reconnect-delay': 0,
      server: { type: 'unix', path },
    })
    await this.#qmp.run('blockdev-mirror', {
      'job-id': jobPrefix + disk.name,
      device: diskNode(disk.name),
      target: targetPrefix + disk.name,
      'filter-node-name': mirrorNode(disk.name),
      sync: 'full',
      'copy-mode': 'write-blocking',
      'on-target-error': 'report',
    })
  }

  seal(): void {
    for (const { endpoint } of this.#mirrors) endpoint.seal()
  }

  unseal(): void {
    for (const { endpoint } of this.#mirrors) endpoint.unseal()
  }

  take(disk: number, into: Uint8Array, sealed: boolean): number {
    return this.#mirrors[disk]?.endpoint.take(into, sealed) ?? 0
  }

  drop(): void {
    for (const { endpoint } of this.#mirrors) endpoint.drop()
  }

  /** Also what a former supervisor has left. */
  async end(): Promise<void> {
    if (this.#disks.length === 0) return
    this.#failed = () => undefined
    this.drop()
    const jobs = await this.#qmp.run<{ device: string }[]>('query-block-jobs')
    for (const { device } of jobs) if (device.startsWith(jobPrefix)) await this.#cancel(device)
    const nodes = await this.#qmp.run<{ 'node-name': string }[]>('query-named-block-nodes', { flat: true })
    for (const { 'node-name': node } of nodes)
      if (node.startsWith(targetPrefix)) await this.#qmp.run('blockdev-del', { 'node-name': node })
    this.close()
  }

  async open(): Promise<DiskReader> {
    return await openExports(this.#qmp, this.#files.disksSocket, this.#disks)
  }

  /** The mirrors lose their other end, and QEMU drops them. */
  close(): void {
    this.#failed = () => undefined
    for (const { endpoint } of this.#mirrors) endpoint.close()
    if (this.#mirrors.length > 0) this.#lease.mirrors([])
    this.#mirrors = []
  }

  /** What a disk's endpoint has seen; undefined while it is not mirrored. */
  seenOf(index: number) {
    const mirror = this.#mirrors[index]
    if (!mirror) return undefined
    const { currentBytes, sealedBytes, writes, writtenBytes, equalBytes, zeroBytes } = mirror.endpoint.stats
    const state = mirror.ready ? ('Protected' as const) : ('Seeding' as const)
    return { state, behindBytes: currentBytes + sealedBytes, writes, writtenBytes, equalBytes, zeroBytes }
  }

  async #cancel(job: string): Promise<void> {
    const ended = new Promise<void>((resolve) => {
      const onEvent = ({ event, data }: QmpEvent) => {
        if (/^BLOCK_JOB_(CANCELLED|COMPLETED)$/.test(event) && data?.device === job) done()
      }
      const done = () => {
        clearTimeout(late)
        this.#qmp.off('event', onEvent)
        resolve()
      }
      const late = setTimeout(done, endMsMax)
      this.#qmp.on('event', onEvent)
      this.#qmp.once('close', done)
    })
    // It may have ended by itself just now.
    await this.#qmp.run('block-job-cancel', { device: job, force: true }).catch(() => undefined)
    await ended
  }

  #heard({ event, data }: QmpEvent): void {
    // A QEMU that ends cancels its jobs: that is no failure, and why it ends is still to be told to the standby.
    if (event === 'SHUTDOWN') this.#failed = () => undefined
    const mirror = this.#mirrors.find(({ disk }) => jobPrefix + disk.name === data?.device)
    if (!mirror) return
    if (event === 'BLOCK_JOB_READY') mirror.ready = true
    if (event !== 'BLOCK_JOB_COMPLETED' && event !== 'BLOCK_JOB_CANCELLED') return
    mirror.ready = false
    mirror.endpoint.drop()
    const why = typeof data?.error === 'string' ? data.error : 'QEMU has ended it'
    this.#failed(new Error(`the copying of disk ${mirror.disk.name} broke off: ${why}`))
  }

  #sum(of: (stats: DiskEndpoint['stats']) => number): number {
    return this.#mirrors.reduce((sum, { endpoint }) => sum + of(endpoint.stats), 0)
  }
}
