/**
 * Reduce: a delta in fewer bytes, by what the other side knows already, and back (native/core/reduce.h; the bytes are
 * docs/reduced-format.md). A reducer and its restorer live as long as a connection, and see the same deltas in the same
 * order. One operation of each at a time.
 */
import { SubpageError } from '../errors.ts'
import { addon, type ReducerHandle, type RestorerHandle } from '../memory/native.ts'
import { lineBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import type { Region } from '../memory/region.ts'

/**
 * What a reducer looks for: lines that were sent lately (`dictionary`), blocks that the image holds elsewhere (`sharing`),
 * pages that resemble one that the image holds (`similar`).
 */
export const reduceParts = ['dictionary', 'sharing', 'similar'] as const
export type ReducePart = (typeof reduceParts)[number]

/** In the order of their numbers on the wire. */
export const squeezeMethods = ['off', 'lz4', 'zstd'] as const
export type SqueezeMethod = (typeof squeezeMethods)[number]

/** Block sizes of sharing. Smaller ones find more and take more memory: 8 to 16 bytes a block. */
export const shareBlockBytes = [64, 128, 256, 512, 1024, 2048, 4096] as const
const shareBlockBytesDefault = 1024

export interface ReduceStats {
  /** Changed lines that were looked at, and how many of them were known to the dictionary, or elsewhere in the image. */
  lines: number
  dictionaryLines: number
  sharedLines: number
  similarPages: number
  /** Before compression. */
  bodyBytes: number
}

/** Up to this many bytes are handled on the event loop's own thread: a thread-pool round trip costs more. */
export const inlineBytesMax = 64 * 1024

/**
 * What writes to a disk may refer to, in the order of their numbers in native/core/reduce.h: nothing; pages that the epoch leaves
 * as they are; every page, as it is when the epoch is applied.
 */
export const references = ['none', 'before', 'after'] as const
export type Reference = (typeof references)[number]

/** Writes to a disk in reduced form, and what became of their bytes. */
export interface ReducedWrites {
  payload: Uint8Array
  /** How what is left was compressed. */
  method: SqueezeMethod
  /** Elsewhere in the memory; known to the dictionary; nothing but zeros. The rest goes as content. */
  sharedBytes: number
  dictionaryBytes: number
  zeroBytes: number
  contentBytes: number
}

/** Restored, but for what is to be filled from the image. */
export interface RestoredWrites {
  records: Uint8Array
  /** As native/core/reduce.h has them, 12 bytes each. */
  fills: Uint8Array
  /** These are to be filled when the epoch is applied; else before that. */
  after: boolean
}

/** Where so many bytes go. */
type Room = (bytes: number) => Uint8Array
const ownRoom: Room = (bytes) => new Uint8Array(bytes)

export class Reducer {
  readonly #handle: ReducerHandle

  /** @param pages of the guest @throws Error ENOMEM */
  constructor(pages: number, parts: readonly ReducePart[], blockBytes: number = shareBlockBytesDefault) {
    const has = (part: ReducePart) => parts.includes(part)
    this.#handle = addon.reducerNew(pages, has('dictionary'), has('sharing'), has('similar'), blockBytes)
  }

  /**
   * A new epoch, of which no page is known yet.
   * @param references whether the image may be referred to: not while it is being seeded
   */
  begin(references: boolean): void {
    addon.reducerBegin(this.#handle, references)
  }

  /** These pages are sent in this epoch: nothing refers to them. To be told before a delta that holds some of them. */
  include(pages: PageRanges): void {
    if (!addon.reducerInclude(this.#handle, pages.pairs, pages.runCount))
      throw new TypeError(`the ranges reach to page ${pages.endPage}, beyond the memory`)
  }

  /** Pages that go as they were captured: writes to a disk find them all the same. */
  know(pages: PageRanges, shadow: Region): void {
    addon.reducerKnow(this.#handle, pages.pairs, pages.runCount, shadow.handle)
  }

  /**
   * Writes to a disk, in one order with the deltas. `room` bytes are left before the payload.
   * @param records (disk/records.ts)
   * @param shadow as of the moment that `reference` says; undefined: nothing is referred to
   */
  reduceWritesSync(
    records: Uint8Array,
    shadow: Region | undefined,
    reference: Reference,
    method: SqueezeMethod,
    room: number,
  ): ReducedWrites {
    const results = new Float64Array(7)
    const numbers = [references.indexOf(reference), squeezeMethods.indexOf(method)] as const
    accept(addon.reduceWrites(this.#handle, records, shadow?.handle, ...numbers, results))
    return this.#writes(results, room)
  }

  /** As `reduceWritesSync`, in the thread pool: records and shadow must not change meanwhile. */
  async reduceWrites(
    records: Uint8Array,
    shadow: Region | undefined,
    reference: Reference,
    method: SqueezeMethod,
    room: number,
  ): Promise<ReducedWrites> {
    if (records.length <= inlineBytesMax)
      return this.reduceWritesSync(records, shadow, reference, method, room)
    const results = new Float64Array(7)
    const numbers = [references.indexOf(reference), squeezeMethods.indexOf(method)] as const
    accept(await addon.reduceWritesAsync(this.#handle, records, shadow?.handle, ...numbers, results))
    return this.#writes(results, room)
  }

  #writes(results: Float64Array, room: number): ReducedWrites {
    const [bytes, method, lines, dictionaryLines, sharedLines, zeroBytes, oddBytes] = results as unknown as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ]
    const payload = new Uint8Array(room + bytes)
    addon.reductionRead(this.#handle, payload.subarray(room))
    return {
      payload,
      method: squeezeMethods[method]!,
      sharedBytes: sharedLines * lineBytes,
      dictionaryBytes: dictionaryLines * lineBytes,
      zeroBytes,
      contentBytes: (lines - dictionaryLines - sharedLines) * lineBytes + oddBytes,
    }
  }

  /**
   * @param shadow as it was captured from; undefined: lines of which only a part is in the delta are not looked up, nothing
   * is shared
   * @param room for so many bytes; the delta's own place will do
   * @returns undefined when nothing is gained: the delta goes as it is, and the restorer learns from it
   */
  async reduce(
    delta: Uint8Array,
    shadow: Region | undefined,
    method: SqueezeMethod,
    stats: ReduceStats,
    room: Room = ownRoom,
  ): Promise<Uint8Array | undefined> {
    const results = new Float64Array(6)
    const args = [this.#handle, delta, shadow?.handle, squeezeMethods.indexOf(method), results] as const
    const problem = delta.length <= inlineBytesMax ? addon.reduce(...args) : await addon.reduceAsync(...args)
    if (problem !== undefined) throw new SubpageError('INTERNAL', `a delta cannot be reduced: ${problem}`)
    const [bytes, lines, dictionaryLines, sharedLines, similarPages, bodyBytes] =
      results as unknown as number[]
    stats.lines += lines!
    stats.dictionaryLines += dictionaryLines!
    stats.sharedLines += sharedLines!
    stats.similarPages += similarPages!
    stats.bodyBytes += bodyBytes!
    return bytes === 0 ? undefined : made(this.#handle, room(bytes!))
  }

  /** Sums up what the dictionary has learnt; 0 without one. */
  get digest(): bigint {
    return addon.reductionDigest(this.#handle)
  }

  get memoryBytes(): number {
    return addon.reducerBytes(this.#handle)
  }

  close(): void {
    addon.reductionClose(this.#handle)
  }
}

export class Restorer {
  readonly #handle: RestorerHandle = addon.restorerNew()

  /**
   * A delta with the effect of the one that was reduced. It is not checked: `checkDelta` does that.
   * @param image one whole checkpoint, the one before
   * @param room for so many bytes
   * @throws SubpageError DELTA_MALFORMED; the restorer must then not be used again
   */
  async restore(
    reduced: Uint8Array,
    image: Region,
    bytesMax: number,
    room: Room = ownRoom,
  ): Promise<Uint8Array> {
    const results = new Float64Array(1)
    const args = [this.#handle, reduced, image.handle, bytesMax, results] as const
    const problem =
      reduced.length <= inlineBytesMax ? addon.restore(...args) : await addon.restoreAsync(...args)
    refuse(reduced, problem)
    return made(this.#handle, room(results[0]!))
  }

  /**
   * The pages of the image that a reduced delta refers to. The next call must be `restore`, of the same bytes.
   * @throws SubpageError DELTA_MALFORMED; the restorer must then not be used again
   */
  references(reduced: Uint8Array, imagePages: number, bytesMax: number): PageRanges {
    const results = new Float64Array(1)
    refuse(reduced, addon.restoreReferences(this.#handle, reduced, imagePages, bytesMax, results))
    const bytes = made(this.#handle, new Uint8Array(results[0]!))
    const pages = new Uint32Array(bytes.buffer, 0, bytes.length / Uint32Array.BYTES_PER_ELEMENT)
    return PageRanges.of(Array.from(pages, (page) => [page, 1] as const))
  }

  /**
   * Records, of which everything is checked but what they say. What they share with the image is still to be filled in.
   * @throws SubpageError FRAME_MALFORMED; the restorer must then not be used again
   */
  async restoreWrites(reduced: Uint8Array, imagePages: number, bytesMax: number): Promise<RestoredWrites> {
    const results = new Float64Array(3)
    const args = [this.#handle, reduced, imagePages, bytesMax, results] as const
    const problem =
      reduced.length <= inlineBytesMax
        ? addon.restoreWrites(...args)
        : await addon.restoreWritesAsync(...args)
    if (problem !== undefined)
      throw new SubpageError(
        'FRAME_MALFORMED',
        `${reduced.length} bytes of writes to a disk are refused: ${problem}`,
      )
    const [bytes, fillBytes, after] = results as unknown as [number, number, number]
    const whole = made(this.#handle, new Uint8Array(bytes + fillBytes))
    return { records: whole.subarray(0, bytes), fills: whole.slice(bytes), after: after === 1 }
  }

  /** From a delta that was sent as it is, and has been checked. */
  learn(delta: Uint8Array): void {
    addon.restorerLearn(this.#handle, delta)
  }

  get digest(): bigint {
    return addon.reductionDigest(this.#handle)
  }

  close(): void {
    addon.reductionClose(this.#handle)
  }
}

function accept(problem: string | undefined): void {
  if (problem !== undefined) throw new SubpageError('INTERNAL', `writes cannot be reduced: ${problem}`)
}

function refuse(reduced: Uint8Array, problem: string | undefined): void {
  if (problem !== undefined)
    throw new SubpageError(
      'DELTA_MALFORMED',
      `a reduced delta of ${reduced.length} bytes is refused: ${problem}`,
    )
}

function made(handle: ReducerHandle | RestorerHandle, into: Uint8Array): Uint8Array {
  addon.reductionRead(handle, into)
  return into
}
