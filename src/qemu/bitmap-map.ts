/**
 * The map of a disk whose writes the shim does not see at the guest's places: qcow2, devices, other ways of input and output. While the
 * disk is tapped the endpoint marks each write. What it does not see is in a dirty bitmap of QEMU's, which notes each write as long as QEMU
 * lives: before the disk is tapped, and after its endpoint was lost. So the map is of no use once QEMU has died.
 *
 *   tapped   a new bitmap begins while the guest stands still; what the older ones have is marked in the map, and they go
 *   part     a new bitmap begins; the older one goes with `dropParted`. The guest has stood still once more in between, so the endpoint
 *            has seen all that the older one has, and what is read after a loss is what was written lately
 */
import type { ChunkMap } from '../disk/chunk-map.ts'
import { NbdReader } from '../disk/nbd-reader.ts'
import { chunkBytes, chunksOf } from '../disk/records.ts'
import { SubpageError } from '../errors.ts'
import type { WrittenChunks } from '../replication/disks.ts'
import type { Qmp } from './qmp.ts'

const prefix = 'subpage-written-'

export interface BitmapDisk {
  qmp: Qmp
  /** Of QEMU's NBD server, while it serves. */
  socket: string
  /** To which the guest's writes come. */
  node: string
  bytes: number
}

export class BitmapMap implements WrittenChunks {
  readonly path: string
  readonly #map: ChunkMap
  readonly #disk: BitmapDisk
  /** The newest is the last. */
  #names: string[] = []
  /** From before `part`. */
  #older: string[] = []
  #next = 0

  constructor(map: ChunkMap, disk: BitmapDisk) {
    this.path = map.path
    this.#map = map
    this.#disk = disk
  }

  get lineage(): string {
    return this.#map.lineage
  }

  inherit(lineage: string): void {
    this.#map.inherit(lineage)
  }

  forget(): void {
    this.#map.forget()
  }

  marked(): Uint8Array {
    return this.#map.marked()
  }

  part(): boolean {
    if (!this.#map.part()) return false
    this.#older = this.#names
    this.#names = []
    // In its order with what is asked of QEMU later: before the next time that the guest stands still.
    this.#add().catch(() => this.forget())
    return true
  }

  get parted(): boolean {
    return this.#map.parted
  }

  dropParted(): void {
    this.#map.dropParted()
    const older = this.#older
    this.#older = []
    // One that stays costs reading.
    for (const name of older) this.#run('remove', name).catch(() => undefined)
  }

  clear(): void {
    this.#map.clear()
  }

  /** The guest stands still, and each write is marked by the endpoint from now on. */
  async tap(): Promise<void> {
    const known = await this.#known()
    this.#next = Math.max(-1, ...known.map((name) => Number(name.slice(prefix.length)))) + 1
    this.#names = []
    await this.#add()
    for (const name of known) await this.#run('disable', name)
    this.#older = known
  }

  /**
   * Marks what was written before. QEMU's NBD server serves.
   * @param wanted without it all is compared
   * @throws SubpageError DISK_FAILED; the map has no lineage then
   */
  async collect(wanted: boolean): Promise<void> {
    const names = this.#older
    this.#older = []
    try {
      if (wanted && names.length === 0) throw new Error('there is no bitmap')
      for (const name of names) {
        if (wanted) this.#map.markBefore(await this.#read(name))
        await this.#run('remove', name)
      }
    } catch (cause) {
      this.forget()
      throw new SubpageError(
        'DISK_FAILED',
        `QEMU does not say what was written to ${this.#disk.node}: ${(cause as Error).message}`,
        { cause },
      )
    }
  }

  /** Nothing of ours stays in QEMU, which would refuse to go back to a snapshot; what is written from now on is not known. */
  async leave(): Promise<void> {
    this.forget()
    this.#names = []
    this.#older = []
    for (const name of await this.#known()) await this.#run('remove', name)
  }

  /** A bit for each chunk. */
  async #read(bitmap: string): Promise<Uint8Array> {
    const { qmp, socket, node, bytes } = this.#disk
    const marked = new Uint8Array(Math.ceil(chunksOf(bytes) / 8))
    await qmp.run('block-export-add', {
      ...{ type: 'nbd', id: bitmap, name: bitmap, 'node-name': node, bitmaps: [bitmap] },
    })
    const reader = await NbdReader.open(socket, bitmap, bitmap)
    for await (const range of reader.dirtyRanges()) {
      const last = Math.floor((range.offset + range.bytes - 1) / chunkBytes)
      for (let chunk = Math.floor(range.offset / chunkBytes); chunk <= last; chunk++)
        marked[chunk >> 3]! |= 1 << (chunk & 7)
    }
    reader.close()
    await qmp.run('block-export-del', { id: bitmap, mode: 'hard' })
    return marked
  }

  /** Also of a former supervisor. */
  async #known(): Promise<string[]> {
    const nodes = await this.#disk.qmp.run<{ 'node-name': string; 'dirty-bitmaps'?: { name?: string }[] }[]>(
      'query-named-block-nodes',
      { flat: true },
    )
    const bitmaps = nodes.find((node) => node['node-name'] === this.#disk.node)?.['dirty-bitmaps'] ?? []
    return bitmaps.flatMap(({ name }) => (name?.startsWith(prefix) ? [name] : []))
  }

  async #add(): Promise<void> {
    const name = `${prefix}${this.#next++}`
    this.#names.push(name)
    await this.#disk.qmp.run('block-dirty-bitmap-add', {
      ...{ node: this.#disk.node, name, granularity: chunkBytes, persistent: false },
    })
  }

  #run(what: 'remove' | 'disable', name: string): Promise<unknown> {
    return this.#disk.qmp.run(`block-dirty-bitmap-${what}`, { node: this.#disk.node, name })
  }
}
