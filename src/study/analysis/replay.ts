/**
 * Rebuilds the recorded memory from the content of a trace: `image` is the memory at the end of the last epoch, `shadow`
 * what it was at the end of the last span. Capturing one against the other is what a checkpoint would have done, so lines,
 * bytes and the size of each codec's delta are exact.
 */
import { applySync, checkDelta } from '../../delta/apply.ts'
import { captureSync, outBytesMin } from '../../delta/capture.ts'
import { type CodecName, codecNames } from '../../delta/codec.ts'
import { linesPerPage, pageBytes } from '../../memory/page.ts'
import type { PageRanges } from '../../memory/page-ranges.ts'
import { Region } from '../../memory/region.ts'
import type { Trace, TraceEpoch } from '../trace.ts'

export interface Replayed {
  changedMaps: Uint32Array
  changedBytes: number
  codecBytes: Record<CodecName, number>
}

export class Replay {
  readonly #image: Region
  readonly #shadow: Region
  readonly #out = new Uint8Array(Math.max(outBytesMin, 4 * 2 ** 20))

  /** Takes memory for the pages that hold something, twice. @throws SubpageError NO_SPACE, TRACE_MALFORMED */
  constructor(trace: Trace) {
    if (!trace.header.content) throw new TypeError('this trace has no content to replay')
    const pages = Math.max(1, ...trace.areas().map(({ firstPage, pageCount }) => firstPage + pageCount))
    this.#image = Region.anonymous(pages * pageBytes)
    this.#shadow = Region.anonymous(pages * pageBytes)
    for (const delta of trace.base())
      for (const region of [this.#image, this.#shadow]) applySync(region, delta)
  }

  /** Moves the image to the end of the epoch. */
  advance({ content = [] }: TraceEpoch): void {
    for (const delta of content) {
      applySync(this.#image, delta)
      // The first content of memory that appeared: its start, not a change.
      if (checkDelta(delta, this.#shadow.pages).whole) applySync(this.#shadow, delta)
    }
  }

  /**
   * Ends a span: compares its dirty pages with the shadow and lets the shadow follow.
   * @param maps of changed lines where they are known already
   */
  settle(dirty: PageRanges, maps?: Uint32Array): Replayed {
    const before = readPages(this.#shadow, dirty)
    const changedMaps = maps ?? mapsOf(before, readPages(this.#image, dirty))
    const codecBytes: Partial<Record<CodecName, number>> = {}
    let changedBytes = 0
    for (const codec of codecNames) {
      if (codec !== codecNames[0]) writePages(this.#shadow, dirty, before)
      const { bytes, changed } = this.#capture(dirty, codec)
      codecBytes[codec] = bytes
      changedBytes = changed
    }
    return { changedMaps, changedBytes, codecBytes: codecBytes as Record<CodecName, number> }
  }

  close(): void {
    this.#image.close()
    this.#shadow.close()
  }

  #capture(dirty: PageRanges, codec: CodecName): { bytes: number; changed: number } {
    let [bytes, changed] = [0, 0]
    for (let from: { run: number; offset: number } | undefined = { run: 0, offset: 0 }; from; ) {
      const captured = captureSync(this.#image, this.#shadow, dirty, { codec, out: this.#out, from })
      bytes += captured.bytes
      changed += captured.stats.changedBytes
      from = captured.next
    }
    return { bytes, changed }
  }
}

function readPages(region: Region, ranges: PageRanges): Uint8Array {
  const pages = new Uint8Array(ranges.pageCount * pageBytes)
  let at = 0
  for (const { first, count } of ranges) {
    region.readInto(first * pageBytes, pages.subarray(at, at + count * pageBytes))
    at += count * pageBytes
  }
  return pages
}

function writePages(region: Region, ranges: PageRanges, pages: Uint8Array): void {
  let at = 0
  for (const { first, count } of ranges) {
    region.write(first * pageBytes, pages.subarray(at, at + count * pageBytes))
    at += count * pageBytes
  }
}

/** Two numbers a page: a bit for each line that differs. */
function mapsOf(before: Uint8Array, after: Uint8Array): Uint32Array {
  const [a, b] = [new Uint32Array(before.buffer), new Uint32Array(after.buffer)]
  const wordsPerLine = pageBytes / linesPerPage / 4
  const maps = new Uint32Array((2 * before.length) / pageBytes)
  for (let line = 0; line < a.length / wordsPerLine; line++)
    for (let word = line * wordsPerLine; word < (line + 1) * wordsPerLine; word++)
      if (a[word] !== b[word]) {
        maps[line >>> 5] = (maps[line >>> 5]! | (1 << (line & 31))) >>> 0
        break
      }
  return maps
}
