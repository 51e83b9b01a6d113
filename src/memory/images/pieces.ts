/**
 * An image whose file says where in memory each of its pieces belongs: ELF cores, LiME. Memory is what the pieces name, with
 * the bytes that the file has for a part of it. Pieces may name the same memory twice and begin or end within a page; what
 * it takes to read them is proportional to what is in the file, not to what it reserves.
 */
import { closeSync } from 'node:fs'
import type { SubpageError } from '../../errors.ts'
import { addon } from '../native.ts'
import { pageBytes } from '../page.ts'
import { PageRanges } from '../page-ranges.ts'
import { readWhole } from './file-bytes.ts'
import type { ImageArea, ImageExtent, MemoryImage } from './memory-image.ts'

/** What a header of the file says. */
export interface Segment {
  address: number
  memoryBytes: number
  /** Bytes that the file has for its beginning, and where; `offset` counts only when there are any. */
  fileBytes: number
  offset: number
}

/** Bytes of memory that the file holds. Pieces neither overlap nor go past their area. */
interface Piece {
  address: number
  end: number
  offset: number
}

export interface PiecedFile {
  path: string
  /** Taken over. */
  fd: number
  kind: MemoryImage['kind']
  segments: Segment[]
  wrong: (what: string) => SubpageError
}

const pagesMax = 2 ** 32
const pageOf = (address: number) => Math.floor(address / pageBytes)
const pagesTo = (address: number) => Math.ceil(address / pageBytes)

/** @throws SubpageError of `wrong` when it holds no memory, or more than pages can be numbered */
export function piecedImage({ path, fd, kind, segments, wrong }: PiecedFile): MemoryImage {
  const areas = areasOf(segments, wrong)
  const pieces = piecesOf(segments)
  const last = areas.at(-1)!
  return {
    path,
    kind,
    areas,
    pageCount: last.firstPage + last.pageCount,
    held: pagesOf(areas, pieces),
    data: pagesOf(areas, dataOf(fd, pieces)),
    ...extentsOf(areas, pieces),
    read(first, into) {
      into.fill(0)
      const end = first + into.length / pageBytes
      for (let i = firstAfter(areas, areaEnd, first); i < areas.length && areas[i]!.firstPage < end; i++) {
        const { firstPage, address } = areas[i]!
        // Where the buffer's first byte would be if all of it were in this area.
        const base = address + (first - firstPage) * pageBytes
        const from = Math.max(base, address)
        const until = address + (Math.min(end, areaEnd(areas[i]!)) - firstPage) * pageBytes
        for (let p = firstAfter(pieces, pieceEnd, from); p < pieces.length; p++) {
          const piece = pieces[p]!
          if (piece.address >= until) break
          const [begin, stop] = [Math.max(from, piece.address), Math.min(until, piece.end)]
          readWhole(path, fd, piece.offset + begin - piece.address, into.subarray(begin - base, stop - base))
        }
      }
    },
    close: () => closeSync(fd),
  }
}

const areaEnd = ({ firstPage, pageCount }: ImageArea) => firstPage + pageCount
const pieceEnd = ({ end }: Piece) => end

/** Index of the first of a sorted list that ends after `at`. */
function firstAfter<T>(list: readonly T[], end: (of: T) => number, at: number): number {
  let [low, high] = [0, list.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (end(list[middle]!) <= at) low = middle + 1
    else high = middle
  }
  return low
}

/** Whole pages, sorted by address and numbered; segments that touch or overlap are one area. */
function areasOf(segments: Segment[], wrong: PiecedFile['wrong']): ImageArea[] {
  const spans: { first: number; end: number }[] = []
  for (const { address, memoryBytes } of segments.sort((a, b) => a.address - b.address)) {
    if (memoryBytes >= pagesMax * pageBytes) throw wrong('it holds more than 16 TiB')
    const [first, end] = [pageOf(address), pagesTo(address + memoryBytes)]
    const last = spans.at(-1)
    if (last && first <= last.end) last.end = Math.max(last.end, end)
    else if (end > first) spans.push({ first, end })
  }
  if (spans.length === 0) throw wrong('it holds no memory')
  let firstPage = 0
  return spans.map(({ first, end }) => {
    const area = { firstPage, pageCount: end - first, address: first * pageBytes }
    firstPage += area.pageCount
    if (firstPage >= pagesMax) throw wrong('it holds more than 16 TiB')
    return area
  })
}

/** Of memory that is named twice, as a dump with paging may, the segment that begins first counts. */
function piecesOf(sorted: readonly Segment[]): Piece[] {
  const pieces: Piece[] = []
  let end = 0
  for (const segment of sorted) {
    const address = Math.max(segment.address, end)
    const until = segment.address + segment.fileBytes
    if (until <= address) continue
    pieces.push({ address, end: until, offset: segment.offset + address - segment.address })
    end = until
  }
  return pieces
}

/** Of pieces, what is in no hole of the file. */
function dataOf(fd: number, pieces: readonly Piece[]): Piece[] {
  const found: Piece[] = []
  const span = new Float64Array(2)
  for (const { address, end, offset } of pieces) {
    const stop = offset + end - address
    for (let at = offset; at < stop; at = span[1]!) {
      if (!(span[0]! <= at && at < span[1]!) && !addon.fileData(fd, at, span)) break
      const [from, until] = [Math.max(at, span[0]!), Math.min(stop, span[1]!)]
      if (from >= until) break
      found.push({ address: address + from - offset, end: address + until - offset, offset: from })
    }
  }
  return found
}

/** The pages that pieces touch. */
function pagesOf(areas: readonly ImageArea[], pieces: readonly Piece[]): PageRanges {
  const runs: [number, number][] = []
  let area = 0
  for (const { address, end } of pieces) {
    area = areaOf(areas, address, area)
    const { firstPage, address: base } = areas[area]!
    const first = firstPage + pageOf(address - base)
    runs.push([first, firstPage + pagesTo(end - base) - first])
  }
  return PageRanges.of(runs)
}

/** From area `from` on, the one that holds an address. */
function areaOf(areas: readonly ImageArea[], address: number, from: number): number {
  let index = from
  while (areas[index]!.address + areas[index]!.pageCount * pageBytes <= address) index++
  return index
}

/** Where the file holds whole pages as they are, and which pages it has only in parts. */
function extentsOf(
  areas: readonly ImageArea[],
  pieces: readonly Piece[],
): { extents: ImageExtent[]; partial: number[] } {
  const extents: ImageExtent[] = []
  const partial: number[] = []
  let area = 0
  for (const { address, end, offset } of pieces) {
    area = areaOf(areas, address, area)
    const { firstPage, address: base } = areas[area]!
    const [whole, wholeEnd] = [pagesTo(address) * pageBytes, pageOf(end) * pageBytes]
    const add = (at: number) => {
      const page = firstPage + pageOf(at - base)
      if (partial.at(-1) !== page) partial.push(page)
    }
    if (address < whole) add(address)
    if (whole < wholeEnd) extents.push({ offset: offset + whole - address, bytes: wholeEnd - whole })
    if (wholeEnd < end && wholeEnd >= whole) add(wholeEnd)
  }
  return { extents, partial }
}
