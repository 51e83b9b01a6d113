/**
 * An ELF core: its PT_LOAD segments are the memory. gcore writes one segment for each mapping, by virtual address, and
 * leaves out what a file still holds; QEMU's dump-guest-memory writes them by physical address.
 * Format: elf(5); more than 65,534 segments: the gABI's PN_XNUM.
 */
import { closeSync } from 'node:fs'
import { SubpageError } from '../../errors.ts'
import { limits } from '../../limits.ts'
import { pageBytes } from '../page.ts'
import { PageRanges } from '../page-ranges.ts'
import { readWhole } from './file-bytes.ts'
import type { ImageArea, MemoryImage } from './memory-image.ts'

export const elfMagic = Buffer.from('\x7fELF', 'latin1')

const headerBytes = 64
const programHeaderBytes = 56
const core = 4
const load = 1
const countElsewhere = 0xffff
const segmentsMax = limits.coreSegments.value

interface Segment {
  address: number
  fileBytes: number
  memoryBytes: number
  offset: number
}

/** Where the bytes of an area are: its segment. */
interface Placed extends ImageArea {
  offset: number
  fileBytes: number
}

/** Takes `fd` over. @throws SubpageError IMAGE_MALFORMED */
export function openElfCore(path: string, fd: number, bytes: number): MemoryImage {
  const wrong = (what: string) =>
    new SubpageError('IMAGE_MALFORMED', `${path} cannot be read as a core: ${what}`)
  const areas = place(readSegments(path, fd, bytes, wrong), wrong)
  const last = areas.at(-1)
  if (last === undefined) throw wrong('it holds no memory')
  const pageCount = last.firstPage + last.pageCount
  return {
    path,
    kind: 'elf',
    areas: areas.map(({ firstPage, pageCount: count, address }) => ({
      firstPage,
      pageCount: count,
      address,
    })),
    pageCount,
    held: PageRanges.of(
      areas.map(({ firstPage, fileBytes }) => [firstPage, Math.ceil(fileBytes / pageBytes)] as const),
    ),
    extents: areas.map(({ offset, fileBytes }) => ({
      offset,
      bytes: Math.floor(fileBytes / pageBytes) * pageBytes,
    })),
    read(first, into) {
      into.fill(0)
      const end = first + into.length / pageBytes
      for (let i = areaAt(areas, first); i < areas.length && areas[i]!.firstPage < end; i++) {
        const area = areas[i]!
        const from = Math.max(first, area.firstPage)
        const skipped = (from - area.firstPage) * pageBytes
        const until = Math.min(end, area.firstPage + area.pageCount)
        const count = Math.min((until - from) * pageBytes, area.fileBytes - skipped)
        if (count <= 0) continue
        const at = (from - first) * pageBytes
        readWhole(path, fd, area.offset + skipped, into.subarray(at, at + count))
      }
    },
    close: () => closeSync(fd),
  }
}

/** Index of the area that holds a page. */
function areaAt(areas: readonly Placed[], page: number): number {
  let [low, high] = [0, areas.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (areas[middle]!.firstPage + areas[middle]!.pageCount <= page) low = middle + 1
    else high = middle
  }
  return low
}

function readSegments(
  path: string,
  fd: number,
  bytes: number,
  wrong: (what: string) => SubpageError,
): Segment[] {
  if (bytes < headerBytes) throw wrong('it ends within its header')
  const header = Buffer.alloc(headerBytes)
  readWhole(path, fd, 0, header)
  if (header[4] !== 2 || header[5] !== 1)
    throw wrong('it is not of 64 bits and little endian, which is all that is read here')
  if (header.readUInt16LE(16) !== core)
    throw wrong('it is a program or a library; `gcore PID` and dump-guest-memory write cores')
  const at = number(header.readBigUInt64LE(32))
  if (header.readUInt16LE(54) !== programHeaderBytes) throw wrong('its program headers have an unknown size')
  let count = header.readUInt16LE(56)
  if (count === countElsewhere) {
    const section = Buffer.alloc(48)
    readWhole(path, fd, number(header.readBigUInt64LE(40)), section)
    count = section.readUInt32LE(44)
  }
  if (count > segmentsMax || at + count * programHeaderBytes > bytes)
    throw wrong('it is cut short within its program headers')
  const table = Buffer.alloc(count * programHeaderBytes)
  readWhole(path, fd, at, table)
  return parseSegments(table, bytes, wrong)
}

function parseSegments(table: Buffer, bytes: number, wrong: (what: string) => SubpageError): Segment[] {
  const found: (Omit<Segment, 'address'> & { virtual: number; physical: number })[] = []
  for (let at = 0; at < table.length; at += programHeaderBytes) {
    if (table.readUInt32LE(at) !== load) continue
    const field = (offset: number) => number(table.readBigUInt64LE(at + offset))
    const segment = {
      offset: field(8),
      virtual: field(16),
      physical: field(24),
      fileBytes: field(32),
      memoryBytes: field(40),
    }
    if (segment.memoryBytes === 0) continue
    if (segment.offset + segment.fileBytes > bytes)
      throw wrong('it is cut short: a segment lies behind its end')
    if (segment.fileBytes > segment.memoryBytes) throw wrong('a segment has more bytes than memory')
    found.push(segment)
  }
  // A process has no physical addresses; a dump of a machine without paging has no virtual ones.
  const physical =
    found.some((segment) => segment.physical !== 0) || found.every((segment) => segment.virtual === 0)
  const segments = found.map(({ virtual, physical: real, ...rest }) => ({
    address: physical ? real : virtual,
    ...rest,
  }))
  // The upper half of the address space is the kernel's: gcore writes its vsyscall page.
  return segments.filter(({ address }) => Number.isSafeInteger(address))
}

/** Sorted by address, numbered. Segments that name the same memory twice, as a dump with paging may, count once. */
function place(segments: Segment[], wrong: (what: string) => SubpageError): Placed[] {
  const areas: Placed[] = []
  let firstPage = 0
  let end = -1
  for (const segment of segments.sort((a, b) => a.address - b.address || b.memoryBytes - a.memoryBytes)) {
    let { address, offset, fileBytes, memoryBytes } = segment
    if (address % pageBytes !== 0) throw wrong('a segment does not begin with a page')
    if (address < end) {
      const known = Math.min(end - address, memoryBytes)
      address += known
      offset += known
      fileBytes = Math.max(0, fileBytes - known)
      memoryBytes -= known
    }
    if (memoryBytes <= 0) continue
    const pageCount = Math.ceil(memoryBytes / pageBytes)
    areas.push({ firstPage, pageCount, address, offset, fileBytes })
    firstPage += pageCount
    end = address + pageCount * pageBytes
    if (firstPage >= 2 ** 32) throw wrong('it holds more than 16 TiB')
  }
  return areas
}

/** Addresses of the kernel's half lose their low bits as numbers; multiples of 4096 are exact below 2^64. */
const number = (value: bigint) => Number(value)
