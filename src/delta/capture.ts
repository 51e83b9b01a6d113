/**
 * Capture: turns dirty pages into a delta. Compare, encode and shadow update are one pass in native code
 * (native/core/capture.c); the bytes are docs/delta-format.md.
 *
 * One call fills `out` once. What does not fit is left for the next call, which begins at `next`. Every filled output is
 * a delta of its own: it can be checked and applied alone.
 */
import { addon, type CaptureArguments } from '../memory/native.ts'
import { pageBytes } from '../memory/page.ts'
import type { PageRanges } from '../memory/page-ranges.ts'
import type { Region } from '../memory/region.ts'
import { type CodecName, codecNumbers } from './codec.ts'

export type { CodecName } from './codec.ts'

/** Smallest output: header, the room that one page can need while it is encoded, and the closing zeros. */
export const outBytesMin = 16 + 4352 + 8

export interface CaptureStats {
  /** Pages looked at. */
  pages: number
  changedPages: number
  changedLines: number
  changedBytes: number
}

/** Where a capture goes on: a run of the ranges, and pages of it already done. */
export interface CapturePosition {
  readonly run: number
  readonly offset: number
}

export interface CaptureOptions {
  codec: CodecName
  /**
   * The shadow of these pages is not what the standby holds (seeding, a failed checkpoint): encode each against a zero
   * page and set the shadow. All non-zero lines count as changed.
   */
  whole?: boolean
  /** Receives the delta. Must stay as it is (not detached, not resized) until an asynchronous capture has finished. */
  out: Uint8Array
  from?: CapturePosition
}

export interface Captured {
  /** Bytes of `out` that are the delta. */
  bytes: number
  /** Where the next call begins; undefined when every page was looked at. */
  next: CapturePosition | undefined
  stats: CaptureStats
}

/** On the calling thread: for small epochs, where a round trip through the thread pool would cost more. */
export function captureSync(
  ram: Region,
  shadow: Region,
  ranges: PageRanges,
  options: CaptureOptions,
): Captured {
  const args = captureArguments(ram, shadow, ranges, options, inlineResults)
  addon.capture(...args)
  return report(inlineResults, ranges)
}

/** In the thread pool. */
export async function capture(
  ram: Region,
  shadow: Region,
  ranges: PageRanges,
  options: CaptureOptions,
): Promise<Captured> {
  const results = new Float64Array(resultCount)
  await addon.captureAsync(...captureArguments(ram, shadow, ranges, options, results))
  return report(results, ranges)
}

const resultCount = 7
const inlineResults = new Float64Array(resultCount)
const start: CapturePosition = { run: 0, offset: 0 }

function captureArguments(
  ram: Region,
  shadow: Region,
  ranges: PageRanges,
  { codec, whole = false, out, from = start }: CaptureOptions,
  results: Float64Array,
): CaptureArguments {
  const number = codecNumbers[codec]
  if (number === undefined) throw new TypeError(`no codec is named ${String(codec)}`)
  if (ram.bytes !== shadow.bytes)
    throw new TypeError(`RAM has ${ram.bytes} bytes and its shadow ${shadow.bytes}: they must be equal`)
  if (ranges.endPage > ram.pages)
    throw new TypeError(`the ranges reach to page ${ranges.endPage} of memory with ${ram.pages} pages`)
  if (out.length < outBytesMin)
    throw new TypeError(
      `out has ${out.length} bytes and needs ${outBytesMin} (one page of ${pageBytes} and its frame)`,
    )
  if (
    from.run > ranges.runCount ||
    (from.run < ranges.runCount && from.offset > ranges.pairs[2 * from.run + 1]!)
  )
    throw new TypeError(`no position ${from.run}, ${from.offset} in these ranges`)
  return [
    ram.handle,
    shadow.handle,
    ranges.pairs,
    ranges.runCount,
    number,
    whole,
    out,
    from.run,
    from.offset,
    results,
  ]
}

function report(results: Float64Array, ranges: PageRanges): Captured {
  const [bytes, run, offset, pages, changedPages, changedLines, changedBytes] = results as unknown as number[]
  return {
    bytes: bytes!,
    next: run! < ranges.runCount ? { run: run!, offset: offset! } : undefined,
    stats: {
      pages: pages!,
      changedPages: changedPages!,
      changedLines: changedLines!,
      changedBytes: changedBytes!,
    },
  }
}
