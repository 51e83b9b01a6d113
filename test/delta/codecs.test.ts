/**
 * Every codec on every CPU path against the oracle, byte for byte, and the laws that any codec must keep:
 * applying what was captured gives the memory, and applying it twice gives the same as once.
 */
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { applySync, checkDelta } from '../../src/delta/apply.ts'
import { codecNames } from '../../src/delta/codec.ts'
import { compareRegionsSync } from '../../src/memory/hash.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'
import { cpuPaths, selectCpuPath } from '../support/cpu.ts'
import { captureAll, contentOf, memoryPair, noise, regionOf, testPages } from './memories.ts'
import { applyDelta, encodeDelta } from './oracle/delta.ts'

afterEach(() => selectCpuPath('best'))

const ranges = fc
  .array(fc.tuple(fc.nat(testPages - 1), fc.nat(2)), { maxLength: 3 })
  .map((runs) =>
    PageRanges.of(runs.map(([first, count]) => [first, Math.min(count, testPages - first)] as const)),
  )
const someRanges = fc.oneof(fc.constant(PageRanges.all(testPages)), ranges)

const cases = cpuPaths().flatMap((path) =>
  codecNames.flatMap((codec) => [false, true].map((whole) => ({ path, codec, whole }))),
)

describe.each(cases)('$codec on $path, whole: $whole', ({ path, codec, whole }) => {
  it('gives the bytes of the oracle, updates the shadow, and rebuilds the memory, once or twice', () => {
    selectCpuPath(path)
    fc.assert(
      fc.property(memoryPair, someRanges, fc.boolean(), ({ before, after }, pages, small) => {
        using ram = regionOf(after)
        using shadow = regionOf(before)
        // A whole record must not depend on what the image held.
        const held = whole ? noise(7, before.length) : before
        using image = regionOf(held)
        const deltas = captureAll(ram, shadow, pages, { codec, whole, outBytes: small ? 4376 : 2 ** 17 })

        const expected = held.slice()
        for (const page of pages.pages())
          expected.set(after.subarray(page * 4096, (page + 1) * 4096), page * 4096)
        if (!small) {
          expect(deltas).toHaveLength(1)
          const oracle = encodeDelta({ before, after, ranges: pages, codec, whole })
          if (Buffer.compare(deltas[0]!, oracle) !== 0) expect(deltas[0]).toEqual(oracle)
        }
        const shadowExpected = before.slice()
        for (const page of pages.pages())
          shadowExpected.set(after.subarray(page * 4096, (page + 1) * 4096), page * 4096)
        expect(Buffer.compare(contentOf(shadow), shadowExpected)).toBe(0)

        for (const delta of deltas) applySync(image, delta)
        expect(Buffer.compare(contentOf(image), expected)).toBe(0)
        for (const delta of deltas) applySync(image, delta)
        expect(Buffer.compare(contentOf(image), expected)).toBe(0)
      }),
      { numRuns: 60 },
    )
  })
})

describe('a record of exactly the length of a raw page', () => {
  // 62 lines of 8 words with 7 changed bytes each go whole (64 bytes); two more lines fill up. 9 bytes are the map of
  // lines, 64 the words' map, so a sum of 4025 makes 4098: as long as a raw page.
  it.each([
    [46, false],
    [47, true],
    [48, true],
  ])('%s bytes in the last line but one, raw: %s', (count, raw) => {
    const after = new Uint8Array(pageBytes)
    for (let word = 0; word < 62 * 8; word++) after.fill(1, word * 8, word * 8 + 7)
    for (let i = 0; i < count; i++) after[62 * 64 + (i % 8) * 8 + Math.floor(i / 8)] = 1
    after[63 * 64] = 1
    const before = new Uint8Array(pageBytes)
    const delta = encodeDelta({ before, after, ranges: PageRanges.all(1), codec: 'masked', whole: false })
    expect(delta.length).toBe(16 + 1 + (raw ? 4098 : 4097) + 8)
    for (const path of cpuPaths()) {
      selectCpuPath(path)
      using ram = regionOf(after)
      using shadow = regionOf(before)
      expect(captureAll(ram, shadow, PageRanges.all(1), { codec: 'masked' })).toEqual([delta])
    }
  })
})

it.each(codecNames)('works on pages beyond 4 GiB: %s', (codec) => {
  const pages = 3 * 2 ** 19 // 6 GiB, of which little is ever touched
  using ram = Region.anonymous(pages * pageBytes)
  using shadow = Region.anonymous(pages * pageBytes)
  using image = Region.anonymous(pages * pageBytes)
  const ranges = PageRanges.of([
    [0, 1],
    [2 ** 20, 1],
    [pages - 1, 1],
  ])
  for (const page of ranges.pages()) ram.write(page * pageBytes + 5, noise(page + 1, 100))
  for (const delta of captureAll(ram, shadow, ranges, { codec }))
    expect(applySync(image, delta).pages).toBe(3)
  expect(compareRegionsSync(ram, image, ranges)).toBeUndefined()
  expect(compareRegionsSync(ram, shadow, ranges)).toBeUndefined()
  expect(image.read((pages - 1) * pageBytes + 5, 100)).toEqual(noise(pages, 100))
})

describe('strict decoding', () => {
  /** Damages a delta in one of the ways that a decoder must survive. */
  const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 3 })

  it.each(codecNames)('accepts and applies exactly what the oracle does: %s', (codec) => {
    let accepted = 0
    let refused = 0
    fc.assert(
      fc.property(memoryPair, fc.boolean(), damage, fc.boolean(), ({ before, after }, whole, hits, early) => {
        const delta = encodeDelta({ before, after, ranges: PageRanges.all(testPages), codec, whole })
        // Most bytes of a long delta are data: half of the damage goes to the first bytes, where the structure is.
        for (const [at, byte] of hits)
          delta[early ? at % Math.min(delta.length, 40) : at % delta.length] = byte
        const expected = before.slice()
        let sound = true
        try {
          applyDelta(expected, delta)
        } catch {
          sound = false
        }
        using image = regionOf(before)
        if (sound) {
          accepted++
          expect(checkDelta(delta, testPages)).toEqual(applySync(image, delta))
        } else {
          refused++
          expect(() => applySync(image, delta)).toThrow(expect.objectContaining({ code: 'DELTA_MALFORMED' }))
        }
        expect(Buffer.compare(contentOf(image), expected)).toBe(0)
      }),
      { numRuns: 300 },
    )
    // The test is worth something only if both sides were seen.
    expect(accepted).toBeGreaterThan(10)
    expect(refused).toBeGreaterThan(10)
  })

  it.each(codecNames)('refuses every shorter beginning of a delta: %s', (codec) => {
    const after = noise(3, 4096)
    after.fill(0, 100, 3900)
    const delta = encodeDelta({
      before: new Uint8Array(4096),
      after,
      ranges: PageRanges.all(1),
      codec,
      whole: false,
    })
    const refused = (bytes: Uint8Array) => {
      try {
        checkDelta(bytes, 1)
        return false
      } catch (error) {
        return /refused/.test((error as Error).message)
      }
    }
    const whole = Array.from({ length: delta.length }, (_, bytes) => bytes)
    expect(whole.filter((bytes) => !refused(delta.slice(0, bytes)))).toEqual([])
    // Also when the header agrees with the shorter length.
    const resealed = (bytes: number) => {
      const shorter = new Uint8Array(bytes)
      shorter.set(delta.subarray(0, bytes - 8))
      new DataView(shorter.buffer).setUint32(12, bytes - 24, true)
      return shorter
    }
    expect(whole.filter((bytes) => bytes >= 24 && !refused(resealed(bytes)))).toEqual([])
  })

  it('refuses a page outside the image', () => {
    const after = noise(1, 3 * 4096)
    const delta = encodeDelta({
      before: new Uint8Array(after.length),
      after,
      ranges: PageRanges.all(3),
      codec: 'masked',
      whole: false,
    })
    expect(checkDelta(delta, 3).pages).toBe(3)
    expect(() => checkDelta(delta, 2)).toThrow(/outside the image/)
  })
})
