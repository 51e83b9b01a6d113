/** XXH3 over blocks of memory (128 bits, for sharing and verifying) and over wire frames (64 bits). */
import { addon } from './native.ts'
import { lineBytes, pageBytes } from './page.ts'
import type { PageRanges } from './page-ranges.ts'
import type { Region } from './region.ts'

export const hashBytes = 16

/** Up to this many pages are read on the caller's own thread: a thread-pool round trip costs more. */
const inlinePagesMax = 64

/**
 * XXH3-128 (canonical, big endian) of every block of `blockBytes` in the ranges, in order.
 * @param blockBytes a power of two from 64 to 4096
 */
export async function hashBlocks(
  region: Region,
  ranges: PageRanges,
  blockBytes: number,
): Promise<Uint8Array> {
  if (ranges.pageCount <= inlinePagesMax) return hashBlocksSync(region, ranges, blockBytes)
  const out = hashRoom(region, ranges, blockBytes)
  await addon.hashBlocksAsync(region.handle, ranges.pairs, ranges.runCount, blockBytes, out)
  return out
}

export function hashBlocksSync(region: Region, ranges: PageRanges, blockBytes: number): Uint8Array {
  const out = hashRoom(region, ranges, blockBytes)
  addon.hashBlocks(region.handle, ranges.pairs, ranges.runCount, blockBytes, out)
  return out
}

function hashRoom(region: Region, ranges: PageRanges, blockBytes: number): Uint8Array {
  if (![64, 128, 256, 512, 1024, 2048, pageBytes].includes(blockBytes))
    throw new TypeError(
      `a block must have a power of two from ${lineBytes} to ${pageBytes} bytes, not ${blockBytes}`,
    )
  assertInside(ranges, region)
  return new Uint8Array(ranges.pageCount * (pageBytes / blockBytes) * hashBytes)
}

const nothing = new Uint8Array(0)
const sum = new Uint8Array(8)
const sumView = new DataView(sum.buffer)

/** XXH3-64 of `first` followed by `second`. */
export function checksum64(first: Uint8Array, second: Uint8Array = nothing): bigint {
  addon.checksum64(first, second, sum, 0)
  return sumView.getBigUint64(0, true)
}

/** As `checksum64`, written to `into` at `at`: eight bytes, little endian. */
export function writeChecksum64(
  into: Uint8Array,
  at: number,
  first: Uint8Array,
  second: Uint8Array = nothing,
): void {
  addon.checksum64(first, second, into, at)
}

/** Where two memories differ first. */
export interface Difference {
  page: number
  line: number
}

/** The first line within the ranges in which two regions differ; undefined when they are equal. */
export async function compareRegions(
  a: Region,
  b: Region,
  ranges: PageRanges,
): Promise<Difference | undefined> {
  if (ranges.pageCount <= inlinePagesMax) return compareRegionsSync(a, b, ranges)
  assertComparable(a, b, ranges)
  return differenceAt(await addon.compareRegionsAsync(a.handle, b.handle, ranges.pairs, ranges.runCount))
}

export function compareRegionsSync(a: Region, b: Region, ranges: PageRanges): Difference | undefined {
  assertComparable(a, b, ranges)
  return differenceAt(addon.compareRegions(a.handle, b.handle, ranges.pairs, ranges.runCount))
}

function assertComparable(a: Region, b: Region, ranges: PageRanges): void {
  assertInside(ranges, a)
  assertInside(ranges, b)
}

/** @param index of a line of the memory, negative for none */
export function differenceAt(index: number): Difference | undefined {
  if (index < 0) return undefined
  const linesPerPage = pageBytes / lineBytes
  return { page: Math.floor(index / linesPerPage), line: index % linesPerPage }
}

function assertInside(ranges: PageRanges, region: Region): void {
  if (ranges.endPage > region.pages)
    throw new TypeError(`the ranges reach to page ${ranges.endPage} of a region of ${region.pages} pages`)
}
