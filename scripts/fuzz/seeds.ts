/**
 * Beginnings of real size for the targets of deltas: what capture and reduction make of 1,024 pages, under every codec and
 * method, and the longest page that a decoder must refuse. A fuzzer that begins with few bytes does not find its way to the
 * megabytes that one frame may hold.
 */
import { captureSync } from '../../src/delta/capture.ts'
import { type CodecName, codecNames, codecNumbers } from '../../src/delta/codec.ts'
import { Reducer, type ReduceStats, reduceParts, squeezeMethods } from '../../src/delta/reduce.ts'
import { limits } from '../../src/limits.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'
import { type SeededRandom, seededRandom } from '../../test/support/random.ts'

/** PAGES_MAX of native/fuzz/fuzz_delta.c and fuzz_restore.c. */
const pages = 1024

/** Memory as guests have it: small changes, copies, and pages that are noise. */
function write(random: SeededRandom, memory: Region, count: number): void {
  for (let page = 0; page < count; page++) {
    const at = page * pageBytes
    const kind = random.integer(0, 15)
    if (kind === 0) memory.write(at, noise(random, pageBytes))
    else if (kind < 4) memory.write(at, memory.read(random.integer(0, page) * pageBytes, pageBytes))
    for (let change = random.integer(1, 12); change > 0; change--) {
      const bytes = noise(random, random.integer(1, 24))
      memory.write(at + random.integer(0, pageBytes - bytes.length), bytes)
    }
  }
}

const noise = (random: SeededRandom, bytes: number): Uint8Array =>
  Uint8Array.from({ length: bytes }, () => random.integer(0, 255))

/** What one frame holds of these pages. */
function delta(
  memory: Region,
  shadow: Region,
  ranges: PageRanges,
  codec: CodecName,
  whole: boolean,
): Uint8Array {
  const out = new Uint8Array(limits.framePayloadBytes.value)
  return out.subarray(0, captureSync(memory, shadow, ranges, { codec, whole, out }).bytes)
}

/** A piece of what goes over a connection: reduced, or a delta to learn from. */
const piece = (bytes: Uint8Array, plain: boolean): Uint8Array =>
  Buffer.concat([
    Uint8Array.of(bytes.length, bytes.length >> 8, (bytes.length >> 16) | (plain ? 0x80 : 0)),
    bytes,
  ])

/** Three whole pages, and one of which every byte of every line is said to have changed: longer than any page that is captured. */
export function longestPage(): Uint8Array {
  const raw = [0, 1]
  const mapped = [0, 2]
  const columns = [
    Uint8Array.from([...raw, ...raw, ...raw, ...mapped]),
    new Uint8Array(9).fill(0xff),
    new Uint8Array(64).fill(0xff),
    new Uint8Array(512).fill(0xff),
    new Uint8Array(pageBytes).fill(0x41),
    new Uint8Array(3 * pageBytes).fill(7),
    new Uint8Array(0),
  ]
  return Buffer.concat([
    Buffer.from('SR\x01\x00'),
    Uint8Array.from([4, ...columns.flatMap(({ length }) => uleb(length))]),
    ...columns,
  ])
}

const uleb = (value: number): number[] => (value < 128 ? [value] : [(value & 127) | 128, ...uleb(value >> 7)])

export interface Seed {
  target: string
  name: string
  bytes: Uint8Array
}

/** What a connection carries: all memory, changes all over it, and changes of a half, which may refer to the other one. */
async function* ofCodec(codec: CodecName): AsyncGenerator<Seed> {
  const random = seededRandom(codecNumbers[codec] + 1)
  const memory = Region.anonymous(pages * pageBytes)
  const shadow = Region.anonymous(pages * pageBytes)
  const ways = squeezeMethods.map((method) => ({
    method,
    reducer: new Reducer(pages, reduceParts),
    pieces: [] as Uint8Array[],
  }))
  for (const [name, first, count] of [
    ['whole', 0, pages],
    ['changes', 0, pages],
    ['half', 0, pages / 2],
  ] as const) {
    const ranges = PageRanges.of([[first, count]])
    write(random, memory, count)
    const made = delta(memory, shadow, ranges, codec, name === 'whole')
    yield { target: 'delta-long', name: `${codec}-${name}`, bytes: made }
    for (const { method, reducer, pieces } of ways) {
      reducer.begin(name !== 'whole')
      reducer.include(ranges)
      const reduced = await reducer.reduce(made, shadow, method, noStats())
      pieces.push(piece(reduced ?? made, reduced === undefined))
    }
  }
  for (const { method, reducer, pieces } of ways) {
    yield { target: 'restore-long', name: `${codec}-${method}`, bytes: Buffer.concat(pieces) }
    reducer.close()
  }
  memory.close()
  shadow.close()
}

const noStats = (): ReduceStats => ({
  lines: 0,
  dictionaryLines: 0,
  sharedLines: 0,
  similarPages: 0,
  bodyBytes: 0,
})

export async function* seeds(): AsyncGenerator<Seed> {
  for (const codec of codecNames) yield* ofCodec(codec)
  yield { target: 'restore-long', name: 'longest-page', bytes: piece(longestPage(), false) }
}
