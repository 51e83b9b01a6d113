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
import type { ChunkMap } from '../disk/chunk-map.ts'
import { DiskEndpoint } from '../disk/endpoint.ts'
import { SubpageError } from '../errors.ts'
import type { CopyKnowledge, DiskReader, GuestDisks } from '../replication/disks.ts'
import { BitmapMap } from './bitmap-map.ts'
import { type Disk, diskNode, mirrorNode } from './disk.ts'
import { openExports } from './disk-export.ts'
import { bytesOf, fill, runsOf } from './disk-fill.ts'
import { type DiskMaps, markedBy } from './disk-maps.ts'
import type { GuestFiles } from './guest-files.ts'
import { jobPrefix, mirrorJobs, untilCaughtUp, untilJobsGone, untilSettled } from './mirror-jobs.ts'
import { MirrorLoss } from './mirror-loss.ts'
import {
  fedOf,
  journalBytesOf,
  letOwnerConnect,
  letSpill,
  type Mirror,
  notSpilled,
  seenOf,
  sentOf,
} from './mirrored-disk.ts'
import type { PauseLease } from './pause-lease.ts'
import type { Qmp, QmpEvent } from './qmp.ts'
import { standStill } from './stand-still.ts'

const targetPrefix = 'subpage-nbd-'
/** What may be left to copy while the guest stands still, as a part of a journal. */
const leftShareMax = 1 / 4

export interface MirroredDisks {
  qmp: Qmp
  files: GuestFiles
  disks: readonly Disk[]
  lease: PauseLease
  maps: Pick<DiskMaps, 'all' | 'directory'>
}

export class DiskMirrors implements GuestDisks {
  readonly sizes: readonly number[]
  readonly maps: readonly (ChunkMap | BitmapMap | undefined)[]
  readonly #qmp: Qmp
  readonly #files: GuestFiles
  readonly #disks: readonly Disk[]
  readonly #lease: PauseLease
  #mirrors: Mirror[] = []
  readonly #loss = new MirrorLoss()
  #tapping: Promise<void> = Promise.resolve()
  #over = true
  readonly #spillDirectory: string

  constructor({ qmp, files, disks, lease, maps }: MirroredDisks) {
    this.maps = disks.map((disk, index) => {
      const map = maps.all[index]
      const { bytes } = disk
      return map && markedBy(disk) === 'bitmap'
        ? new BitmapMap(map, { qmp, socket: files.disksSocket, node: diskNode(disk), bytes })
        : map
    })
    this.#spillDirectory = maps.directory
    this.#qmp = qmp
    this.#lease = lease
    this.#files = files
    this.#disks = disks
    this.sizes = disks.map(({ bytes }) => bytes)
  }

  get complete(): boolean {
    return (
      this.#mirrors.length === this.#disks.length && this.#mirrors.every(({ state }) => state === 'tapped')
    )
  }

  get fedBytes(): number {
    return this.#mirrors.reduce((sum, mirror) => sum + Math.min(fedOf(mirror), mirror.feedBytes), 0)
  }

  get feedBytes(): number {
    if (this.#mirrors.length === 0) return this.sizes.reduce((sum, bytes) => sum + bytes, 0)
    return this.#mirrors.reduce((sum, { feedBytes }) => sum + feedBytes, 0)
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

  async begin(known: CopyKnowledge[], failed: (why: Error) => void): Promise<void> {
    await this.end()
    this.#loss.begin(failed)
    this.#over = false
    try {
      for (const [index, disk] of this.#disks.entries()) await this.#open(disk, index, known[index]!)
      const copied = this.#mirrors.filter(({ state }) => state === 'copying')
      if (copied.length > 0)
        await this.#still(() =>
          this.#mirrorAll(copied, {
            ...{ sync: 'full', 'copy-mode': 'background', 'on-target-error': 'report' },
          }),
        )
      else this.#tapAll()
    } catch (cause) {
      this.drop()
      throw new SubpageError('DISK_FAILED', `a disk cannot be copied: ${(cause as Error).message}`, { cause })
    }
  }

  async #open(disk: Disk, index: number, known: CopyKnowledge): Promise<void> {
    const path = this.#files.mirror(index)
    const journalBytesMax = journalBytesOf(this.#disks.length)
    const endpoint = DiskEndpoint.open({ path, bytes: disk.bytes, journalBytesMax })
    const whole = 'hashes' in known
    this.#mirrors.push({
      ...{ disk, index, endpoint, state: whole ? 'copying' : 'copied', readBytes: 0, sentBytes: 0 },
      ...{ changed: whole ? undefined : known.changed, feedBytes: whole ? disk.bytes : 0 },
    })
    if (whole) endpoint.know(known.hashes)
    letOwnerConnect(path)
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

  async #mirrorAll(mirrors: readonly Mirror[], how: Record<string, string>): Promise<void> {
    for (const { disk } of mirrors)
      await this.#qmp.run('blockdev-mirror', {
        'job-id': jobPrefix + disk.name,
        device: diskNode(disk),
        target: targetPrefix + disk.name,
        'filter-node-name': mirrorNode(disk.name),
        ...how,
      })
  }

  #tapAll(): void {
    this.#tapping = this.#tap().catch((error: Error) => this.#fail(this.#mirrors[0], error.message))
  }

  /** All has been copied but for what the guest wrote meanwhile, and what the maps say. */
  async #tap(): Promise<void> {
    const limits = { bytesMax: journalBytesOf(this.#disks.length) * leftShareMax, over: () => this.#over }
    await untilSettled(this.#qmp, limits, () => this.waitingBytes)
    if (this.#over) return
    const broke = (mirror: Mirror, why: string) => this.#fail(mirror, why)
    await letSpill(this.#mirrors, this.#spillDirectory, { over: () => this.#over, broke })
    await untilCaughtUp(this.#qmp, limits)
    if (this.#over) return
    await this.#still(async () => {
      // Of a job that has copied everything that is its end; until then it goes on copying.
      for (const { device } of await mirrorJobs(this.#qmp))
        await this.#qmp.run('block-job-cancel', { device })
      await untilJobsGone(this.#qmp)
      this.#lease.mirrors(this.#disks.map(({ name }) => targetPrefix + name))
      for (const { endpoint, index } of this.#mirrors) {
        const map = this.maps[index]
        if (map instanceof BitmapMap) await map.tap()
        if (map) endpoint.watch(map.path, map instanceof BitmapMap)
      }
      await this.#mirrorAll(this.#mirrors, {
        ...{ sync: 'none', 'copy-mode': 'write-blocking', 'on-target-error': 'stop' },
      })
    })
    if (this.#over) return
    for (const mirror of this.#mirrors) {
      mirror.state = mirror.changed || this.#noted(mirror) ? 'filling' : 'tapped'
      mirror.readBytes = mirror.feedBytes
      mirror.sentBytes = sentOf(mirror)
    }
    await this.#fillAll(this.#mirrors.filter(({ state }) => state === 'filling'))
  }

  /** Its map, where QEMU's bitmaps have noted what is written. */
  #noted({ index }: Mirror): BitmapMap | undefined {
    const map = this.maps[index]
    return map instanceof BitmapMap ? map : undefined
  }

  /** Whatever is written from now on comes by itself: what was written before is in the maps. */
  async #fillAll(mirrors: readonly Mirror[]): Promise<void> {
    if (mirrors.length === 0) return
    const serves = mirrors.some((mirror) => this.#noted(mirror))
    await using reader = await openExports(this.#qmp, this.#files.disksSocket, this.#disks, serves)
    for (const mirror of mirrors) {
      const { disk, index, endpoint, changed } = mirror
      await this.#noted(mirror)?.collect(changed !== undefined)
      if (!changed) {
        mirror.state = 'tapped'
        continue
      }
      const runs = runsOf(disk.bytes, changed, this.maps[index]!.marked())
      mirror.readBytes = 0
      mirror.feedBytes = bytesOf(runs, disk.bytes)
      const written = endpoint.stats.writtenBytes
      await fill(runs, {
        endpoint,
        journalBytesMax: journalBytesOf(this.#disks.length),
        read: (range) => reader.read(index, range),
        over: () => this.#over,
        still: (work) => this.#still(work),
        onRead: (bytes) => {
          mirror.readBytes += bytes
        },
      })
      if (this.#over) return
      mirror.sentBytes = mirror.readBytes + endpoint.stats.writtenBytes - written
      mirror.state = 'tapped'
    }
  }

  seal(): void {
    for (const { endpoint } of this.#mirrors) endpoint.seal()
  }

  unseal(): void {
    for (const { endpoint } of this.#mirrors) endpoint.unseal()
  }

  take(disk: number, into: Uint8Array, sealed: boolean): number {
    const mirror = this.#mirrors[disk]
    try {
      return mirror?.endpoint.take(into, sealed) ?? 0
    } catch (cause) {
      const failure = notSpilled(this.#spillDirectory, cause as Error)
      this.#fail(mirror, failure.message)
      throw failure
    }
  }

  drop(): void {
    for (const { endpoint } of this.#mirrors) endpoint.drop()
  }

  /** Also what a former supervisor has left. */
  async end(): Promise<void> {
    if (this.#disks.length === 0) return
    this.#loss.end()
    this.#over = true
    this.drop()
    await this.#tapping
    if ((await mirrorJobs(this.#qmp)).length > 0)
      await this.#still(async () => {
        for (const { device } of await mirrorJobs(this.#qmp)) {
          // It may have ended by itself just now.
          await this.#qmp.run('block-job-cancel', { device, force: true }).catch(() => undefined)
        }
        await untilJobsGone(this.#qmp)
      })
    const nodes = await this.#qmp.run<{ 'node-name': string }[]>('query-named-block-nodes', { flat: true })
    for (const { 'node-name': node } of nodes)
      if (node.startsWith(targetPrefix)) await this.#qmp.run('blockdev-del', { 'node-name': node })
    this.close()
  }

  /** After `end`: what notes writes for the next `begin` goes, too. */
  async leave(): Promise<void> {
    for (const map of this.maps) if (map instanceof BitmapMap) await map.leave()
  }

  async open(): Promise<DiskReader> {
    return await openExports(this.#qmp, this.#files.disksSocket, this.#disks)
  }

  /** The mirrors lose their other end; no write waits for it. */
  close(): void {
    this.#loss.end()
    this.#over = true
    for (const { endpoint } of this.#mirrors) endpoint.close()
    if (this.#mirrors.length > 0) this.#lease.mirrors([])
    this.#mirrors = []
  }

  /** What a disk's endpoint has seen; undefined while it is not mirrored. */
  seenOf(index: number) {
    const mirror = this.#mirrors[index]
    return mirror && seenOf(mirror)
  }

  async #still(work: () => Promise<void>): Promise<void> {
    if (await standStill({ qmp: this.#qmp, lease: this.#lease }, work)) return
    throw new SubpageError('PAUSE_BROKEN', 'the guard resumed the guest while its disks were being seen to')
  }

  /** An event of their QEMU. */
  heard({ event, data }: QmpEvent): void {
    this.#loss.heard(event)
    const mirror = this.#mirrors.find(({ disk }) => jobPrefix + disk.name === data?.device)
    if (!mirror) return
    if (event === 'BLOCK_JOB_READY' && mirror.state === 'copying') {
      mirror.state = 'copied'
      if (
        this.#mirrors.length === this.#disks.length &&
        this.#mirrors.every(({ state }) => state === 'copied')
      )
        this.#tapAll()
    }
    const broken =
      event === 'BLOCK_JOB_ERROR' || event === 'BLOCK_JOB_CANCELLED' || typeof data?.error === 'string'
    // What has copied everything is ended by us.
    if (!broken && (event !== 'BLOCK_JOB_COMPLETED' || mirror.state === 'copied')) return
    this.#fail(mirror, typeof data?.error === 'string' ? data.error : 'its other end is lost')
  }

  #fail(mirror: Mirror | undefined, why: string): void {
    if (!mirror) return
    mirror.state = 'lost'
    this.#over = true
    mirror.endpoint.drop()
    this.#loss.of(new Error(`the copying of disk ${mirror.disk.name} broke off: ${why}`))
  }

  #sum(of: (stats: DiskEndpoint['stats']) => number): number {
    return this.#mirrors.reduce((sum, { endpoint }) => sum + of(endpoint.stats), 0)
  }
}
