/**
 * Feeds what a guest writes to its disks to replication: QEMU mirrors each disk into an endpoint of ours.
 *
 *   copying   in the background, what was there; no write of the guest's waits
 *   tapped    nothing is copied any more, but each write goes to the endpoint before the guest sees it done: at the answer of `stop`
 *             the endpoint has seen everything
 *
 * QEMU has both at once, too (`sync: full` in write-blocking mode). But whatever ends such a job while a write is under way, a
 * cancellation or the loss of the endpoint, makes it clear a bitmap that it has freed, which is the end of the guest: seen
 * with 7.2. So copying and tapping are two jobs, each begins and is cancelled while the guest stands still, and a tap whose
 * endpoint is lost does not end but pauses (`on-target-error: stop`): the disk works on.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { DiskEndpoint } from '../disk/endpoint.ts'
import { SubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import type { DiskReader, GuestDisks } from '../replication/disks.ts'
import { type Disk, diskNode, mirrorNode } from './disk.ts'
import { openExports } from './disk-export.ts'
import type { GuestFiles } from './guest-files.ts'
import type { PauseLease } from './pause-lease.ts'
import type { Qmp, QmpEvent } from './qmp.ts'
import { standStill } from './stand-still.ts'

/**
 * Of one disk, for what a guest writes faster than it is sent; then it waits. All of them together come on top of what was sent early of an
 * epoch (disk-sender.ts), and the standby holds no more than it says.
 */
export const journalBytesOf = (disks: number): number =>
  Math.min(64 * 2 ** 20, Math.floor((limits.checkpointDiskBytes.value * 3) / 8 / disks))
const jobPrefix = 'subpage-mirror-'
const targetPrefix = 'subpage-nbd-'
const endMsMax = 10_000
/** While jobs are looked at. */
const lookMs = 2
const expiredLooks = 500
/** What may be left to copy while the guest stands still: at first, and at most, as a part of a journal. */
const [leftBytesMin, leftShareMax] = [2 ** 20, 1 / 4]
const settleMs = 50

interface Mirror {
  disk: Disk
  endpoint: DiskEndpoint
  state: 'copying' | 'copied' | 'tapped' | 'lost'
}

interface Job {
  device: string
  len: number
  offset: number
}

export class DiskMirrors implements GuestDisks {
  readonly sizes: readonly number[]
  readonly #qmp: Qmp
  readonly #files: GuestFiles
  readonly #disks: readonly Disk[]
  readonly #lease: PauseLease
  #mirrors: Mirror[] = []
  #failed: (why: Error) => void = () => undefined
  #tapping: Promise<void> = Promise.resolve()
  #over = true

  constructor(qmp: Qmp, files: GuestFiles, disks: readonly Disk[], lease: PauseLease) {
    this.#qmp = qmp
    this.#lease = lease
    this.#files = files
    this.#disks = disks
    this.sizes = disks.map(({ bytes }) => bytes)
    if (disks.length > 0) qmp.on('event', (event) => this.#heard(event))
  }

  get complete(): boolean {
    return (
      this.#mirrors.length === this.#disks.length && this.#mirrors.every(({ state }) => state === 'tapped')
    )
  }

  get fedBytes(): number {
    // What the guest writes meanwhile counts as well: the bound keeps the sum below what there is.
    return this.#mirrors.reduce(
      (sum, { disk, endpoint, state }) =>
        sum + (state === 'tapped' ? disk.bytes : Math.min(endpoint.stats.writtenBytes, disk.bytes)),
      0,
    )
  }

  get waitingBytes(): number {
    return this.#sum(({ currentBytes }) => currentBytes)
  }

  get urgent(): boolean {
    return this.#mirrors.some(({ endpoint }) => endpoint.stats.waitingMs > 0)
  }

  /** Of all disks, since they are mirrored; undefined while they are not. */
  get writes(): number | undefined {
    return this.complete && this.#disks.length > 0 ? this.#sum(({ writes }) => writes) : undefined
  }

  async begin(hashes: Uint8Array[], failed: (why: Error) => void): Promise<void> {
    await this.end()
    this.#failed = failed
    this.#over = false
    try {
      for (const [index, disk] of this.#disks.entries()) await this.#open(disk, index, hashes[index]!)
      await this.#still(() =>
        this.#mirrorAll({ sync: 'full', 'copy-mode': 'background', 'on-target-error': 'report' }),
      )
    } catch (cause) {
      this.drop()
      throw new SubpageError('DISK_FAILED', `a disk cannot be copied: ${(cause as Error).message}`, { cause })
    }
  }

  async #open(disk: Disk, index: number, hashes: Uint8Array): Promise<void> {
    const path = this.#files.mirror(index)
    const journalBytesMax = journalBytesOf(this.#disks.length)
    const endpoint = DiskEndpoint.open({ path, bytes: disk.bytes, journalBytesMax })
    this.#mirrors.push({ disk, endpoint, state: 'copying' })
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
  }

  async #mirrorAll(how: Record<string, string>): Promise<void> {
    for (const { disk } of this.#mirrors)
      await this.#qmp.run('blockdev-mirror', {
        'job-id': jobPrefix + disk.name,
        device: diskNode(disk.name),
        target: targetPrefix + disk.name,
        'filter-node-name': mirrorNode(disk.name),
        ...how,
      })
  }

  /** All has been copied but for what the guest wrote meanwhile. */
  async #tap(): Promise<void> {
    await this.#settled()
    if (this.#over) return
    await this.#still(async () => {
      // Of a job that has copied everything that is its end; until then it goes on copying.
      for (const { device } of await this.#jobs()) await this.#qmp.run('block-job-cancel', { device })
      await this.#gone()
      this.#lease.mirrors(this.#disks.map(({ name }) => targetPrefix + name))
      await this.#mirrorAll({ sync: 'none', 'copy-mode': 'write-blocking', 'on-target-error': 'stop' })
    })
    if (!this.#over) for (const mirror of this.#mirrors) mirror.state = 'tapped'
  }

  /** Resolves when little is left; a guest that writes without a pause is allowed more with time. */
  async #settled(): Promise<void> {
    const most = journalBytesOf(this.#disks.length) * leftShareMax
    for (let allowed = leftBytesMin; !this.#over; allowed = Math.min(allowed * 1.2, most)) {
      const left = (await this.#jobs()).reduce(
        (sum, { len, offset }) => sum + len - offset,
        this.waitingBytes,
      )
      if (left <= allowed) return
      await delay(settleMs)
    }
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
    this.#over = true
    this.drop()
    await this.#tapping
    if ((await this.#jobs()).length > 0)
      await this.#still(async () => {
        for (const { device } of await this.#jobs()) {
          // It may have ended by itself just now.
          await this.#qmp.run('block-job-cancel', { device, force: true }).catch(() => undefined)
        }
        await this.#gone()
      })
    const nodes = await this.#qmp.run<{ 'node-name': string }[]>('query-named-block-nodes', { flat: true })
    for (const { 'node-name': node } of nodes)
      if (node.startsWith(targetPrefix)) await this.#qmp.run('blockdev-del', { 'node-name': node })
    this.close()
  }

  async open(): Promise<DiskReader> {
    return await openExports(this.#qmp, this.#files.disksSocket, this.#disks)
  }

  /** The mirrors lose their other end; no write waits for it. */
  close(): void {
    this.#failed = () => undefined
    this.#over = true
    for (const { endpoint } of this.#mirrors) endpoint.close()
    if (this.#mirrors.length > 0) this.#lease.mirrors([])
    this.#mirrors = []
  }

  /** What a disk's endpoint has seen; undefined while it is not mirrored. */
  seenOf(index: number) {
    const mirror = this.#mirrors[index]
    if (!mirror) return undefined
    const { currentBytes, sealedBytes, writes, writtenBytes, equalBytes, zeroBytes } = mirror.endpoint.stats
    const state = mirror.state === 'tapped' ? ('Protected' as const) : ('Seeding' as const)
    return { state, behindBytes: currentBytes + sealedBytes, writes, writtenBytes, equalBytes, zeroBytes }
  }

  /** Of ours. */
  async #jobs(): Promise<Job[]> {
    const jobs = await this.#qmp.run<Job[]>('query-block-jobs')
    return jobs.filter(({ device }) => device.startsWith(jobPrefix))
  }

  async #gone(): Promise<void> {
    const deadline = performance.now() + endMsMax
    while ((await this.#jobs()).length > 0) {
      if (performance.now() > deadline)
        throw new SubpageError(
          'DISK_FAILED',
          `QEMU does not end its copying of a disk within ${endMsMax / 1000} s`,
        )
      await delay(lookMs)
    }
  }

  async #still(work: () => Promise<void>): Promise<void> {
    // The guard may still be ending a pause; if it does not come to its end, that is said below.
    for (let looks = 0; this.#lease.expired && looks < expiredLooks; looks++) await delay(lookMs)
    if (await standStill({ qmp: this.#qmp, lease: this.#lease }, work)) return
    throw new SubpageError('PAUSE_BROKEN', 'the guard resumed the guest while its disks were being seen to')
  }

  #heard({ event, data }: QmpEvent): void {
    // A QEMU that ends cancels its jobs: that is no failure, and why it ends is still to be told to the standby.
    if (event === 'SHUTDOWN') this.#failed = () => undefined
    const mirror = this.#mirrors.find(({ disk }) => jobPrefix + disk.name === data?.device)
    if (!mirror) return
    if (event === 'BLOCK_JOB_READY' && mirror.state === 'copying') {
      mirror.state = 'copied'
      if (
        this.#mirrors.length === this.#disks.length &&
        this.#mirrors.every(({ state }) => state === 'copied')
      )
        this.#tapping = this.#tap().catch((error: Error) => this.#fail(mirror, error.message))
    }
    const broken =
      event === 'BLOCK_JOB_ERROR' || event === 'BLOCK_JOB_CANCELLED' || typeof data?.error === 'string'
    // What has copied everything is ended by us.
    if (!broken && (event !== 'BLOCK_JOB_COMPLETED' || mirror.state === 'copied')) return
    this.#fail(mirror, typeof data?.error === 'string' ? data.error : 'its other end is lost')
  }

  #fail(mirror: Mirror, why: string): void {
    mirror.state = 'lost'
    const failed = this.#failed
    this.#failed = () => undefined
    this.#over = true
    mirror.endpoint.drop()
    failed(new Error(`the copying of disk ${mirror.disk.name} broke off: ${why}`))
  }

  #sum(of: (stats: DiskEndpoint['stats']) => number): number {
    return this.#mirrors.reduce((sum, { endpoint }) => sum + of(endpoint.stats), 0)
  }
}
