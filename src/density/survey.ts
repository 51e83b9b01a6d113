/**
 * What density could save on memory images, without changing them: Table 1 of the Difference Engine (OSDI 2008) for the
 * user's own fleet. In the paper's order each page counts once: zero, filled with one word, identical to another, a patch
 * of another, packed, or whole. Beside it, how many blocks below the page repeat.
 */
import { closeSync } from 'node:fs'
import { constants } from 'node:os'
import { SubpageError } from '../errors.ts'
import { openInput } from '../input-file.ts'
import type { ImageExtent } from '../memory/images/memory-image.ts'
import { addon } from '../memory/native.ts'
import { pageBytes } from '../memory/page.ts'
import { defaultShape, type SketchShape, shapeFields } from './shape.ts'

/** A memory image in a file: the pieces of the file that hold whole pages, in the order of addresses. */
export interface SurveyImage {
  name: string
  path: string
  extents: readonly ImageExtent[]
  /** Pages that the file does not hold in one piece, one after the other. */
  partial?: Uint8Array
}

export type SurveyDepth = 'share' | 'patch' | 'pack'

export interface SurveyOptions {
  shape?: SketchShape
  /** Where to stop; `pack` is everything. */
  depth?: SurveyDepth
  /** For the tables of hashes. */
  memoryBytes?: number
}

export interface PageCounts {
  pages: number
  zero: number
  /** One 64-bit word again and again, not zero. */
  filled: number
  shared: number
  patched: number
  packed: number
  patchBytes: number
  packedBytes: number
}

export interface BlockCounts {
  blockBytes: number
  /** Of the blocks of pages that are neither filled nor identical to another: all zero. */
  zeroShare: number
  /** Of the same: equal to an earlier block. */
  repeatedShare: number
  /**
   * What such blocks as references would save of what patching and compression leave of the pages that are not patched: if
   * any page could be referred to, and with those that stay whole, as a store could do at once.
   */
  savesMost: number
  savesWhole: number
}

export interface Survey extends PageCounts {
  images: (PageCounts & { name: string })[]
  /** Pages that patches are made against; they stay whole. */
  references: number
  packings: { words: number; lz4: number; zstd: number }
  blocks: BlockCounts[]
  /** Bytes that would be left after each technique and those before it. */
  bytes: { total: number; withoutFilled: number; shared: number; patched: number; packed: number }
  /** Passes over the images that identical pages, and similar ones, took within the memory given. */
  passes: number
  patchPasses: number
  seconds: { share: number; patch: number; pack: number }
}

const depths: readonly SurveyDepth[] = ['share', 'patch', 'pack']
const blockSizes = [64, 256, 1024]
const imageFields = 8
const globalFields = 1 + 3 + 2 + 3 + blockSizes.length * 7
const memoryBytesDefault = 256 * 2 ** 20

/** @throws SubpageError BAD_ARGUMENT when an image cannot be read; NO_SPACE when the memory given is too small */
export async function survey(images: readonly SurveyImage[], options: SurveyOptions = {}): Promise<Survey> {
  const { shape = defaultShape, depth = 'pack', memoryBytes = memoryBytesDefault } = options
  const extents: number[] = []
  const partial: Uint8Array[] = []
  const opened: number[] = []
  try {
    for (const [index, image] of images.entries()) {
      const fd = openInput(image.path)
      opened.push(fd)
      for (const { offset, bytes } of image.extents) extents.push(fd, index, offset, bytes / pageBytes)
      if (!image.partial?.length) continue
      extents.push(-1, index, sum(partial), image.partial.length / pageBytes)
      partial.push(image.partial)
    }
    const results = new Float64Array(images.length * imageFields + globalFields)
    const error = await addon.survey(
      Float64Array.from(extents),
      extents.length / 4,
      images.length,
      shapeFields(shape),
      depths.indexOf(depth),
      memoryBytes,
      results,
      Buffer.concat(partial),
    )
    if (error !== 0) throw surveyError(error)
    return read(images, results)
  } finally {
    for (const fd of opened) closeSync(fd)
  }
}

const sum = (parts: readonly Uint8Array[]) => parts.reduce((bytes, { length }) => bytes + length, 0)

function surveyError(error: number): SubpageError {
  const { ENOMEM, EFBIG } = constants.errno
  if (error === EFBIG)
    return new SubpageError('NO_SPACE', 'the images are too large for the memory given: raise --memory')
  if (error === ENOMEM)
    return new SubpageError('NO_SPACE', 'no memory for the tables: lower --memory, more passes are then made')
  return new SubpageError('BAD_ARGUMENT', `an image could not be read: errno ${error}`)
}

function read(images: readonly SurveyImage[], results: Float64Array): Survey {
  let at = 0
  const next = () => results[at++]!
  const counts = (): PageCounts => ({
    pages: next(),
    zero: next(),
    filled: next(),
    shared: next(),
    patched: next(),
    packed: next(),
    patchBytes: next(),
    packedBytes: next(),
  })
  const each = images.map(({ name }) => ({ name, ...counts() }))
  const all = each.reduce<PageCounts>((sum, image) => {
    for (const key of Object.keys(sum) as (keyof PageCounts)[]) sum[key] += image[key]
    return sum
  }, emptyCounts())
  const references = next()
  const packings = { words: next(), lz4: next(), zstd: next() }
  const [passes, patchPasses] = [next(), next()]
  const seconds = { share: next() / 1e9, patch: next() / 1e9, pack: next() / 1e9 }
  const blocks = blockSizes.map((blockBytes) => {
    const [total, zero, sampled, distinct] = [next(), next(), next(), next()]
    const [packed, withAny, withWhole] = [next(), next(), next()]
    const others = total - zero
    return {
      blockBytes,
      zeroShare: total && zero / total,
      repeatedShare: sampled && (others / total) * (1 - distinct / sampled),
      savesMost: packed && 1 - withAny / packed,
      savesWhole: packed && 1 - withWhole / packed,
    }
  })
  return {
    ...all,
    images: each,
    references,
    packings,
    blocks,
    bytes: bytesLeft(all),
    passes,
    patchPasses,
    seconds,
  }
}

const emptyCounts = (): PageCounts => ({
  pages: 0,
  zero: 0,
  filled: 0,
  shared: 0,
  patched: 0,
  packed: 0,
  patchBytes: 0,
  packedBytes: 0,
})

function bytesLeft(all: PageCounts): Survey['bytes'] {
  const total = all.pages * pageBytes
  const withoutFilled = total - (all.zero + all.filled) * pageBytes
  const shared = withoutFilled - all.shared * pageBytes
  const patched = shared - all.patched * pageBytes + all.patchBytes
  return {
    total,
    withoutFilled,
    shared,
    patched,
    packed: patched - all.packed * pageBytes + all.packedBytes,
  }
}
