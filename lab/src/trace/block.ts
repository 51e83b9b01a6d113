/**
 * The blocks of a trace file: 16 bytes of header, then a body, both under a CRC-32. See docs/trace-format.md.
 */
import { closeSync, fstatSync, readSync } from 'node:fs'
import { crc32, deflateRawSync, inflateRawSync } from 'node:zlib'
import { SubpageError } from 'subpage/errors'
import { openInput } from 'subpage/input-file'
import { limits } from 'subpage/limits'

export const magic = Buffer.from('SPTRACE\n', 'latin1')

export const blockKinds = {
  header: 1,
  areas: 2,
  base: 3,
  content: 4,
  epoch: 5,
  gap: 6,
  end: 7,
  note: 8,
} as const
export type BlockKind = keyof typeof blockKinds
const kindNames = new Map<number, BlockKind>(
  Object.entries(blockKinds).map(([name, number]) => [number, name as BlockKind]),
)

const blockHeaderBytes = 16
/** Of a body, so that a damaged length cannot ask for all memory. An epoch of 64 GiB of dirty pages stays below. */
const bodyBytesMax = limits.traceBodyBytes.value
const deflated = 1
/** Below this, deflate gains nothing. */
const worthDeflatingBytes = 128

export interface Block {
  /** `cut`: the file ends within a block. */
  kind: BlockKind | 'cut'
  body: Uint8Array
}

const cut: Block = { kind: 'cut', body: new Uint8Array() }

/** Header and stored body, to be written one after the other. */
export function encodeBlock(kind: BlockKind, body: Uint8Array, compress: boolean): [Uint8Array, Uint8Array] {
  if (body.length > bodyBytesMax) throw new TypeError(`a block of ${body.length} bytes`)
  const packed = compress && body.length >= worthDeflatingBytes ? deflateRawSync(body, { level: 1 }) : body
  const stored = packed.length < body.length ? packed : body
  const header = Buffer.alloc(blockHeaderBytes)
  header[0] = blockKinds[kind]
  header[1] = stored === body ? 0 : deflated
  header.writeUInt32LE(stored.length, 4)
  header.writeUInt32LE(body.length, 8)
  header.writeUInt32LE(crc32(stored, crc32(header.subarray(0, 12))), 12)
  return [header, stored]
}

/** Reads a file block by block; at most one body is in memory. Closes the file when it is done or left. */
export function* readBlocks(path: string): Generator<Block, void> {
  const fd = openInput(path)
  try {
    const bytes = fstatSync(fd).size
    const start = read(fd, 0, Math.min(bytes, magic.length))
    if (Buffer.compare(start, magic) !== 0)
      throw new SubpageError(
        'TRACE_MALFORMED',
        bytes === 0
          ? `${path} is empty: the recording wrote nothing`
          : `${path} is not a trace: it does not begin with SPTRACE; \`subpage record -o FILE\` writes one`,
      )
    for (let at = magic.length; at < bytes; ) {
      if (at + blockHeaderBytes > bytes) return yield cut
      const header = read(fd, at, blockHeaderBytes)
      const [storedBytes, bodyBytes] = [header.readUInt32LE(4), header.readUInt32LE(8)]
      const kind = kindNames.get(header[0]!)
      if (kind === undefined || header[1]! > deflated || header.readUInt16LE(2) !== 0)
        throw damaged(path, at, 'no block begins there')
      if (storedBytes > bodyBytes || bodyBytes > bodyBytesMax)
        throw damaged(path, at, 'a length is impossible')
      if (at + blockHeaderBytes + storedBytes > bytes) return yield cut
      const stored = read(fd, at + blockHeaderBytes, storedBytes)
      if (crc32(stored, crc32(header.subarray(0, 12))) !== header.readUInt32LE(12))
        throw damaged(path, at, 'its checksum is wrong')
      yield { kind, body: header[1] === deflated ? inflate(path, at, stored, bodyBytes) : stored }
      at += blockHeaderBytes + storedBytes
    }
  } finally {
    closeSync(fd)
  }
}

export function damaged(path: string, at: number | undefined, what: string): SubpageError {
  const where = at === undefined ? '' : ` at byte ${at}`
  return new SubpageError('TRACE_MALFORMED', `${path} is damaged${where}: ${what}; record it again`)
}

export function cutShort(path: string): SubpageError {
  return new SubpageError(
    'TRACE_MALFORMED',
    `${path} is cut short before its first epoch ended: the recording was killed, or the copy is not whole; record or copy it again`,
  )
}

function inflate(path: string, at: number, stored: Uint8Array, bytes: number): Uint8Array {
  try {
    const body = inflateRawSync(stored, { maxOutputLength: Math.max(1, bytes) })
    if (body.length === bytes) return body
  } catch (cause) {
    // What was compressed has passed its checksum, so whoever wrote it was wrong.
    throw Object.assign(damaged(path, at, 'it cannot be decompressed'), { cause })
  }
  throw damaged(path, at, 'it is shorter than it says')
}

function read(fd: number, at: number, bytes: number): Buffer {
  const into = Buffer.alloc(bytes)
  let filled = 0
  while (filled < bytes) {
    const count = readSync(fd, into, filled, bytes - filled, at + filled)
    if (count === 0) break
    filled += count
  }
  return into.subarray(0, filled)
}
