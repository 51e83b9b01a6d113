/**
 * The four codecs as pure functions on one page, without the forms that they share (zero and raw pages: delta.ts).
 * `encode` gets two pages that differ and returns the record, or undefined when a raw page is the only way;
 * `decode` gets the first byte, which is not zero, and changes the page.
 */

import type { CodecName } from '../../../src/delta/codec.ts'
import { lineBytes, pageBytes } from '../../../src/memory/page.ts'
import { bitsOf, Malformed, Reader, setBits, uleb } from './bytes.ts'
import { changedLines, decodeLineMap, encodeLineMap, lineOf } from './line-map.ts'

export interface PageCodec {
  /** @param grainBytes of `line`: blocks go whole; the others know none */
  encode(before: Uint8Array, after: Uint8Array, grainBytes?: number): number[] | undefined
  decode(first: number, reader: Reader, page: Uint8Array): void
}

/** Whole pages: what Remus sends (Cully et al., NSDI 2008). */
const page: PageCodec = {
  encode: () => undefined,
  decode() {
    throw new Malformed('page record')
  },
}

/** Whole changed lines: what a tracker on a cache-coherent link would send. */
const line: PageCodec = {
  encode(before, after, grainBytes) {
    const lines = changedLines(before, after, grainBytes)
    return [...encodeLineMap(lines), ...lines.flatMap((index) => [...lineOf(after, index)])]
  },
  decode(first, reader, target) {
    const lines = decodeLineMap(first, reader)
    if (lines.length * lineBytes >= pageBytes) throw new Malformed('longer than a raw page')
    for (const index of lines) lineOf(target, index).set(reader.take(lineBytes))
  },
}

/** XBZRLE, as docs/xbzrle.txt of QEMU describes it, behind its length. */
const xorRle: PageCodec = {
  encode(before, after) {
    const runs = encodeXbzrle(before, after)
    return runs && [...uleb(runs.length), ...runs]
  },
  decode(first, reader, target) {
    const length = reader.uleb(first)
    if (length >= pageBytes) throw new Malformed('longer than a raw page')
    decodeXbzrle(reader.take(length), target)
  },
}

/** The bytes of XBZRLE; undefined when they would be as long as a page. */
function encodeXbzrle(before: Uint8Array, after: Uint8Array): number[] | undefined {
  const out: number[] = []
  for (let at = 0; at < pageBytes; ) {
    const start = find(at, (i) => before[i] !== after[i])
    if (start === pageBytes) break
    const end = find(start, (i) => before[i] === after[i])
    out.push(...uleb(start - at), ...uleb(end - start), ...after.subarray(start, end))
    if (out.length >= pageBytes) return undefined
    at = end
  }
  return out
}

function find(from: number, holds: (index: number) => boolean): number {
  for (let i = from; i < pageBytes; i++) if (holds(i)) return i
  return pageBytes
}

function decodeXbzrle(runs: Uint8Array, target: Uint8Array): void {
  const reader = new Reader(runs)
  let at = 0
  for (let first = true; reader.left > 0; first = false) {
    const equal = reader.uleb()
    const changed = reader.uleb()
    if ((equal === 0 && !first) || changed === 0 || at + equal + changed > pageBytes)
      throw new Malformed('run')
    target.set(reader.take(changed), at + equal)
    at += equal + changed
  }
}

/** Lines, in them 8-byte words, in them bytes: each level names what of the level below changed. */
const masked: PageCodec = {
  encode(before, after) {
    const words: number[] = []
    const masks: number[] = []
    const whole: number[] = []
    const packed: number[] = []
    const lines = changedLines(before, after)
    for (const index of lines) {
      const changed = wordMasks(lineOf(before, index), lineOf(after, index))
      const bytes = [...lineOf(after, index)]
      const kept = bytes.filter((_, i) => (changed[i >> 3]! >> (i & 7)) & 1)
      const used = changed.filter((mask) => mask !== 0)
      if (used.length + kept.length >= lineBytes) {
        words.push(0)
        whole.push(...bytes)
      } else {
        words.push(bitsOf(changed.map((mask) => mask !== 0)))
        masks.push(...used)
        packed.push(...kept)
      }
    }
    return [...encodeLineMap(lines), ...words, ...masks, ...whole, ...packed]
  },
  decode(first, reader, target) {
    const lines = decodeLineMap(first, reader)
    const words = [...reader.take(lines.length)]
    const masks = words.map((word) => setBits(word).map((bit) => ({ bit, mask: reader.byte() })))
    if (masks.flat().some(({ mask }) => mask === 0)) throw new Malformed('word without bytes')
    if (masks.some((used) => costOf(used.map(({ mask }) => mask)) >= lineBytes))
      throw new Malformed('line that should be whole')
    for (const [i, index] of lines.entries())
      if (words[i] === 0) lineOf(target, index).set(reader.take(lineBytes))
    for (const [i, index] of lines.entries())
      for (const { bit, mask } of masks[i]!)
        for (const byte of setBits(mask)) lineOf(target, index)[8 * bit + byte] = reader.byte()
  },
}

/** Bytes that a line takes by its words: a mask for each changed word, and its changed bytes. */
const costOf = (masks: readonly number[]): number =>
  masks.reduce((cost, mask) => cost + 1 + setBits(mask).length, 0)

/** For each of the eight words of a line, the map of its changed bytes. */
function wordMasks(before: Uint8Array, after: Uint8Array): number[] {
  return [0, 1, 2, 3, 4, 5, 6, 7].map((word) =>
    bitsOf([0, 1, 2, 3, 4, 5, 6, 7].map((byte) => before[8 * word + byte] !== after[8 * word + byte])),
  )
}

export const pageCodecs: Readonly<Record<CodecName, PageCodec>> = { page, line, 'xor-rle': xorRle, masked }
