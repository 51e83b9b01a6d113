/**
 * Capture: turns dirty pages into a delta. Compare, encode and shadow update are one pass in native code
 * (native/core/capture.c); the bytes are docs/delta-format.md.
 *
 * One call fills `out` once. What does not fit is left for the next call, which begins at `next`. Every filled output is
 * a delta of its own: it can be checked and applied alone.
 */
import { invariant } from '../errors.ts'
import { addon } from '../memory/native.ts'
import type { CaptureArguments, ShadowArguments } from '../memory/native-arguments.ts'
import { lineBytes, pageBytes } from '../memory/page.ts'
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

/** Sizes of the blocks in which changes are told apart. */
export const grains = [64, 128, 256, 1024, 4096] as const
export type Grain = (typeof grains)[number]

/** What the memory of a shadow is when it is not a copy of everything (native/core/core.h). */
export interface ShadowForm {
  /** With hashes, and with a copy under the codec `line`: a block that has changed goes whole. */
  grainBytes?: Grain
  /** A cache: in which page of the shadow each page of the memory is; `noSlot`: nowhere. */
  slots?: Uint32Array
  /** Hashes, 16 bytes for each block, keyed with this. Changed blocks go as `line` records. */
  seed?: bigint
}

export const noSlot = 0xffffffff

export interface CaptureOptions {
  codec: CodecName
  form?: ShadowForm
  /**
   * The shadow of these pages is not what the standby holds (seeding, a failed checkpoint): encode each against a zero
   * page and set the shadow. All non-zero lines count as changed.
   */
  whole?: boolean
  /** Receives the delta. Must stay as it is (not detached, not resized) until an asynchronous capture has finished. */
  out: Uint8Array
  /**
   * A byte for each page of the memory: becomes 1 where the page was not as the shadow had it, and stays as it is elsewhere.
   * Like `out` until an asynchronous capture has finished.
   */
  changed?: Uint8Array
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
  assertCaptured(addon.capture(...captureArguments(ram, shadow, ranges, options, inlineResults)))
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
  assertCaptured(await addon.captureAsync(...captureArguments(ram, shadow, ranges, options, results)))
  return report(results, ranges)
}

/** Ranges and position are checked before; what is left is a page that a cache should hold. */
function assertCaptured(done: boolean): void {
  invariant(done, 'a page goes as a change only when the cache holds it')
}

const resultCount = 7
const inlineResults = new Float64Array(resultCount)
const start: CapturePosition = { run: 0, offset: 0 }
const copy: ShadowForm = {}

function captureArguments(
  ram: Region,
  shadow: Region,
  ranges: PageRanges,
  { codec, whole = false, out, changed, from = start, form = copy }: CaptureOptions,
  results: Float64Array,
): CaptureArguments {
  const number = codecNumbers[codec]
  if (number === undefined) throw new TypeError(`no codec is named ${String(codec)}`)
  if (ram.bytes !== shadow.bytes && !form.slots && form.seed === undefined)
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
    changed,
    ...shadowArguments(form),
  ]
}

/** For the wrappers of native functions only. */
export function shadowArguments({ grainBytes = lineBytes, slots, seed }: ShadowForm): ShadowArguments {
  return [grainBytes / lineBytes, slots, seed]
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
