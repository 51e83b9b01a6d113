/**
 * The map of the chunks of a disk that its guest has written (native/disk/chunk_map.h): a file that QEMU's shim marks before each
 * write, so that it outlasts the death of QEMU, of its supervisor, or of both. Two hosts whose disks came to be equal give their maps
 * one *lineage*; from then on the disks differ at most in what either map has marked, until one is given another lineage.
 *
 * Behind what native/disk/chunk_map.h says of the head, little endian:
 *
 *   64   1: there is a lineage u32 · 1: nobody has written to the disk since `mtime` u32 · `mtime`, of the disk's file, in ns u64
 *   80   lineage, 32 hexadecimal digits · id of the boot, 36 characters · id of the guest, 36 characters
 *
 * A loss of power takes what the page cache had, of disk and map: a map of another boot is not believed. Nor is one whose disk
 * somebody has written to since, or has put in its place.
 */
import { rmSync, statSync } from 'node:fs'
import { Region } from '../memory/region.ts'
import { chunksOf } from './records.ts'

const magic = 0x3150414d50425553n
const headBytes = 4096
const at = { diskBytes: 8, device: 16, inode: 24, active: 32, writer: 36, missed: 40 } as const
const ours = { hasLineage: 64, settled: 68, mtime: 72, lineage: 80, boot: 112, guest: 148, end: 184 } as const
const lineageDigits = 32

/** Whose disk it is. */
export interface MapOwner {
  /** Id of the guest. */
  guest: string
  bootId: string
  /** The disk, a regular file. */
  path: string
  /** Its size. */
  bytes: number
}

const setBytes = (diskBytes: number) => (Math.floor(chunksOf(diskBytes) / 8 / headBytes) + 1) * headBytes

export class ChunkMap {
  readonly path: string
  readonly #region: Region
  readonly #bytes: number
  /** Of the QEMU that has the disk; undefined: nobody writes to it but through us. */
  readonly #writer: number | undefined
  #restEmpty: boolean

  private constructor(path: string, region: Region, writer: number | undefined) {
    this.path = path
    this.#region = region
    this.#bytes = Number(this.#head().readBigUInt64LE(at.diskBytes))
    this.#writer = writer
    this.#restEmpty = this.#set(1 - this.#active).every((byte) => byte === 0)
  }

  /**
   * Makes the map of a disk that is going to be used; the next shim that opens it marks it.
   * @param keep whether one that is there, and belongs to the disk as it is, stays
   * @throws SubpageError NO_SPACE, BAD_ARGUMENT; the file system's own error
   */
  static async prepare(path: string, owner: MapOwner, keep: boolean): Promise<void> {
    if (keep && keeps(path, owner)) return
    rmSync(path, { force: true })
    const region = await Region.create(path, headBytes + 2 * setBytes(owner.bytes))
    const { dev, ino, mtimeNs } = statSync(owner.path, { bigint: true })
    const head = Buffer.alloc(ours.end)
    head.writeBigUInt64LE(magic, 0)
    head.writeBigUInt64LE(BigInt(owner.bytes), at.diskBytes)
    head.writeBigUInt64LE(dev, at.device)
    head.writeBigUInt64LE(ino, at.inode)
    head.writeUInt32LE(1, ours.settled)
    head.writeBigUInt64LE(mtimeNs, ours.mtime)
    head.write(owner.bootId, ours.boot, 'latin1')
    head.write(owner.guest, ours.guest, 'latin1')
    region.write(0, head)
    region.close()
  }

  /**
   * @param writer the process whose writes must be marked; if they are not, the map has no lineage from now on
   * @param fresh one that nobody has marked yet is marked for it from now on
   * @returns undefined when there is none
   */
  static open(path: string, writer?: number, fresh = false): ChunkMap | undefined {
    const region = mapped(path)
    if (!region) return undefined
    const map = new ChunkMap(path, region, writer)
    if (fresh && writer !== undefined && map.#head().readUInt32LE(at.writer) === 0)
      map.#word(at.writer, writer)
    if (!map.#trusted) map.forget()
    return map
  }

  /** Empty: none, so nothing is known of how the disk and a copy differ. */
  get lineage(): string {
    const head = this.#head()
    if (!this.#trusted || head.readUInt32LE(ours.hasLineage) !== 1) return ''
    return head.toString('latin1', ours.lineage, ours.lineage + lineageDigits)
  }

  /** @param lineage 32 hexadecimal digits */
  inherit(lineage: string): void {
    this.forget()
    this.#region.write(
      ours.lineage,
      Buffer.from(lineage.padEnd(lineageDigits).slice(0, lineageDigits), 'latin1'),
    )
    this.#word(ours.hasLineage, 1)
  }

  forget(): void {
    this.#word(ours.hasLineage, 0)
  }

  /** A bit for each chunk of 64 KiB, the first one the lowest of its byte. */
  marked(): Uint8Array {
    const [one, other] = [this.#set(0), this.#set(1)]
    const bytes = Math.ceil(chunksOf(this.#bytes) / 8)
    return one.subarray(0, bytes).map((byte, index) => byte | other[index]!)
  }

  /** Marks chunks that were written before the guest last stood still, of which nothing else has told. @param bits as of `marked` */
  markBefore(bits: Uint8Array): void {
    const rest = 1 - this.#active
    const marked = this.#set(rest)
    for (const [index, byte] of bits.entries()) marked[index]! |= byte
    this.#region.write(headBytes + rest * setBytes(this.#bytes), marked)
    this.#restEmpty = false
  }

  /** The guest stands still: what it writes from now on is marked apart, if what was marked apart before has been dropped. */
  part(): boolean {
    if (!this.#restEmpty) return false
    this.#word(at.active, 1 - this.#active)
    this.#restEmpty = false
    return true
  }

  /** Whether anything may be marked from before the guest last stood still for `part`. */
  get parted(): boolean {
    return !this.#restEmpty
  }

  /** The copy has all that was marked before. */
  dropParted(): void {
    this.#clear(1 - this.#active)
    this.#restEmpty = true
  }

  /** The disk and its copy are equal and no guest writes, or all is going to be compared. */
  clear(): void {
    this.#clear(0)
    this.#clear(1)
    this.#restEmpty = true
  }

  /** The disk is written to from now on, by whomever. */
  unsettle(): void {
    this.#word(ours.settled, 0)
  }

  /** All that was written to the disk until now was ours. @param mtimeNs of its file */
  settle(mtimeNs: bigint): void {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(mtimeNs)
    this.#region.write(ours.mtime, bytes)
    this.#word(ours.settled, 1)
  }

  close(): void {
    this.#region.close()
  }

  get #trusted(): boolean {
    const head = this.#head()
    return (
      head.readUInt32LE(at.missed) === 0 &&
      (this.#writer === undefined || head.readUInt32LE(at.writer) === this.#writer)
    )
  }

  get #active(): 0 | 1 {
    return this.#head().readUInt32LE(at.active) === 0 ? 0 : 1
  }

  #head(): Buffer {
    return headOf(this.#region)
  }

  #set(set: number): Uint8Array {
    const bytes = setBytes(this.#bytes)
    return this.#region.read(headBytes + set * bytes, bytes)
  }

  #clear(set: number): void {
    const bytes = setBytes(this.#bytes)
    this.#region.write(headBytes + set * bytes, new Uint8Array(bytes))
  }

  #word(offset: number, value: number): void {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(value)
    this.#region.write(offset, bytes)
  }
}

const headOf = (region: Region): Buffer => Buffer.from(region.read(0, ours.end).buffer)

/** Undefined: there is none, or none that is whole. */
function mapped(path: string): Region | undefined {
  if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) <= headBytes) return undefined
  const region = Region.map(path, { writable: true })
  const head = headOf(region)
  const bytes = Number(head.readBigUInt64LE(at.diskBytes))
  if (head.readBigUInt64LE(0) === magic && region.bytes === headBytes + 2 * setBytes(bytes)) return region
  region.close()
  return undefined
}

/** Whether the map belongs to the disk, which nobody has written to but those who have marked it. */
function keeps(path: string, { guest, bootId, path: disk, bytes }: MapOwner): boolean {
  const region = mapped(path)
  if (!region) return false
  try {
    const head = headOf(region)
    const text = (from: number, to: number) => head.toString('latin1', from, to).replaceAll('\0', '')
    const { dev, ino, mtimeNs, size } = statSync(disk, { bigint: true })
    return (
      Number(head.readBigUInt64LE(at.diskBytes)) === bytes &&
      size === BigInt(bytes) &&
      head.readBigUInt64LE(at.device) === dev &&
      head.readBigUInt64LE(at.inode) === ino &&
      head.readUInt32LE(at.missed) === 0 &&
      head.readUInt32LE(ours.settled) === 1 &&
      head.readBigUInt64LE(ours.mtime) === mtimeNs &&
      text(ours.boot, ours.guest) === bootId &&
      text(ours.guest, ours.end) === guest
    )
  } finally {
    region.close()
  }
}
