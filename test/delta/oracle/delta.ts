/**
 * The reference implementation of docs/delta-format.md: slow, pure, and independent of native/core, which must produce
 * and accept exactly the same bytes.
 */

import { type CodecName, codecNames, codecNumbers } from '../../../src/delta/codec.ts'
import { pageBytes } from '../../../src/memory/page.ts'
import type { PageRanges } from '../../../src/memory/page-ranges.ts'
import { isZero, Malformed, Reader, uleb } from './bytes.ts'
import { pageCodecs } from './codecs.ts'

const headerBytes = 16
const padBytes = 8
const version = 1
const kindZero = 0
const kindRaw = 1

export interface OracleInput {
  /** The shadow, or anything when `whole`. */
  before: Uint8Array
  /** RAM. */
  after: Uint8Array
  ranges: PageRanges
  codec: CodecName
  whole: boolean
  /** A block that has changed goes whole; for `line`. With hashes as a shadow the bytes are the same. */
  grainBytes?: number
}

/** The delta of all pages in the ranges, in one piece. */
export function encodeDelta({ before, after, ranges, codec, whole, grainBytes }: OracleInput): Uint8Array {
  const body: number[] = []
  let records = 0
  let nextPage = 0
  for (const page of ranges.pages()) {
    const record = encodeRecord(pageOf(before, page), pageOf(after, page), codec, whole, grainBytes)
    if (record.length === 0) continue
    body.push(...uleb(page - nextPage))
    for (const byte of record) body.push(byte)
    nextPage = page + 1
    records++
  }
  const delta = new Uint8Array(headerBytes + body.length + padBytes)
  const header = new DataView(delta.buffer)
  delta.set([0x53, 0x44, version, codecNumbers[codec], whole ? 1 : 0])
  header.setUint32(8, records, true)
  header.setUint32(12, body.length, true)
  delta.set(body, headerBytes)
  return delta
}

const zeroPage = new Uint8Array(pageBytes)

/** One record without its gap; empty when nothing has to be sent for this page. */
function encodeRecord(
  before: Uint8Array,
  after: Uint8Array,
  codec: CodecName,
  whole: boolean,
  grainBytes?: number,
): number[] {
  const base = whole ? zeroPage : before
  // `page` knows no unchanged pages: it sends what is dirty.
  if (!whole && codec !== 'page' && base.every((byte, i) => byte === after[i])) return []
  if (isZero(after)) return [0, kindZero]
  const raw = [0, kindRaw, ...after]
  const record = pageCodecs[codec].encode(base, after, whole ? undefined : grainBytes)
  return record && record.length < raw.length ? record : raw
}

/** Applies a delta to an image. @throws Malformed; the image is then as it was */
export function applyDelta(
  image: Uint8Array,
  delta: Uint8Array,
): { codec: CodecName; whole: boolean; pages: number } {
  const header = readHeader(delta)
  const result = image.slice()
  const reader = new Reader(delta, headerBytes, delta.length - padBytes)
  let page = 0
  for (let record = 0; record < header.pages; record++, page++) {
    page += reader.uleb()
    if ((page + 1) * pageBytes > image.length) throw new Malformed('page number')
    applyRecord(pageOf(result, page), reader, header.codec, header.whole)
  }
  if (reader.left > 0) throw new Malformed('bytes behind the last record')
  image.set(result)
  return header
}

function readHeader(delta: Uint8Array): { codec: CodecName; whole: boolean; pages: number } {
  if (delta.length < headerBytes + padBytes) throw new Malformed('header')
  const view = new DataView(delta.buffer, delta.byteOffset, delta.length)
  const codec = codecNames[delta[3]!]
  const sound =
    delta[0] === 0x53 &&
    delta[1] === 0x44 &&
    delta[2] === version &&
    delta[4]! <= 1 &&
    isZero(delta.subarray(5, 8)) &&
    view.getUint32(12, true) === delta.length - headerBytes - padBytes &&
    isZero(delta.subarray(delta.length - padBytes))
  if (!sound || !codec) throw new Malformed('header')
  return { codec, whole: delta[4] === 1, pages: view.getUint32(8, true) }
}

function applyRecord(page: Uint8Array, reader: Reader, codec: CodecName, whole: boolean): void {
  const first = reader.byte()
  const kind = first === 0 ? reader.byte() : undefined
  if (kind === kindRaw) {
    page.set(reader.take(pageBytes))
    return
  }
  if (kind !== undefined && kind !== kindZero) throw new Malformed('kind')
  if (whole || kind === kindZero) page.fill(0)
  if (kind === undefined) pageCodecs[codec].decode(first, reader, page)
}

function pageOf(memory: Uint8Array, page: number): Uint8Array {
  return memory.subarray(page * pageBytes, (page + 1) * pageBytes)
}
