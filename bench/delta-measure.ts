/**
 * Times capture and apply of one set of page pairs. Absolute times mean little on a shared machine, so each timing has a
 * memcpy of the same pages and the XBZRLE pipe measured next to it, and ratios are taken within a trial. The memcpy also
 * drives what was restored out of the cache.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { applySync } from '../src/delta/apply.ts'
import { type CapturePosition, captureSync } from '../src/delta/capture.ts'
import { type CodecName, codecNames } from '../src/delta/codec.ts'
import { invariant } from '../src/errors.ts'
import { checksum64, compareRegionsSync } from '../src/memory/hash.ts'
import { addon } from '../src/memory/native.ts'
import { pageBytes } from '../src/memory/page.ts'
import { PageRanges } from '../src/memory/page-ranges.ts'
import { Region } from '../src/memory/region.ts'
import { type CpuPath, cpuPaths, selectCpuPath } from '../test/support/cpu.ts'
import type { PagePairs } from './delta-patterns.ts'

export type Order = 'sequential' | 'scattered'

export interface Row {
  op: 'capture' | 'apply'
  codec: CodecName
  path: CpuPath
  pattern: string
  order: Order
  gbPerS: number
  /** Above 1: faster than copying the same pages. */
  vsMemcpy: number
  /** Above 1: faster than the XBZRLE pipe (capture), or than applying our xor-rle delta (apply). */
  vsXorRlePipe: number
  nsPerPage: number
  bytesPerPage: number
}

export interface Measurement {
  rows: Row[]
  /** Of every delta that the best path produced. */
  hash: bigint
}

/** Pages between two that are used, when they are scattered: none is next to another. */
const scatter = 4
const outBytes = 2 ** 20

export function measure(pattern: string, pairs: PagePairs, order: Order, trials: number): Measurement {
  const bed = new Bed(pairs, order)
  try {
    const cases = cpuPaths().flatMap((path) => codecNames.map((codec) => new Case(path, codec)))
    for (const { path, codec } of cases) bed.verify(path, codec)
    for (let trial = 0; trial < trials; trial++) {
      const pipe = bed.timePipe()
      for (const one of cases) one.addCapture(bed.timeCapture(one), pipe)
      const applied = cases.map((one) => ({ one, timing: bed.timeApply(one) }))
      for (const { one, timing } of applied) {
        const base = applied.find((other) => other.one.path === one.path && other.one.codec === 'xor-rle')
        one.addApply(timing, base!.timing)
      }
    }
    const rows = cases.flatMap((one) => one.rows(pattern, order, pairs.pages))
    const best = cases.slice(-codecNames.length)
    const hash = best.reduce((sum, one) => checksum64(bytesOf(sum), bed.delta(one)), 0n)
    return { rows, hash }
  } finally {
    bed.close()
  }
}

function bytesOf(value: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(value).buffer)
}

/** One timing, and the memcpy measured right before it. */
interface Timing {
  ns: number
  memcpyNs: number
}

class Case {
  readonly path: CpuPath
  readonly codec: CodecName
  bytes = 0
  readonly #capture = { ns: [] as number[], vsMemcpy: [] as number[], vsPipe: [] as number[] }
  readonly #apply = { ns: [] as number[], vsMemcpy: [] as number[], vsPipe: [] as number[] }

  constructor(path: CpuPath, codec: CodecName) {
    this.path = path
    this.codec = codec
  }

  addCapture(timing: Timing, pipe: Timing): void {
    add(this.#capture, timing, pipe)
  }

  addApply(timing: Timing, base: Timing): void {
    add(this.#apply, timing, base)
  }

  rows(pattern: string, order: Order, pages: number): Row[] {
    return (['capture', 'apply'] as const).map((op) => {
      const { ns, vsMemcpy, vsPipe } = op === 'capture' ? this.#capture : this.#apply
      const { path, codec } = this
      const nsPerPage = median(ns) / pages
      return {
        op,
        codec,
        path,
        pattern,
        order,
        gbPerS: round(pageBytes / nsPerPage),
        vsMemcpy: round(median(vsMemcpy)),
        vsXorRlePipe: round(median(vsPipe)),
        nsPerPage: round(nsPerPage),
        bytesPerPage: round(this.bytes / pages),
      }
    })
  }
}

function add(
  into: { ns: number[]; vsMemcpy: number[]; vsPipe: number[] },
  timing: Timing,
  pipe: Timing,
): void {
  into.ns.push(timing.ns)
  into.vsMemcpy.push(timing.memcpyNs / timing.ns)
  into.vsPipe.push(pipe.ns / timing.ns)
}

const round = (value: number): number => Number(value.toPrecision(4))

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!
}

/** A file in shared memory that is gone when it is unmapped. */
function shared(bytes: number): Region {
  const folder = mkdtempSync('/dev/shm/subpage-bench-')
  try {
    const path = join(folder, 'memory')
    const file = openSync(path, 'wx')
    ftruncateSync(file, bytes)
    closeSync(file)
    return Region.map(path, { writable: true })
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** The memories of one measurement, all populated before the first timing. */
class Bed {
  readonly #ram: Region
  readonly #base: Region
  readonly #shadow: Region
  readonly #image: Region
  readonly #scratch: Region
  readonly #ranges: PageRanges
  readonly #out = new Uint8Array(outBytes)
  readonly #deltas = new Map<string, Uint8Array[]>()

  constructor({ pages, before, after }: PagePairs, order: Order) {
    const step = order === 'scattered' ? scatter : 1
    const bytes = pages * step * pageBytes
    // As in a pair: RAM and image are files that QEMU shares, the shadow is our own memory.
    this.#ram = shared(bytes)
    this.#image = shared(bytes)
    this.#base = Region.anonymous(bytes)
    this.#shadow = Region.anonymous(bytes)
    this.#scratch = Region.anonymous(bytes)
    // A multiplicative hash picks one page of each group.
    const place = (i: number) =>
      step === 1 ? i : i * step + ((Math.imul(i, 0x9e3779b1) >>> 30) % (step - 1))
    this.#ranges = PageRanges.of(Array.from({ length: pages }, (_, i) => [place(i), 1] as const))
    for (let i = 0; i < pages; i++) {
      const at = place(i) * pageBytes
      this.#ram.write(at, after.subarray(i * pageBytes, (i + 1) * pageBytes))
      this.#base.write(at, before.subarray(i * pageBytes, (i + 1) * pageBytes))
    }
    this.#copy(this.#scratch, this.#ram)
  }

  /** Captures and applies once: the result must be the memory; keeps the deltas. */
  verify(path: CpuPath, codec: CodecName): void {
    selectCpuPath(path)
    this.#copy(this.#shadow, this.#base)
    const deltas: Uint8Array[] = []
    this.#capture(codec, (delta) => deltas.push(delta.slice()))
    this.#copy(this.#image, this.#base)
    for (const delta of deltas) applySync(this.#image, delta)
    invariant(
      !compareRegionsSync(this.#ram, this.#image, this.#ranges),
      `${codec} on ${path} rebuilds the memory`,
    )
    this.#deltas.set(`${path} ${codec}`, deltas)
  }

  delta({ path, codec }: Case): Uint8Array {
    return Buffer.concat(this.#deltas.get(`${path} ${codec}`)!)
  }

  timePipe(): Timing {
    selectCpuPath('best')
    return this.#time(this.#shadow, () =>
      addon.xbzrlePipe(
        this.#shadow.handle,
        this.#ram.handle,
        this.#ranges.pairs,
        this.#ranges.runCount,
        this.#out,
      ),
    )
  }

  timeCapture(one: Case): Timing {
    selectCpuPath(one.path)
    let bytes = 0
    const timing = this.#time(this.#shadow, () => {
      bytes = this.#capture(one.codec)
    })
    one.bytes = bytes
    return timing
  }

  timeApply(one: Case): Timing {
    selectCpuPath(one.path)
    const deltas = this.#deltas.get(`${one.path} ${one.codec}`)!
    return this.#time(this.#image, () => {
      for (const delta of deltas) applySync(this.#image, delta)
    })
  }

  close(): void {
    for (const region of [this.#ram, this.#image, this.#base, this.#shadow, this.#scratch]) region.close()
    selectCpuPath('best')
  }

  #time(restored: Region, work: () => void): Timing {
    this.#copy(restored, this.#base)
    const begin = process.hrtime.bigint()
    this.#copy(this.#scratch, this.#ram)
    const middle = process.hrtime.bigint()
    work()
    const end = process.hrtime.bigint()
    return { memcpyNs: Number(middle - begin), ns: Number(end - middle) }
  }

  #copy(to: Region, from: Region): void {
    addon.copyPages(to.handle, from.handle, this.#ranges.pairs, this.#ranges.runCount)
  }

  #capture(codec: CodecName, visit?: (delta: Uint8Array) => void): number {
    let bytes = 0
    let from: CapturePosition | undefined
    do {
      const options = { codec, out: this.#out, ...(from && { from }) }
      const captured = captureSync(this.#ram, this.#shadow, this.#ranges, options)
      visit?.(this.#out.subarray(0, captured.bytes))
      bytes += captured.bytes
      from = captured.next
    } while (from)
    return bytes
  }
}
