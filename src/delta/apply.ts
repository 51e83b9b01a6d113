/**
 * Apply: writes a delta into an image. A delta is checked whole before its first byte is written, so a malformed one
 * changes nothing; no record can write outside the page that it names (native/core/record.c).
 */
import { SubpageError } from '../errors.ts'
import { addon } from '../memory/native.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import type { Region } from '../memory/region.ts'
import { type CodecName, codecNames } from './codec.ts'

export interface DeltaSummary {
  codec: CodecName
  /** Each page is set to zero before its record is applied. */
  whole: boolean
  /** Pages that have a record. */
  pages: number
}

/**
 * Checks every byte and writes nothing.
 * @throws SubpageError DELTA_MALFORMED
 */
export function checkDelta(delta: Uint8Array, imagePages: number): DeltaSummary {
  return summary(delta, addon.checkDelta(delta, imagePages, inlineResults), inlineResults)
}

/** The pages that a delta changes. @param count how many, as `checkDelta` says */
export function changedPages(delta: Uint8Array, count: number): PageRanges {
  const pairs = new Uint32Array(2 * count)
  return PageRanges.fromPairs(pairs, addon.deltaPages(delta, pairs))
}

/** @throws SubpageError DELTA_MALFORMED; the image is then as it was */
export function applySync(image: Region, delta: Uint8Array): DeltaSummary {
  return summary(delta, addon.apply(image.handle, delta, inlineResults), inlineResults)
}

/** In the thread pool; `delta` must not change until it has finished. */
export async function apply(image: Region, delta: Uint8Array): Promise<DeltaSummary> {
  const results = new Float64Array(resultCount)
  return summary(delta, await addon.applyAsync(image.handle, delta, results), results)
}

const resultCount = 3
const inlineResults = new Float64Array(resultCount)

function summary(delta: Uint8Array, problem: string | undefined, results: Float64Array): DeltaSummary {
  if (problem !== undefined)
    throw new SubpageError('DELTA_MALFORMED', `a delta of ${delta.length} bytes is refused: ${problem}`)
  return { codec: codecNames[results[0]!]!, whole: results[1] === 1, pages: results[2]! }
}
