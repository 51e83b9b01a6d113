/**
 * A trace: what a target did to its memory, epoch by epoch, in one file. The bytes are docs/trace-format.md.
 *
 * Writing needs the target and perhaps privileges; reading is a pure function of the file and works anywhere:
 *
 *   const trace = readTrace('redis.trace')
 *   for (const epoch of trace.epochs()) ...     // as often as you like, one epoch in memory at a time
 *
 * Page numbers count the pages of the recorded memory, not addresses: `areas` say which address a page has.
 */
import type { PageRanges } from 'subpage/memory/page-ranges'

export { readTrace, type Trace } from './trace/reader.ts'
export { type NewEpoch, type RecordedEnd, TraceWriter } from './trace/writer.ts'

export const traceFormat = 1

export type TargetKind = 'vm' | 'pid' | 'command' | 'images'

export interface TraceHeader {
  format: typeof traceFormat
  target: { kind: TargetKind; name: string }
  /** Which tracker named the dirty pages. With `compare` and `images` a dirty page is one whose content changed. */
  tracker: 'userfault' | 'compare' | 'images' | 'lines' | 'pml' | 'prl'
  /** The epoch that was asked for; 0 for a series of images, which has no time. */
  epochUs: number
  /** Of the recorded memory when the recording began; a process may map more later. */
  memoryBytes: number
  /** There is a map of written lines for each dirty page. */
  written: boolean
  /** There is content: the memory at the start and the new bytes of each epoch. */
  content: boolean
  /** Names of the numbers that each epoch carries beside the pages, such as logFull. */
  counters: string[]
  /** What the tracker cannot see and how the target was held, in words for people; more may follow in the trace. */
  notes: string[]
  host: { name: string; kernel: string; cpu: string }
  /** Of subpage, that recorded it. */
  release: string
  /** ISO 8601, UTC. */
  startedAt: string
}

/** Pages that lie one after the other in the target. */
export interface TraceArea {
  firstPage: number
  pageCount: number
  /** Of the first page: in the process, or the offset in a guest's RAM. */
  address: number
  /** "ram", "[heap]", a file, ... */
  name: string
}

/**
 * Time of which the trace does not know enough.
 * `late`: the recorder fell behind; pages written then are in the following epoch, none is lost. `lost`: writes of that
 * time are not known.
 */
export interface TraceGap {
  startUs: number
  lengthUs: number
  cause: 'late' | 'lost'
  /** How many epochs should have ended in it. */
  epochsMissed: number
  reason: string
}

export interface TraceEpoch {
  /** From 0. */
  index: number
  /** From the start of the recording to that of the epoch. */
  startUs: number
  /** In which the target ran. */
  lengthUs: number
  /** For how long the target was held at its end. */
  pauseUs: number
  /** Pages that the tracker named, changed or not. */
  dirty: PageRanges
  /**
   * Per dirty page, ascending, two numbers: a bit for each changed line, 0 to 31 in the first and 32 to 63 in the second.
   * Both 0: written with what was there already (a silent store). Shape: 2 × dirty.pageCount.
   */
  changedMaps: Uint32Array
  /** Per dirty page: how many bytes differ, 0 to 4096. */
  changedBytes: Uint16Array
  /** As changedMaps, for the lines that were stored to; with `header.written`. */
  writtenMaps: Uint32Array | undefined
  /** With `header.content`: deltas (docs/delta-format.md) that take the memory from the epoch's start to its end. */
  content: Uint8Array[] | undefined
  /** By the names of `header.counters`. */
  counters: Record<string, number>
  /** What came between the epoch before and this one. */
  gapBefore: TraceGap | undefined
}

export interface TraceEnd {
  epochCount: number
  gapCount: number
  /** From the start of the recording to its end. */
  lengthUs: number
  /**
   * Why it ended there: the time was over, somebody interrupted, the target ended; or the file ends without saying so,
   * because the recorder was killed or the copy is not whole, and this is what its whole epochs say.
   */
  cause: 'time' | 'interrupted' | 'target-ended' | 'cut-short'
}

/** How many lines the two numbers of a map at `page` name. */
export function lineCount(maps: Uint32Array, page: number): number {
  return bitCount(maps[2 * page]!) + bitCount(maps[2 * page + 1]!)
}

function bitCount(word: number): number {
  let v = word - ((word >>> 1) & 0x55555555)
  v = (v & 0x33333333) + ((v >>> 2) & 0x33333333)
  return Math.imul((v + (v >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}
