/**
 * Every function that takes a region, in every state of the region: open; busy, when an operation runs in the thread
 * pool; closed while busy; closed. And what is mapped afterwards: nothing.
 */
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { makeOwnedDirectory } from '../../src/agent/owned-directory.ts'
import { apply, applySync } from '../../src/delta/apply.ts'
import { capture, captureSync } from '../../src/delta/capture.ts'
import { compareRegions, compareRegionsSync, hashBlocks, hashBlocksSync } from '../../src/memory/hash.ts'
import { addon } from '../../src/memory/native.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'

const one = PageRanges.all(1)
const page = new Uint8Array(4096)
const emptyDelta = Uint8Array.of(0x53, 0x44, 1, 3, ...new Array(20).fill(0))
const options = () => ({ codec: 'masked' as const, out: new Uint8Array(2 ** 16) })
const other = Region.anonymous(64 * 2 ** 20)

const methods: Record<string, (region: Region) => unknown> = {
  read: (region) => region.read(0, 1),
  readInto: (region) => region.readInto(0, page),
  write: (region) => region.write(0, page),
  'captureSync, as RAM': (region) => captureSync(region, other, one, options()),
  'captureSync, as shadow': (region) => captureSync(other, region, one, options()),
  'capture, as RAM': (region) => capture(region, other, one, options()),
  'capture, as shadow': (region) => capture(other, region, one, options()),
  applySync: (region) => applySync(region, emptyDelta),
  apply: (region) => apply(region, emptyDelta),
  hashBlocksSync: (region) => hashBlocksSync(region, one, 4096),
  hashBlocks: (region) => hashBlocks(region, one, 4096),
  'compareRegionsSync, first': (region) => compareRegionsSync(region, other, one),
  'compareRegionsSync, second': (region) => compareRegionsSync(other, region, one),
  'compareRegions, first': (region) => compareRegions(region, other, one),
  'compareRegions, second': (region) => compareRegions(other, region, one),
}

/** Enough work for the thread pool that what comes next finds it running. */
function keepBusy(region: Region): Promise<Uint8Array> {
  return hashBlocks(region, PageRanges.all(region.pages), 64)
}

describe.each(Object.entries(methods))('%s', (_, call) => {
  it('works on an open region', async () => {
    using region = Region.anonymous(other.bytes)
    await call(region)
  })

  it('works on a busy region', async () => {
    using region = Region.anonymous(other.bytes)
    const busy = keepBusy(region)
    await call(region)
    expect((await busy).length).toBe(region.bytes / 4)
  })

  it('is a TypeError on a region that was closed while busy; what ran ends well', async () => {
    const region = Region.anonymous(other.bytes)
    const busy = keepBusy(region)
    region.close()
    await expect(async () => call(region)).rejects.toThrow(/region is closed/)
    expect((await busy).length).toBe(region.bytes / 4)
  })

  it('is a TypeError on a closed region', async () => {
    const region = Region.anonymous(other.bytes)
    region.close()
    await expect(async () => call(region)).rejects.toThrow(TypeError)
  })
})

describe('closing', () => {
  const mapped = (path: string) => readFileSync('/proc/self/maps', 'utf8').includes(path)

  it('unmaps at once, or when the last operation has ended; twice is once', async () => {
    const folder = makeOwnedDirectory('subpage-test-', '/dev/shm')
    try {
      for (const busy of [false, true]) {
        const path = join(folder, `busy-${busy}`)
        const region = await Region.create(path, 32 * 2 ** 20)
        expect(mapped(path)).toBe(true)
        const work = busy ? [keepBusy(region), keepBusy(region)] : []
        region.close()
        region.close()
        expect(mapped(path)).toBe(busy)
        await Promise.all(work)
        expect(mapped(path)).toBe(false)
        expect(region.bytes).toBe(32 * 2 ** 20)
      }
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

describe('misuse is a TypeError', () => {
  const region = Region.anonymous(8 * 4096)
  const small = Region.anonymous(4096)
  const base = { codec: 'masked' as const, out: new Uint8Array(2 ** 16) }
  it.each<[string, () => unknown]>([
    [
      'an output for less than one page',
      () => captureSync(region, region, one, { ...base, out: new Uint8Array(4375) }),
    ],
    ['memories of two sizes', () => captureSync(region, small, one, base)],
    ['ranges outside', () => captureSync(region, region, PageRanges.all(9), base)],
    ['an unknown codec', () => captureSync(region, region, one, { ...base, codec: 'zip' as never })],
    [
      'a position beyond the ranges',
      () => captureSync(region, region, one, { ...base, from: { run: 2, offset: 0 } }),
    ],
    [
      'a position beyond a run',
      () => captureSync(region, region, one, { ...base, from: { run: 0, offset: 2 } }),
    ],
    ['a handle that is none', () => addon.regionBytes({} as never)],
    ['a delta that is no Uint8Array', () => applySync(region, new Float64Array(9) as never)],
    ['nothing at all', () => (addon.apply as () => void)()],
  ])('%s', (_, call) => {
    expect(call).toThrow(TypeError)
  })
})
