/** Whole pages of a memory, one range after the other in one buffer. */
import { pageBytes } from 'subpage/memory/page'
import type { PageRanges } from 'subpage/memory/page-ranges'
import type { Region } from 'subpage/memory/region'

export function readPages(region: Region, ranges: PageRanges): Uint8Array {
  const pages = new Uint8Array(ranges.pageCount * pageBytes)
  let at = 0
  for (const { first, count } of ranges) {
    region.readInto(first * pageBytes, pages.subarray(at, at + count * pageBytes))
    at += count * pageBytes
  }
  return pages
}

export function writePages(region: Region, ranges: PageRanges, pages: Uint8Array): void {
  let at = 0
  for (const { first, count } of ranges) {
    region.write(first * pageBytes, pages.subarray(at, at + count * pageBytes))
    at += count * pageBytes
  }
}
