/** A disk of a scripted guest, and a standby's copy of it, both in memory. */
import { createHash } from 'node:crypto'
import {
  type ChunkRange,
  checkDisk,
  chunkBytes,
  chunksOf,
  recordHeaderBytes,
  recordKind,
} from '../../src/disk/records.ts'
import { hashBytes } from '../../src/memory/hash.ts'
import type {
  CopyKnowledge,
  DiskImage,
  DiskReader,
  GuestDisks,
  WrittenChunks,
} from '../../src/replication/disks.ts'

export const scriptedDiskBytes = 8 * chunkBytes

const digest = (content: Uint8Array) => createHash('sha256').update(content).digest('hex')

/** Both are ours: any digest of 16 bytes will do. */
function hashesOf(content: Uint8Array): Uint8Array {
  const chunks = Array.from({ length: content.length / chunkBytes }, (_, n) =>
    createHash('md5')
      .update(content.subarray(n * chunkBytes, (n + 1) * chunkBytes))
      .digest(),
  )
  return Buffer.concat(chunks)
}

/** A map, as it outlasts whoever has it open. */
export class ScriptedMap implements WrittenChunks {
  lineage = ''
  parted = false
  /** A mirror looks for its writes here, from its beginning to its end: what is not marked costs the map its trust. */
  watched = false
  #active = new Set<number>()
  #rest = new Set<number>()

  mark(offset: number, length: number): void {
    for (let chunk = Math.floor(offset / chunkBytes); chunk * chunkBytes < offset + length; chunk++)
      this.#active.add(chunk)
  }

  inherit(lineage: string): void {
    this.lineage = lineage
  }

  forget(): void {
    this.lineage = ''
  }

  marked(): Uint8Array {
    const bits = new Uint8Array(1)
    for (const chunk of [...this.#active, ...this.#rest]) bits[0]! |= 1 << chunk
    return bits
  }

  part(): boolean {
    if (this.parted) return false
    ;[this.#active, this.#rest] = [this.#rest, this.#active]
    this.parted = true
    return true
  }

  dropParted(): void {
    this.#rest.clear()
    this.parted = false
  }

  clear(): void {
    if (this.watched) throw new Error('marks go while a mirror looks for its writes among them')
    this.#active.clear()
    this.dropParted()
  }
}

interface Write {
  offset: number
  data: Uint8Array
}

/** What it is like to be mirrored: everything that differs comes first, a piece at a time, and each write from the start on. */
export class ScriptedDisks implements GuestDisks {
  readonly sizes = [scriptedDiskBytes]
  readonly content: Uint8Array
  readonly maps: readonly (ScriptedMap | undefined)[]
  /** Of what was fed. */
  fedBytes = 0
  feedBytes = scriptedDiskBytes
  begins = 0
  /** Chunks that were looked at, by hash or because a map says so; since the last beginning. */
  looked = 0
  /** What the map and the standby's left out, and differs from the copy's. */
  audit: ((chunks: Set<number>) => void) | undefined
  /** Breaks the mirror. */
  fail: (why: Error) => void = () => undefined
  #feeding = false
  #chunks: number[] = []
  #current: Write[] = []
  #sealed: Write[] = []

  constructor(content = new Uint8Array(scriptedDiskBytes), map?: ScriptedMap) {
    this.content = content
    this.maps = [map]
    this.#watch(false)
  }

  get digest(): string {
    return digest(this.content)
  }

  async open(): Promise<DiskReader> {
    return {
      missing: () => undefined,
      hashes: async (_, { first, count }) => {
        await new Promise(setImmediate)
        return hashesOf(this.content).slice(first * hashBytes, (first + count) * hashBytes)
      },
      read: async (_, { first, count }) =>
        this.content.slice(first * chunkBytes, (first + count) * chunkBytes),
      [Symbol.asyncDispose]: async () => undefined,
    }
  }

  get complete(): boolean {
    if (this.#chunks.length > 0) this.#copy(this.#chunks.shift()!)
    return this.#chunks.length === 0
  }

  get waitingBytes(): number {
    return this.#current.reduce((sum, { data }) => sum + data.length, 0)
  }

  get urgent(): boolean {
    return this.#current.length > 20
  }

  /** The guest writes. */
  write(offset: number, data: Uint8Array): void {
    this.maps[0]?.mark(offset, data.length)
    this.content.set(data, offset)
    if (this.#feeding) this.#current.push({ offset, data: data.slice() })
  }

  async begin([known]: CopyKnowledge[], failed: (why: Error) => void): Promise<void> {
    this.begins++
    await this.end()
    this.fail = failed
    this.#feeding = true
    this.#watch(true)
    if (known && 'changed' in known) {
      const bits = known.changed[0]! | this.maps[0]!.marked()[0]!
      this.#chunks = Array.from({ length: 8 }, (_, chunk) => chunk).filter((chunk) => (bits >> chunk) & 1)
      this.looked = this.#chunks.length
      this.audit?.(new Set(this.#chunks))
      return
    }
    const theirs = known?.hashes
    this.looked = scriptedDiskBytes / chunkBytes
    const ours = hashesOf(this.content)
    for (let chunk = 0; chunk < scriptedDiskBytes / chunkBytes; chunk++)
      if (
        Buffer.compare(
          ours.subarray(chunk * 16, chunk * 16 + 16),
          theirs!.subarray(chunk * 16, chunk * 16 + 16),
        )
      )
        this.#chunks.push(chunk)
  }

  seal(): void {
    this.#sealed.push(...this.#current)
    this.#current = []
  }

  unseal(): void {
    this.#current = [...this.#sealed, ...this.#current]
    this.#sealed = []
  }

  take(_disk: number, into: Uint8Array, sealed: boolean): number {
    const list = sealed ? this.#sealed : this.#current
    const view = Buffer.from(into.buffer, into.byteOffset, into.length)
    let at = 0
    while (list[0] && at + recordHeaderBytes + list[0].data.length <= into.length) {
      const { offset, data } = list.shift()!
      view.writeBigUInt64LE(BigInt(offset), at)
      view.writeUInt32LE(data.length, at + 8)
      view.writeUInt32LE(recordKind.data, at + 12)
      view.set(data, at + recordHeaderBytes)
      at += recordHeaderBytes + data.length
      this.fedBytes += data.length
    }
    return at
  }

  drop(): void {
    this.#feeding = false
    this.#chunks = []
    this.#current = []
    this.#sealed = []
  }

  async end(): Promise<void> {
    this.drop()
    this.#watch(false)
  }

  #watch(watched: boolean): void {
    for (const map of this.maps) if (map) map.watched = watched
  }

  #copy(chunk: number): void {
    const offset = chunk * chunkBytes
    this.#current.push({ offset, data: this.content.slice(offset, offset + chunkBytes) })
  }
}

export class ScriptedDiskImage implements DiskImage {
  readonly bytes = scriptedDiskBytes
  readonly path = '/scripted'
  readonly made = true
  readonly content: Uint8Array
  readonly map: ScriptedMap | undefined
  synced: string | undefined
  /** What the file system says. */
  refuses: Error | undefined
  /** The process dies after so many records more; nothing of it is heard then. */
  recordsLeft = Number.POSITIVE_INFINITY

  constructor(content = new Uint8Array(scriptedDiskBytes), map?: ScriptedMap) {
    this.content = content
    this.map = map
    // A guest that ran here has ended, and its mirrors with it.
    if (map) map.watched = false
  }

  get digest(): string {
    return digest(this.content)
  }

  async apply(payload: Uint8Array, from: number): Promise<void> {
    checkDisk(payload, from, this.bytes)
    // As in the thread pool: others run meanwhile.
    await new Promise(setImmediate)
    if (this.refuses) throw this.refuses
    const view = Buffer.from(payload.buffer, payload.byteOffset, payload.length)
    for (let at = from; at < payload.length; ) {
      if (this.recordsLeft-- <= 0) throw new Error('the test has killed the standby')
      const [offset, length] = [Number(view.readBigUInt64LE(at)), view.readUInt32LE(at + 8)]
      this.content.set(payload.subarray(at + recordHeaderBytes, at + recordHeaderBytes + length), offset)
      at += recordHeaderBytes + length
    }
  }

  async hashes(
    { first, count }: ChunkRange = { first: 0, count: chunksOf(this.bytes) },
  ): Promise<Uint8Array> {
    return hashesOf(this.content).slice(first * hashBytes, (first + count) * hashBytes)
  }

  async sync(): Promise<void> {
    this.synced = this.digest
  }
}
