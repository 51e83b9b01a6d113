/**
 * What each codec (docs/delta-format.md) would send for a span, from its line maps alone, for traces without content.
 *
 * `page` and `line` follow from the maps but for pages that are now all zeros, which cost three bytes: an upper bound.
 * `xor-rle` and `masked` depend on how the changed bytes lie, which the maps do not say. They are estimated from the number
 * of changed bytes, with two constants that were fitted to epochs whose content is known: those of the workloads of
 * `subpage study amplification`, 1 to 100 ms long. Four in five estimates were between 0.79 and 1.37 (xor-rle) and between
 * 0.89 and 1.10 (masked) of what the codec made, the median 1.06 and 1.02.
 */
import type { CodecName } from 'subpage/delta/codec'
import { pageBytes } from 'subpage/memory/page'
import { lineCount } from '../trace.ts'
import type { Span } from './spans.ts'

/** Header and closing zeros of a delta. */
const frameBytes = 24
/** Gap and kind of a page that goes whole. */
const rawBytes = 3 + pageBytes
/** Bytes that differ in a word of eight in which some do. */
const changedPerWord = 6
/** Bytes that differ before some do not. */
const changedPerRun = 8

export function estimatedCodecBytes(span: Span): Record<CodecName, number> {
  const pageCount = span.dirty.pageCount
  let [lines, changedPages, line] = [0, 0, 0]
  for (let page = 0; page < pageCount; page++) {
    const count = lineCount(span.changedMaps, page)
    if (count === 0) continue
    changedPages++
    lines += count
    line += Math.min(rawBytes, 2 + mapBytes(span.changedMaps, page) + 64 * count)
  }
  if (pageCount === 0) return { page: 0, line: 0, 'xor-rle': 0, masked: 0 }
  const words = Math.min(8 * lines, span.changedBytes / changedPerWord)
  const wholeLines = line + frameBytes
  const runs = Math.max(changedPages, span.changedBytes / changedPerRun)
  // The map of lines is sparse: gap, its top byte and about two of its bytes a page.
  const masked = frameBytes + 4 * changedPages + lines + words + span.changedBytes
  return {
    page: frameBytes + rawBytes * pageCount,
    line: wholeLines,
    'xor-rle': Math.round(frameBytes + 3 * changedPages + 3 * runs + span.changedBytes),
    masked: Math.round(Math.min(masked, wholeLines + lines)),
  }
}

/** Bytes of the map of a page that are not zero. */
function mapBytes(maps: Uint32Array, page: number): number {
  let count = 0
  for (const word of [maps[2 * page]!, maps[2 * page + 1]!])
    for (let shift = 0; shift < 32; shift += 8) if (((word >>> shift) & 0xff) !== 0) count++
  return count
}
