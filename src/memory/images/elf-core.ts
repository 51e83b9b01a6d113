/**
 * An ELF core: its PT_LOAD segments are the memory. gcore writes one segment for each mapping, by virtual address, and
 * leaves out what a file still holds; QEMU's dump-guest-memory writes them by physical address.
 * Format: elf(5); more than 65,534 segments: the gABI's PN_XNUM.
 */
import { SubpageError } from '../../errors.ts'
import { limits } from '../../limits.ts'
import { readWhole } from './file-bytes.ts'
import type { MemoryImage } from './memory-image.ts'
import { piecedImage, type Segment } from './pieces.ts'

export const elfMagic = Buffer.from('\x7fELF', 'latin1')

const headerBytes = 64
const programHeaderBytes = 56
const core = 4
const load = 1
const countElsewhere = 0xffff
const segmentsMax = limits.coreSegments.value

/** Takes `fd` over. @throws SubpageError IMAGE_MALFORMED */
export function openElfCore(path: string, fd: number, bytes: number): MemoryImage {
  const wrong = (what: string) =>
    new SubpageError('IMAGE_MALFORMED', `${path} cannot be read as a core: ${what}`)
  return piecedImage({ path, fd, kind: 'elf', segments: readSegments(path, fd, bytes, wrong), wrong })
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
    const sectionAt = number(header.readBigUInt64LE(40))
    if (sectionAt + section.length > bytes) throw wrong('it is cut short before the number of its segments')
    readWhole(path, fd, sectionAt, section)
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
    // Of a segment without bytes the offset says nothing: some writers leave all ones there.
    if (segment.fileBytes > 0 && segment.offset + segment.fileBytes > bytes)
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

/** Addresses of the kernel's half lose their low bits as numbers; multiples of 4096 are exact below 2^64. */
const number = (value: bigint) => Number(value)
