/**
 * Recorded epochs of real guests: the dirty pages of each epoch, before and after it, as scripts/record-epochs.ts writes
 * them to build/epochs/NAME.epochs. The benchmarks use what is there and go without when nothing was recorded.
 *
 * A file is gzip of: "SPEPOCHS", u32 version (1), u32 number of epochs; then per epoch u32 number of pages n, n × u32
 * page number (ascending), n × 4096 bytes before, n × 4096 bytes after. Little endian.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { packageRoot } from '../src/memory/native.ts'
import { pageBytes } from '../src/memory/page.ts'
import type { PagePairs } from './delta-patterns.ts'

export interface RecordedEpoch {
  pages: Uint32Array
  before: Uint8Array
  after: Uint8Array
}

export const epochsFolder = join(packageRoot, 'build/epochs')

const magic = 'SPEPOCHS'
const version = 1

export function writeEpochs(path: string, epochs: readonly RecordedEpoch[]): void {
  const u32 = (...values: number[]) => Buffer.from(Uint32Array.from(values).buffer)
  const parts = epochs.flatMap(({ pages, before, after }) => [
    u32(pages.length),
    Buffer.from(pages.buffer, pages.byteOffset, pages.byteLength),
    before,
    after,
  ])
  writeFileSync(path, gzipSync(Buffer.concat([Buffer.from(magic), u32(version, epochs.length), ...parts])))
}

/** @throws Error when the file is not of this format and version, or is cut short */
export function readEpochs(path: string): RecordedEpoch[] {
  const bytes = gunzipSync(readFileSync(path))
  let at = 0
  const take = (length: number): Uint8Array => {
    if (at + length > bytes.length) throw new Error(`${path} is cut short`)
    at += length
    return bytes.subarray(at - length, at)
  }
  // A copy, because a view of 32-bit numbers must be aligned.
  const u32s = (count: number) => new Uint32Array(new Uint8Array(take(4 * count)).buffer)
  if (Buffer.from(take(magic.length)).toString('latin1') !== magic)
    throw new Error(`${path} holds no recorded epochs`)
  const [found, count] = u32s(2)
  if (found !== version) throw new Error(`${path} is of version ${found}, not ${version}`)
  const epochs = Array.from({ length: count! }, () => {
    const pages = u32s(u32s(1)[0]!)
    return { pages, before: take(pages.length * pageBytes), after: take(pages.length * pageBytes) }
  })
  if (at !== bytes.length) throw new Error(`${path} has bytes behind its last epoch`)
  return epochs
}

/** Every recording, as page pairs that are repeated until there are `pages`. */
export function recordedPairs(pages: number): [name: string, pairs: () => PagePairs][] {
  if (!existsSync(epochsFolder)) return []
  return readdirSync(epochsFolder)
    .filter((name) => name.endsWith('.epochs'))
    .sort()
    .map((name) => [`epochs-${basename(name, '.epochs')}`, () => repeated(join(epochsFolder, name), pages)])
}

function repeated(path: string, pages: number): PagePairs {
  const epochs = readEpochs(path)
  const before = Buffer.concat(epochs.map((epoch) => epoch.before))
  const after = Buffer.concat(epochs.map((epoch) => epoch.after))
  const fill = (from: Buffer) => {
    const to = new Uint8Array(pages * pageBytes)
    for (let at = 0; at < to.length; at += from.length) to.set(from.subarray(0, to.length - at), at)
    return to
  }
  return { pages, before: fill(before), after: fill(after) }
}
