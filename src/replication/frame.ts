/**
 * Frames: what travels between primary and standby. docs/protocol.md describes them byte by byte.
 *
 * Header, 40 bytes, little endian: magic "SPG2" · type u8 · 3 bytes zero · payload length u32 · sequence u32 (frames
 * sent on this connection so far) · epoch u64 · XXH3-64 of these 24 bytes · XXH3-64 of these 32 bytes and the payload.
 * A lost, doubled or reordered frame breaks the sequence, a damaged one a checksum; no length is believed that is damaged.
 */
import { spareBuffers, spareBytes } from '../delta/spare-buffers.ts'
import { invariant, SubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import { checksum64 } from '../memory/hash.ts'

export const frameType = {
  hello: 1,
  welcome: 2,
  refuse: 3,
  pages: 4,
  device: 5,
  commit: 6,
  ack: 7,
  guestEnded: 8,
  unprotect: 9,
  askHashes: 10,
  hashes: 11,
  askPage: 12,
  page: 13,
  heartbeat: 14,
  handover: 15,
  tookOver: 16,
  reduced: 17,
  raw: 18,
  leave: 19,
  dismissed: 20,
  /** Now there is a process for its guest: connect once more. */
  again: 21,
  /** Writes to a disk. */
  disk: 22,
  askChanges: 23,
  changes: 24,
  lineage: 25,
} as const

export type FrameType = (typeof frameType)[keyof typeof frameType]

const knownTypes = new Set<number>(Object.values(frameType))

export interface Frame {
  type: FrameType
  /** Checkpoint that the frame belongs to; 0 outside of checkpoints. */
  epoch: number
  /** Of a reduced delta: until the next frame is asked for. */
  payload: Uint8Array
}

export const headerBytes = 40
const fieldBytes = 24
const sealedBytes = fieldBytes + 8
/** Longest payload that is accepted; senders split what is longer. */
export const payloadBytesMax = limits.framePayloadBytes.value
const magicBytes = 4
/** Shorter payloads are not worth a place that is kept. */
const ownRoomMax = 64 * 1024
const magic = 0x32475053 // "SPG2", little endian

/** The header of a frame, sealed with its checksums. */
export function encodeHeader(frame: Frame, sequence: number): Uint8Array {
  invariant(frame.payload.length <= payloadBytesMax, `a frame carries at most ${payloadBytesMax} bytes`)
  const header = Buffer.alloc(headerBytes)
  header.writeUInt32LE(magic, 0)
  header.writeUInt8(frame.type, 4)
  header.writeUInt32LE(frame.payload.length, 8)
  header.writeUInt32LE(sequence >>> 0, 12)
  header.writeBigUInt64LE(BigInt(frame.epoch), 16)
  header.writeBigUInt64LE(checksum64(header.subarray(0, fieldBytes)), fieldBytes)
  header.writeBigUInt64LE(checksum64(header.subarray(0, sealedBytes), frame.payload), sealedBytes)
  return header
}

/** Cuts a stream of bytes into frames. One parser for one connection; after an error it must not be used again. */
export class FrameParser {
  #sequence = 0
  readonly #header = Buffer.alloc(headerBytes)
  #headerFilled = 0
  #payload: Uint8Array | undefined
  /** Reduced deltas become something else at once, so that they may have one place. */
  #reduced: Buffer | undefined
  #payloadFilled = 0;

  /** @throws SubpageError FRAME_MALFORMED; frames that were whole before the damage have been returned already. */
  *push(chunk: Uint8Array): Generator<Frame> {
    let at = 0
    while (at < chunk.length || this.#payloadComplete()) {
      if (!this.#payload) {
        const n = Math.min(headerBytes - this.#headerFilled, chunk.length - at)
        this.#header.set(chunk.subarray(at, at + n), this.#headerFilled)
        this.#headerFilled += n
        at += n
        // Another protocol may not have as many bytes to say.
        if (this.#headerFilled >= magicBytes && this.#header.readUInt32LE(0) !== magic)
          malformed('it does not begin with SPG2')
        if (this.#headerFilled === headerBytes) this.#payload = this.#room(this.#payloadLength())
      } else {
        const n = Math.min(this.#payload.length - this.#payloadFilled, chunk.length - at)
        this.#payload.set(chunk.subarray(at, at + n), this.#payloadFilled)
        this.#payloadFilled += n
        at += n
        if (this.#payloadComplete()) yield this.#finish(this.#payload)
      }
    }
  }

  /** True when the stream may end here: no frame is half read. */
  get atBoundary(): boolean {
    return this.#headerFilled === 0
  }

  #payloadComplete(): boolean {
    return this.#payload !== undefined && this.#payloadFilled === this.#payload.length
  }

  #room(bytes: number): Uint8Array {
    const type = this.#header.readUInt8(4)
    if (type === frameType.pages || type === frameType.raw) return spareBuffers.take(bytes)
    if (type !== frameType.reduced || bytes < ownRoomMax) return Buffer.allocUnsafeSlow(bytes)
    if (!this.#reduced || this.#reduced.length < bytes)
      this.#reduced = Buffer.allocUnsafeSlow(Math.max(bytes, spareBytes))
    return this.#reduced.subarray(0, bytes)
  }

  #payloadLength(): number {
    const header = this.#header
    const expected = checksum64(header.subarray(0, fieldBytes))
    if (header.readBigUInt64LE(fieldBytes) !== expected) malformed('the checksum of its header is wrong')
    if (!knownTypes.has(header.readUInt8(4))) malformed(`its type is ${header.readUInt8(4)}`)
    if (header.readUIntLE(5, 3) !== 0) malformed('bytes 5 to 7 of its header are not zero')
    const length = header.readUInt32LE(8)
    if (length > payloadBytesMax) malformed(`it announces ${length} bytes, more than ${payloadBytesMax}`)
    if (header.readUInt32LE(12) !== this.#sequence)
      malformed(`it is number ${header.readUInt32LE(12)}, expected ${this.#sequence}`)
    if (header.readBigUInt64LE(16) > BigInt(Number.MAX_SAFE_INTEGER)) malformed('its epoch is out of range')
    return length
  }

  #finish(payload: Uint8Array): Frame {
    const header = this.#header
    const expected = checksum64(header.subarray(0, sealedBytes), payload)
    if (header.readBigUInt64LE(sealedBytes) !== expected) malformed('its checksum is wrong')
    const frame = {
      type: header.readUInt8(4) as FrameType,
      epoch: Number(header.readBigUInt64LE(16)),
      payload,
    }
    this.#sequence = (this.#sequence + 1) >>> 0
    this.#headerFilled = 0
    this.#payload = undefined
    this.#payloadFilled = 0
    return frame
  }
}

function malformed(what: string): never {
  throw new SubpageError('FRAME_MALFORMED', `a frame was refused: ${what}`)
}
