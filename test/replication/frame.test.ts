/**
 * Frames under attack: whatever bytes arrive, in whatever pieces, a parser gives back exactly the frames that were sent,
 * in order, up to the first damage, and then fails once. It never makes up a frame and never takes more memory than one
 * longest payload.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import { limits } from '../../src/limits.ts'
import { checksum64 } from '../../src/memory/hash.ts'
import { encodeHeader, type Frame, FrameParser, frameType, headerBytes } from '../../src/replication/frame.ts'

const payloadBytesMax = limits.framePayloadBytes.value

const anyFrame: fc.Arbitrary<Frame> = fc.record({
  type: fc.constantFrom(...Object.values(frameType)),
  epoch: fc.oneof(fc.nat(10), fc.maxSafeNat()),
  payload: fc.uint8Array({ maxLength: 200 }),
})
const anyFrames = fc.array(anyFrame, { minLength: 1, maxLength: 6 })

const encode = (frame: Frame, sequence: number) =>
  Buffer.concat([encodeHeader(frame, sequence), frame.payload])
const encodeAll = (frames: Frame[]) => Buffer.concat(frames.map(encode))

/** A header with whatever is asked for, and checksums that fit. */
function sealed(change: (header: Buffer) => void, payload = Buffer.alloc(0)): Buffer {
  const header = Buffer.from(encodeHeader({ type: frameType.ack, epoch: 1, payload }, 0))
  change(header)
  header.writeBigUInt64LE(checksum64(header.subarray(0, 24)), 24)
  header.writeBigUInt64LE(checksum64(header.subarray(0, 32), payload), 32)
  return Buffer.concat([header, payload])
}

/** Cuts bytes at the given places. */
function pieces(bytes: Buffer, cuts: number[]): Buffer[] {
  const at = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
  return at.slice(1).map((end, i) => bytes.subarray(at[i], end))
}

interface Outcome {
  frames: Frame[]
  error: unknown
  atBoundary: boolean
}

function parse(chunks: Buffer[]): Outcome {
  const parser = new FrameParser()
  const frames: Frame[] = []
  try {
    for (const chunk of chunks) for (const frame of parser.push(chunk)) frames.push(frame)
  } catch (error) {
    return { frames, error, atBoundary: false }
  }
  return { frames, error: undefined, atBoundary: parser.atBoundary }
}

function plain({ type, epoch, payload }: Frame) {
  return { type, epoch, payload: Buffer.from(payload).toString('hex') }
}

/** Everything that comes out was sent, in this order, from the first on. */
function expectPrefix(got: Frame[], sent: Frame[]): void {
  expect(got.map(plain)).toEqual(sent.slice(0, got.length).map(plain))
}

function expectMalformed(error: unknown): void {
  expect(error).toBeInstanceOf(SubpageError)
  expect(error).toMatchObject({ code: 'FRAME_MALFORMED' })
}

describe('what is sent comes out', () => {
  test('any frames, cut into any pieces', () => {
    fc.assert(
      fc.property(anyFrames, fc.array(fc.nat(2000), { maxLength: 20 }), (sent, cuts) => {
        const { frames, error, atBoundary } = parse(pieces(encodeAll(sent), cuts))
        expect(error).toBeUndefined()
        expect(frames.map(plain)).toEqual(sent.map(plain))
        expect(atBoundary).toBe(true)
      }),
    )
  })

  test('byte by byte', () => {
    const sent: Frame[] = [
      { type: frameType.hello, epoch: 0, payload: Buffer.from('x') },
      { type: frameType.ack, epoch: Number.MAX_SAFE_INTEGER, payload: Buffer.alloc(0) },
      { type: frameType.unprotect, epoch: 0, payload: Buffer.alloc(0) },
    ]
    const bytes = encodeAll(sent)
    const { frames } = parse([...bytes].map((_, i) => bytes.subarray(i, i + 1)))
    expect(frames.map(plain)).toEqual(sent.map(plain))
  })

  test('the longest payload, and not a byte more', () => {
    const longest = { type: frameType.pages, epoch: 1, payload: Buffer.alloc(payloadBytesMax, 7) }
    expect(parse([encode(longest, 0)]).frames).toHaveLength(1)
    const longer = { ...longest, payload: Buffer.alloc(payloadBytesMax + 1) }
    expect(() => encodeHeader(longer, 0)).toThrow(/at most 4194304 bytes/)
  })

  test('a frame is a copy: the buffer it came in may be used again', () => {
    const parser = new FrameParser()
    const bytes = encode({ type: frameType.ack, epoch: 1, payload: Buffer.from([1, 2, 3]) }, 0)
    const [frame] = parser.push(bytes)
    bytes.fill(0)
    expect([...(frame?.payload ?? [])]).toEqual([1, 2, 3])
  })
})

describe('what is damaged does not', () => {
  test('reduced deltas have one place, one after the other, and all other frames their own', () => {
    const bytes = 2 ** 17
    const frames = [frameType.reduced, frameType.raw, frameType.reduced, frameType.raw].map((type, i) => ({
      ...{ type, epoch: i },
      payload: Buffer.alloc(bytes - i, i),
    }))
    const parser = new FrameParser()
    const buffers: unknown[] = []
    for (const { epoch, payload } of parser.push(encodeAll(frames))) {
      expect(Buffer.from(payload).equals(Buffer.alloc(bytes - epoch, epoch))).toBe(true)
      buffers.push(payload.buffer)
    }
    expect(buffers[2]).toBe(buffers[0])
    expect(new Set(buffers).size).toBe(3)
  })

  test('every single bit flip, in every place', () => {
    const sent: Frame[] = [
      { type: frameType.pages, epoch: 5, payload: Buffer.from('the first payload') },
      { type: frameType.commit, epoch: 5, payload: Buffer.alloc(24, 9) },
    ]
    const bytes = encodeAll(sent)
    const firstBytes = headerBytes + 17
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const damaged = Buffer.from(bytes)
      damaged[bit >> 3]! ^= 1 << (bit & 7)
      const { frames, error } = parse([damaged])
      const whole = bit >> 3 < firstBytes ? 0 : 1
      expect(frames.length, `bit ${bit}`).toBe(whole)
      expectPrefix(frames, sent)
      // Also of a length that grew: nothing is waited for.
      expectMalformed(error)
    }
  })

  test('truncated anywhere: whole frames come out, and the end is not at a boundary', () => {
    fc.assert(
      fc.property(anyFrames, fc.nat(), (sent, cut) => {
        const bytes = encodeAll(sent)
        const length = cut % bytes.length
        const { frames, error, atBoundary } = parse([bytes.subarray(0, length)])
        expect(error).toBeUndefined()
        expectPrefix(frames, sent)
        const wholeBytes = encodeAll(sent.slice(0, frames.length)).length
        expect(atBoundary).toBe(wholeBytes === length)
      }),
    )
  })

  test('any bytes changed: nothing that was not sent', () => {
    const patch = fc.tuple(fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 12 }))
    fc.assert(
      fc.property(anyFrames, fc.array(patch, { minLength: 1, maxLength: 4 }), (sent, patches) => {
        const bytes = encodeAll(sent)
        for (const [at, replacement] of patches) {
          const from = at % bytes.length
          bytes.set(replacement.subarray(0, bytes.length - from), from)
        }
        const { frames, error } = parse([bytes])
        expectPrefix(frames, sent)
        if (error !== undefined) expectMalformed(error)
      }),
    )
  })

  test('frames lost, doubled or reordered', () => {
    fc.assert(
      fc.property(fc.array(anyFrame, { minLength: 2, maxLength: 6 }), fc.nat(), fc.nat(), (sent, a, b) => {
        const encoded = sent.map(encode)
        const [i, j] = [a % sent.length, b % sent.length]
        const first = encoded[i]!
        for (const changed of [
          encoded.toSpliced(i, 1),
          encoded.toSpliced(j, 0, first),
          encoded.with(i, encoded[j]!).with(j, first),
        ]) {
          const { frames, error, atBoundary } = parse([Buffer.concat(changed)])
          expectPrefix(frames, sent)
          // What was lost at the very end cannot show in what came before.
          if (error === undefined) expect(atBoundary).toBe(true)
          else expectMalformed(error)
        }
        const doubled = parse([Buffer.concat([...encoded, encoded.at(-1)!])])
        expectMalformed(doubled.error)
        expect(doubled.frames).toHaveLength(sent.length)
      }),
    )
  })

  test('random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: headerBytes, maxLength: 300 }), (noise) => {
        const { frames, error } = parse([Buffer.from(noise)])
        expect(frames).toEqual([])
        expectMalformed(error)
      }),
    )
  })

  const headers: [what: string, change: (header: Buffer) => void, message: RegExp][] = [
    ['another magic', (h) => h.write('HTTP', 0), /does not begin with SPG2/],
    ['type 0', (h) => h.writeUInt8(0, 4), /its type is 0/],
    ['an unknown type', (h) => h.writeUInt8(200, 4), /its type is 200/],
    ['reserved bytes that are not zero', (h) => h.writeUInt8(1, 7), /not zero/],
    ['a length beyond the cap', (h) => h.writeUInt32LE(payloadBytesMax + 1, 8), /announces 4194305 bytes/],
    ['the largest length', (h) => h.writeUInt32LE(2 ** 32 - 1, 8), /announces 4294967295 bytes/],
    ['a sequence from the future', (h) => h.writeUInt32LE(1, 12), /number 1, expected 0/],
    ['an epoch beyond 2^53', (h) => h.writeBigUInt64LE(2n ** 53n, 16), /epoch is out of range/],
    ['the largest epoch', (h) => h.writeBigUInt64LE(2n ** 64n - 1n, 16), /epoch is out of range/],
  ]
  test.each(headers)('%s, correctly sealed', (_, change, message) => {
    const { frames, error } = parse([sealed(change)])
    expect(frames).toEqual([])
    expectMalformed(error)
    expect((error as Error).message).toMatch(message)
  })

  test('a refused header costs no memory, an accepted one at most one payload', () => {
    const before = process.memoryUsage().arrayBuffers
    const parsers = Array.from({ length: 8 }, () => new FrameParser())
    for (const parser of parsers)
      expect(() => [...parser.push(sealed((h) => h.writeUInt32LE(2 ** 31, 8)))]).toThrow()
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(payloadBytesMax)
    for (const _ of parsers) {
      const parser = new FrameParser()
      parsers.push(parser)
      expect([...parser.push(sealed((h) => h.writeUInt32LE(payloadBytesMax, 8)))]).toEqual([])
      if (parsers.length === 16) break
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(9 * payloadBytesMax)
  })

  test('what the sender cannot put into a header is an error there', () => {
    const payload = Buffer.alloc(0)
    for (const epoch of [-1, 1.5, Number.NaN])
      expect(() => encodeHeader({ type: frameType.ack, epoch, payload }, 0)).toThrow(RangeError)
  })
})
