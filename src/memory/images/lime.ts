/**
 * An image as LiME and AVML write it uncompressed: for each range of physical memory a header, then its bytes.
 * Format: LiME's doc/README.md; all numbers little endian: magic u32, version u32, first and last address u64, 8 bytes.
 */
import { SubpageError } from '../../errors.ts'
import { limits } from '../../limits.ts'
import { readWhole } from './file-bytes.ts'
import { refuseKnown } from './known-formats.ts'
import type { MemoryImage } from './memory-image.ts'
import { piecedImage, type Segment } from './pieces.ts'

export const limeMagic = Buffer.from('EMiL', 'latin1')

const headerBytes = 32
const version = 1
const rangesMax = limits.coreSegments.value

/** Takes `fd` over. @throws SubpageError IMAGE_MALFORMED */
export function openLime(path: string, fd: number, bytes: number): MemoryImage {
  const wrong = (what: string) =>
    new SubpageError('IMAGE_MALFORMED', `${path} cannot be read as an image of LiME: ${what}`)
  const segments: Segment[] = []
  const header = Buffer.alloc(headerBytes)
  for (let at = 0; at < bytes; ) {
    if (bytes - at < headerBytes) throw wrong('it is cut short within a header')
    readWhole(path, fd, at, header)
    refuseKnown(path, header)
    if (!header.subarray(0, limeMagic.length).equals(limeMagic)) throw wrong(`no header is at byte ${at}`)
    if (header.readUInt32LE(4) !== version)
      throw wrong(`its version is ${header.readUInt32LE(4)}, and ${version} is read here`)
    const [first, last] = [header.readBigUInt64LE(8), header.readBigUInt64LE(16)]
    const length = Number(last - first) + 1
    const address = Number(first)
    if (last < first || !Number.isSafeInteger(address + length)) throw wrong('a range ends before it begins')
    at += headerBytes
    if (length > bytes - at) throw wrong('it is cut short: a range lies behind its end; take the image again')
    segments.push({ address, memoryBytes: length, fileBytes: length, offset: at })
    if (segments.length > rangesMax) throw wrong(`it has more than ${rangesMax} ranges`)
    at += length
  }
  return piecedImage({ path, fd, kind: 'lime', segments, wrong })
}
