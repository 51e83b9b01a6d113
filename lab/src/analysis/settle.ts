/**
 * Settles an epoch: what each codec would send to bring the shadow to what the image is, and then brings it there. Nothing is
 * estimated: the codecs run.
 */
import { captureSync, outBytesMin } from 'subpage/delta/capture'
import { type CodecName, codecNames } from 'subpage/delta/codec'
import { linesPerPage, pageBytes } from 'subpage/memory/page'
import type { PageRanges } from 'subpage/memory/page-ranges'
import type { Region } from 'subpage/memory/region'
import { readPages, writePages } from '../pages.ts'

export interface Settled {
  /** Two numbers a page: a bit for each line that differs. */
  changedMaps: Uint32Array
  changedBytes: number
  codecBytes: Record<CodecName, number>
}

/** So many pages at a time: epochs may be as large as the memory. */
const portionPages = 16 * 1024

export class Settling {
  readonly #out = new Uint8Array(Math.max(outBytesMin, 4 * 2 ** 20))

  /**
   * @param maps of changed lines where they are known already
   * @param look sees each delta of the last codec, masked; to be copied if kept
   */
  settle(
    image: Region,
    shadow: Region,
    dirty: PageRanges,
    maps?: Uint32Array,
    look?: (delta: Uint8Array) => void,
  ): Settled {
    const changedMaps = maps ?? new Uint32Array(2 * dirty.pageCount)
    const codecBytes: Record<CodecName, number> = { page: 0, line: 0, 'xor-rle': 0, masked: 0 }
    let [changedBytes, page] = [0, 0]
    for (let rest = dirty; rest.pageCount > 0; ) {
      const [portion, later] = rest.take(portionPages)
      const before = readPages(shadow, portion)
      if (!maps) mapsOf(before, readPages(image, portion), changedMaps, page)
      for (const codec of codecNames) {
        if (codec !== codecNames[0]) writePages(shadow, portion, before)
        const last = codec === codecNames.at(-1)
        const { bytes, changed } = this.#capture(image, shadow, portion, codec, last ? look : undefined)
        codecBytes[codec] += bytes
        if (last) changedBytes += changed
      }
      page += portion.pageCount
      rest = later
    }
    return { changedMaps, changedBytes, codecBytes }
  }

  #capture(
    image: Region,
    shadow: Region,
    dirty: PageRanges,
    codec: CodecName,
    look: ((delta: Uint8Array) => void) | undefined,
  ): { bytes: number; changed: number } {
    let [bytes, changed] = [0, 0]
    for (let from: { run: number; offset: number } | undefined = { run: 0, offset: 0 }; from; ) {
      const captured = captureSync(image, shadow, dirty, { codec, out: this.#out, from })
      look?.(this.#out.subarray(0, captured.bytes))
      bytes += captured.bytes
      changed += captured.stats.changedBytes
      from = captured.next
    }
    return { bytes, changed }
  }
}

/** Sets the maps from `page` on. */
function mapsOf(before: Uint8Array, after: Uint8Array, maps: Uint32Array, page: number): void {
  const [a, b] = [new Uint32Array(before.buffer), new Uint32Array(after.buffer)]
  const wordsPerLine = pageBytes / linesPerPage / 4
  for (let line = 0, at = 2 * page; line < a.length / wordsPerLine; line++, at += line % 32 === 0 ? 1 : 0)
    for (let word = line * wordsPerLine; word < (line + 1) * wordsPerLine; word++)
      if (a[word] !== b[word]) {
        maps[at] = (maps[at]! | (1 << (line & 31))) >>> 0
        break
      }
}
