/**
 * Makes traces from a program that writes to memory, for the tests: what a recorder would have seen of it, computed the plain
 * way. `small` is what small.trace holds.
 */
import { captureSync } from 'subpage/delta/capture'
import { pageBytes } from 'subpage/memory/page'
import { PageRanges } from 'subpage/memory/page-ranges'
import { Region } from 'subpage/memory/region'
import { type TraceGap, type TraceHeader, TraceWriter } from '../../src/trace.ts'

export interface Made {
  path: string
  pages: number
  epochs: number
  content: boolean
  written: boolean
  /** Writes to the memory in one epoch; `at` and length of every store count as written. */
  program(store: (at: number, bytes: Uint8Array) => void, epoch: number): void
  gapBefore?: Record<number, Omit<TraceGap, 'startUs'>>
}

const epochUs = 10_000

export function makeTrace({ path, pages, epochs, content, written, program, gapBefore = {} }: Made): void {
  const header: TraceHeader = {
    format: 1,
    target: { kind: 'vm', name: 'made' },
    tracker: 'userfault',
    epochUs,
    memoryBytes: pages * pageBytes,
    written,
    content,
    counters: ['logFull'],
    notes: ['made by a test'],
    host: { name: 'nowhere', kernel: '0', cpu: 'none' },
    release: '0.0.0',
    startedAt: '2026-01-01T00:00:00.000Z',
  }
  const writer = new TraceWriter(path, header, { replace: true })
  const half = Math.ceil(pages / 2)
  writer.areas([
    { firstPage: 0, pageCount: half, address: 0, name: 'low' },
    { firstPage: half, pageCount: pages - half, address: half * pageBytes, name: 'high <b>' },
  ])
  using memory = Region.anonymous(pages * pageBytes)
  using shadow = Region.anonymous(pages * pageBytes)
  const delta = (ranges: PageRanges, whole: boolean) => {
    const out = new Uint8Array(2 * 2 ** 20)
    const { bytes } = captureSync(memory, shadow, ranges, { codec: 'masked', whole, out })
    return out.slice(0, bytes)
  }
  memory.write(0, new Uint8Array(pageBytes).fill(7))
  const base = delta(PageRanges.all(pages), true)
  if (content) writer.base(base)
  let startUs = 0
  for (let epoch = 0; epoch < epochs; epoch++) {
    const gap = gapBefore[epoch]
    if (gap) {
      writer.gap({ ...gap, startUs })
      if (gap.cause === 'lost') startUs += gap.lengthUs
    }
    const before = memory.read(0, memory.bytes)
    const stores = new Map<number, [number, number]>()
    program((at, bytes) => {
      memory.write(at, bytes)
      for (let line = Math.floor(at / 64); line <= Math.floor((at + bytes.length - 1) / 64); line++)
        mark(stores, line)
    }, epoch)
    const after = memory.read(0, memory.bytes)
    const dirtyPages = [...stores.keys()].sort((a, b) => a - b)
    const changed = new Map<number, [number, number]>()
    const changedBytes = dirtyPages.map((page) => {
      let count = 0
      for (let at = page * pageBytes; at < (page + 1) * pageBytes; at++)
        if (before[at] !== after[at]) {
          count++
          mark(changed, Math.floor(at / 64))
        }
      return count
    })
    const dirty = PageRanges.of(dirtyPages.map((page) => [page, 1]))
    const maps = (of: Map<number, [number, number]>) =>
      Uint32Array.from(dirtyPages.flatMap((page) => of.get(page) ?? [0, 0]))
    const lengthUs = gap?.cause === 'late' ? epochUs * (1 + gap.epochsMissed) : epochUs
    const made = delta(dirty, false)
    if (content) writer.content(made)
    writer.epoch({
      startUs,
      lengthUs,
      pauseUs: 300,
      dirty,
      changedMaps: maps(changed),
      changedBytes: Uint16Array.from(changedBytes),
      ...(written && { writtenMaps: maps(stores) }),
      counters: { logFull: epoch % 3 },
    })
    startUs += lengthUs
  }
  writer.end('time', startUs)
}

function mark(maps: Map<number, [number, number]>, line: number): void {
  const page = Math.floor(line / 64)
  const map = maps.get(page) ?? [0, 0]
  const bit = line % 64
  map[bit >> 5] = (map[bit >> 5]! | (1 << (bit & 31))) >>> 0
  maps.set(page, map)
}

/**
 * A counter in page 1, its page-end twin that is stored but stays the same, a log that sweeps through pages 8 to 23, a word that
 * flips back every second epoch, and a burst of whole pages in epoch 20.
 */
export const small: Omit<Made, 'path' | 'content' | 'written'> = {
  pages: 64,
  epochs: 40,
  program(store, epoch) {
    const number = Uint8Array.of(epoch + 1, 0, 0, 0)
    store(pageBytes, number)
    store(2 * pageBytes - 64, new Uint8Array(8))
    store((8 + (epoch % 16)) * pageBytes + 128 * Math.floor(epoch / 16), new Uint8Array(100).fill(epoch + 1))
    store(40 * pageBytes, Uint8Array.of(epoch % 2))
    store(41 * pageBytes, Uint8Array.of(0))
    if (epoch === 20)
      store(
        48 * pageBytes,
        Uint8Array.from({ length: 3 * pageBytes }, (_, i) => 1 + ((i * 31) % 251)),
      )
  },
  gapBefore: { 30: { lengthUs: 20_000, cause: 'late', epochsMissed: 2, reason: 'busy' } },
}
