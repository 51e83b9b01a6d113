/** Arbitrary pairs of memories, and the native engine and the oracle driven over them. */
import fc from 'fast-check'
import { type CaptureOptions, type CodecName, captureSync } from '../../src/delta/capture.ts'
import { lineBytes, pageBytes } from '../../src/memory/page.ts'
import type { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'

export const testPages = 5
const testBytes = testPages * pageBytes

/** Deterministic bytes: xorshift, so that a failing case is its seed. */
export function noise(seed: number, length: number): Uint8Array {
  let state = (seed | 1) >>> 0
  return Uint8Array.from({ length }, () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state & 0xff
  })
}

type Edit = (memory: Uint8Array) => void

const offset = fc.nat(testBytes - 1)

/** Writes as guests make them: words, counters, lines, whole pages, clearing, and single bytes anywhere. */
const edit: fc.Arbitrary<Edit> = fc.oneof(
  fc
    .tuple(offset, fc.uint8Array({ minLength: 1, maxLength: 24 }))
    .map(([at, bytes]) => (memory: Uint8Array) => {
      memory.set(bytes.subarray(0, memory.length - at), at)
    }),
  fc.tuple(offset, fc.nat(5000), fc.nat()).map(([at, length, seed]) => (memory: Uint8Array) => {
    memory.set(noise(seed, Math.min(length, memory.length - at)), at)
  }),
  fc.tuple(offset, fc.nat(5000)).map(([at, length]) => (memory: Uint8Array) => {
    memory.fill(0, at, at + length)
  }),
  fc.tuple(fc.nat(testPages - 1), fc.nat(63), fc.nat()).map(([page, line, seed]) => (memory: Uint8Array) => {
    memory.set(noise(seed, lineBytes), page * pageBytes + line * lineBytes)
  }),
  fc.nat(testPages - 1).map((page) => (memory: Uint8Array) => {
    memory.fill(0, page * pageBytes, (page + 1) * pageBytes)
  }),
  fc
    .tuple(fc.nat(testPages - 1), fc.integer({ min: 1, max: 16 }))
    .map(([page, step]) => (memory: Uint8Array) => {
      for (let at = page * pageBytes; at < (page + 1) * pageBytes; at += step) memory[at]! += 1
    }),
)

function memoryAfter(base: Uint8Array, edits: Edit[]): Uint8Array {
  const memory = base.slice()
  for (const apply of edits) apply(memory)
  return memory
}

/** Two memories: the second is the first after some writes. */
export const memoryPair = fc
  .tuple(fc.array(edit, { maxLength: 5 }), fc.array(edit, { maxLength: 8 }))
  .map(([first, second]) => {
    const before = memoryAfter(new Uint8Array(testBytes), first)
    return { before, after: memoryAfter(before, second) }
  })

/** A region with this content. The caller closes it. */
export function regionOf(memory: Uint8Array): Region {
  const region = Region.anonymous(memory.length)
  region.write(0, memory)
  return region
}

export const contentOf = (region: Region): Uint8Array => region.read(0, region.bytes)

/** Captures everything, as many outputs as it takes. */
export function captureAll(
  ram: Region,
  shadow: Region,
  ranges: PageRanges,
  options: { codec: CodecName; whole?: boolean; outBytes?: number },
): Uint8Array[] {
  const out = new Uint8Array(options.outBytes ?? 2 ** 17)
  const deltas: Uint8Array[] = []
  let from: CaptureOptions['from']
  do {
    const { codec, whole = false } = options
    const captured = captureSync(ram, shadow, ranges, { codec, whole, out, ...(from && { from }) })
    deltas.push(out.slice(0, captured.bytes))
    from = captured.next
  } while (from)
  return deltas
}
