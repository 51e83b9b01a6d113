/**
 * The three kinds of shadow against the oracle, byte for byte, on every CPU path; and the law that all keep: whatever is
 * written, captured, lost and captured again whole, what was applied is the memory.
 */
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { applySync } from '../../src/delta/apply.ts'
import { captureSync, grains, noSlot } from '../../src/delta/capture.ts'
import { codecNames } from '../../src/delta/codec.ts'
import { PageCache } from '../../src/delta/page-cache.ts'
import { cacheShadow, fullShadow, hashShadow, type Shadow, shadowDifference } from '../../src/delta/shadow.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import type { Region } from '../../src/memory/region.ts'
import { cpuPaths, selectCpuPath } from '../support/cpu.ts'
import { seededRandom } from '../support/random.ts'
import { contentOf, memoryPair, regionOf, testPages } from './memories.ts'
import { encodeDelta } from './oracle/delta.ts'

afterEach(() => selectCpuPath('best'))

const all = PageRanges.all(testPages)

/** Every step of a capture, each in one piece. */
function captured(
  ram: Region,
  shadow: Shadow,
  pages: PageRanges,
  whole: boolean,
  codec: (typeof codecNames)[number],
): Uint8Array[] {
  const deltas: Uint8Array[] = []
  const out = new Uint8Array(2 ** 17)
  for (const step of shadow.steps(pages, whole)) {
    if (step.pages.pageCount === 0) continue
    const options = { codec, whole: step.whole, form: shadow.form, out }
    deltas.push(out.slice(0, captureSync(ram, shadow.region, step.pages, options).bytes))
  }
  return deltas
}

describe.each(cpuPaths().flatMap((path) => grains.map((grainBytes) => ({ path, grainBytes }))))(
  'blocks of $grainBytes bytes on $path',
  ({ path, grainBytes }) => {
    it('compared or hashed: the bytes of the oracle', () => {
      selectCpuPath(path)
      fc.assert(
        fc.property(memoryPair, fc.boolean(), ({ before, after }, whole) => {
          using ram = regionOf(after)
          for (const shadow of [fullShadow(testPages, grainBytes), hashShadow(testPages, grainBytes)])
            try {
              shadow.set(0, before)
              const codec = whole && shadow.kind === 'hash' ? 'masked' : 'line'
              const deltas = captured(ram, shadow, all, whole, codec)
              expect(deltas).toEqual([encodeDelta({ before, after, ranges: all, codec, whole, grainBytes })])
              // All of it is known now.
              const again = captured(ram, shadow, all, false, 'line')
              expect(again).toEqual([
                encodeDelta({ before: after, after, ranges: all, codec: 'line', whole: false }),
              ])
            } finally {
              shadow.close()
            }
        }),
        { numRuns: 8 },
      )
    })
  },
)

const shadows: [name: string, make: () => Shadow][] = [
  ['full', () => fullShadow(testPages)],
  ['cache of one page', () => cacheShadow(testPages, pageBytes)],
  ['cache of three pages', () => cacheShadow(testPages, 3 * pageBytes)],
  ['cache of more than there is', () => cacheShadow(testPages, 2 ** 40)],
  ['hash', () => hashShadow(testPages)],
]

/** Pages that are written, or captured early: by number. */
const somePages = fc.array(fc.nat(testPages - 1), { maxLength: testPages })
const turn = fc.record({
  seed: fc.nat(),
  written: somePages,
  early: somePages,
  /** The checkpoint is captured and does not arrive. */
  lost: fc.boolean(),
})

describe.each(shadows)('%s', (_, make) => {
  it.each(codecNames)('gives the memory whatever is written, and lost: %s', async (codec) => {
    await fc.assert(
      fc.asyncProperty(fc.array(turn, { minLength: 1, maxLength: 12 }), async (turns) => {
        const memory = new Uint8Array(testPages * pageBytes)
        const shadow = make()
        using ram = regionOf(memory)
        using image = regionOf(memory)
        try {
          let unsynced = all
          for (const { seed, written, early, lost } of turns) {
            write(ram, written, seed)
            const dirty = pagesOf(written)
            const deltas: Uint8Array[] = []
            const first = unsynced.pageCount > 0 ? PageRanges.empty : dirty.intersect(pagesOf(early))
            deltas.push(...captured(ram, shadow, first, false, codec))
            write(ram, early.slice(0, 1), seed + 1)
            const left = dirty.subtract(first).union(pagesOf(early.slice(0, 1)))
            deltas.push(...captured(ram, shadow, left.subtract(unsynced), false, codec))
            deltas.push(...captured(ram, shadow, unsynced, true, codec))
            unsynced = lost ? unsynced.union(left).union(first) : PageRanges.empty
            if (lost) continue
            for (const delta of deltas) applySync(image, delta)
            expect(Buffer.compare(contentOf(image), contentOf(ram))).toBe(0)
            expect(await shadowDifference(ram, shadow)).toBeUndefined()
          }
        } finally {
          shadow.close()
        }
      }),
      { numRuns: 25 },
    )
  })
})

it('a page may make room in the epoch in which it was written itself', () => {
  const pages = 60
  const { integer } = seededRandom(1)
  const shadow = cacheShadow(pages, 24 * pageBytes)
  const slots = shadow.form.slots!
  using ram = regionOf(new Uint8Array(pages * pageBytes))
  using image = regionOf(new Uint8Array(pages * pageBytes))
  let madeRoom = 0
  for (let epoch = 0; epoch < 150; epoch++) {
    const written = Array.from({ length: 20 }, () => integer(0, pages - 1))
    write(ram, written, epoch)
    const held = written.filter((page) => slots[page] !== noSlot)
    for (const delta of captured(ram, shadow, pagesOf(written), false, 'masked')) applySync(image, delta)
    madeRoom += held.filter((page) => slots[page] === noSlot).length
    expect(Buffer.compare(contentOf(image), contentOf(ram))).toBe(0)
  }
  expect(madeRoom).toBeGreaterThan(0)
  shadow.close()
})

function pagesOf(pages: readonly number[]): PageRanges {
  return PageRanges.of(pages.map((page) => [page, 1] as const))
}

/** A word, a line, a page, or zeros. */
function write(ram: Region, pages: readonly number[], seed: number): void {
  for (const [i, page] of pages.entries()) {
    const kind = (seed + i) % 4
    const length = [8, 64, pageBytes, pageBytes][kind]!
    const at = length === pageBytes ? 0 : ((seed * 7 + i) % (pageBytes / length)) * length
    ram.write(page * pageBytes + at, new Uint8Array(length).fill(kind === 3 ? 0 : 1 + ((seed + i) % 255)))
  }
}

it('says which pages had changed, and leaves alone what it says of others', () => {
  for (const path of cpuPaths())
    for (const codec of codecNames)
      fc.assert(
        fc.property(memoryPair, ({ before, after }) => {
          selectCpuPath(path)
          using ram = regionOf(after)
          using shadow = regionOf(before)
          const changed = new Uint8Array(testPages)
          const ranges = PageRanges.of([[1, testPages - 1]])
          captureSync(ram, shadow, ranges, { codec, out: new Uint8Array(2 ** 17), changed })
          const differs = (page: number) => {
            const [from, to] = [page * pageBytes, (page + 1) * pageBytes]
            return Buffer.compare(before.subarray(from, to), after.subarray(from, to)) === 0 ? 0 : 1
          }
          expect([...changed]).toEqual(
            Array.from({ length: testPages }, (_, page) => (page === 0 ? 0 : differs(page))),
          )
          // All of it is known now: what was said stays until somebody has read it.
          const said = changed.slice()
          captureSync(ram, shadow, ranges, { codec, out: new Uint8Array(2 ** 17), changed })
          expect(changed).toEqual(said)
        }),
        { numRuns: 20 },
      )
  using ram = regionOf(new Uint8Array(testPages * pageBytes))
  using shadow = regionOf(new Uint8Array(testPages * pageBytes))
  const short = {
    codec: 'masked' as const,
    out: new Uint8Array(2 ** 17),
    changed: new Uint8Array(testPages - 1),
  }
  expect(() => captureSync(ram, shadow, all, short)).toThrow(TypeError)
})

it('finds what differs: the line, or the first of its block; a page that is not held it does not know', async () => {
  const at = 3 * pageBytes + 21 * 64 + 5
  const found = async (shadow: Shadow, hold: boolean) => {
    using ram = regionOf(new Uint8Array(testPages * pageBytes))
    if (hold) captured(ram, shadow, all, false, 'masked')
    expect(await shadowDifference(ram, shadow)).toBeUndefined()
    ram.write(at, new Uint8Array([1]))
    const difference = await shadowDifference(ram, shadow)
    shadow.close()
    return difference
  }
  expect(await found(fullShadow(testPages), false)).toEqual({ page: 3, line: 21 })
  expect(await found(hashShadow(testPages, 1024), false)).toEqual({ page: 3, line: 16 })
  expect(await found(cacheShadow(testPages, 2 ** 20), true)).toEqual({ page: 3, line: 21 })
  expect(await found(cacheShadow(testPages, pageBytes), true)).toBeUndefined()
})

it('hashes of memory that is all zeros are zero, and of the same memory others with another seed', () => {
  using ram = regionOf(new Uint8Array(testPages * pageBytes))
  const [one, other] = [hashShadow(testPages, 64, 1n), hashShadow(testPages, 64, 2n)]
  for (const shadow of [one, other]) captured(ram, shadow, all, true, 'masked')
  expect(contentOf(one.region).every((byte) => byte === 0)).toBe(true)
  ram.write(0, new Uint8Array([1]))
  for (const shadow of [one, other]) captured(ram, shadow, all, true, 'masked')
  expect(one.region.read(0, 16)).not.toEqual(other.region.read(0, 16))
  expect(one.region.read(16, 64).every((byte) => byte === 0)).toBe(true)
  for (const shadow of [one, other]) shadow.close()
})

it('a page that a cache does not hold cannot go as a change', () => {
  using ram = regionOf(new Uint8Array(testPages * pageBytes))
  using region = regionOf(new Uint8Array(pageBytes))
  const slots = new Uint32Array(testPages).fill(noSlot)
  const out = new Uint8Array(2 ** 16)
  const capture = () => captureSync(ram, region, all, { codec: 'masked', out, form: { slots } })
  expect(capture).toThrow(/only when the cache holds it/)
  slots.fill(1)
  expect(capture).toThrow(/only when the cache holds it/)
  expect(() => captureSync(ram, region, all, { codec: 'masked', out, form: { seed: 1n } })).toThrow(TypeError)
})

describe('the cache', () => {
  const touched = (cache: PageCache, ...pages: number[]) => {
    const { held, missed } = cache.touch(pagesOf(pages))
    cache.admit(missed)
    return [...held.pages()]
  }

  it('holds pages that are written often against a sweep through all others', () => {
    const cache = new PageCache(1000, 10)
    const hot = [3, 100, 200, 300, 999]
    for (let round = 0; round < 20; round++) touched(cache, ...hot)
    for (let page = 400; page < 900; page += 10)
      touched(cache, ...hot, ...Array.from({ length: 10 }, (_, i) => page + i))
    expect(touched(cache, ...hot)).toEqual(hot)
  })

  it('holds some of a round that is larger than itself, and follows when other pages are written', () => {
    const cache = new PageCache(1000, 10)
    const round = (from: number) => Array.from({ length: 40 }, (_, i) => from + i)
    for (let n = 0; n < 20; n++) touched(cache, ...round(0))
    expect(touched(cache, ...round(0)).length).toBeGreaterThanOrEqual(9)
    for (let n = 0; n < 20; n++) touched(cache, ...round(500))
    expect(touched(cache, ...round(500)).length).toBeGreaterThanOrEqual(9)
  })

  it('never holds more than it has room for, nor two pages at one place', () => {
    fc.assert(
      fc.property(fc.array(fc.array(fc.nat(49), { maxLength: 20 }), { maxLength: 40 }), (epochs) => {
        const cache = new PageCache(50, 7)
        for (const [i, pages] of epochs.entries()) {
          touched(cache, ...pages)
          if (i % 5 === 4) cache.drop(pages[0] ?? 0)
          const places = [...cache.slotOf].filter((slot) => slot !== noSlot)
          expect(new Set(places).size).toBe(places.length)
          expect(places.every((slot) => slot < 7)).toBe(true)
        }
      }),
    )
  })
})
