/**
 * Reduce: a delta in fewer bytes, by what the other side knows already, and back (native/core/reduce.h; the bytes are
 * docs/reduced-format.md). A reducer and its restorer live as long as a connection, and see the same deltas in the same
 * order. One operation of each at a time.
 */
import { SubpageError } from '../errors.ts'
import { addon, type ReducerHandle, type RestorerHandle } from '../memory/native.ts'
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
const inlineBytesMax = 64 * 1024

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

  /**
   * @param shadow as it was captured from; undefined: lines of which only a part is in the delta are not looked up, nothing
   * is shared
   * @returns undefined when nothing is gained: the delta goes as it is, and the restorer learns from it
   */
  async reduce(
    delta: Uint8Array,
    shadow: Region | undefined,
    method: SqueezeMethod,
    stats: ReduceStats,
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
    return bytes === 0 ? undefined : made(this.#handle, bytes!)
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
   * @throws SubpageError DELTA_MALFORMED; the restorer must then not be used again
   */
  async restore(reduced: Uint8Array, image: Region, bytesMax: number): Promise<Uint8Array> {
    const results = new Float64Array(1)
    const args = [this.#handle, reduced, image.handle, bytesMax, results] as const
    const problem =
      reduced.length <= inlineBytesMax ? addon.restore(...args) : await addon.restoreAsync(...args)
    refuse(reduced, problem)
    return made(this.#handle, results[0]!)
  }

  /**
   * The pages of the image that a reduced delta refers to. The next call must be `restore`, of the same bytes.
   * @throws SubpageError DELTA_MALFORMED; the restorer must then not be used again
   */
  references(reduced: Uint8Array, imagePages: number, bytesMax: number): PageRanges {
    const results = new Float64Array(1)
    refuse(reduced, addon.restoreReferences(this.#handle, reduced, imagePages, bytesMax, results))
    const bytes = made(this.#handle, results[0]!)
    const pages = new Uint32Array(bytes.buffer, 0, bytes.length / Uint32Array.BYTES_PER_ELEMENT)
    return PageRanges.of(Array.from(pages, (page) => [page, 1] as const))
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

function refuse(reduced: Uint8Array, problem: string | undefined): void {
  if (problem !== undefined)
    throw new SubpageError(
      'DELTA_MALFORMED',
      `a reduced delta of ${reduced.length} bytes is refused: ${problem}`,
    )
}

function made(handle: ReducerHandle | RestorerHandle, bytes: number): Uint8Array {
  const into = new Uint8Array(bytes)
  addon.reductionRead(handle, into)
  return into
}
