/** The survey of images whose content is known, and the counts it must come to. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { parseShape } from '../../src/density/shape.ts'
import { survey } from '../../src/density/survey.ts'
import { surveyImage } from '../../src/density/survey-images.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { elfCore } from '../memory/images/elf.ts'

const folder = mkdtempSync(join(tmpdir(), 'subpage-survey-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** Random bytes from a seed. */
function noise(seed: number): Buffer {
  let state = BigInt(seed) * 2654435761n + 1n
  const page = Buffer.alloc(pageBytes)
  for (let at = 0; at < pageBytes; at += 8) {
    state = BigInt.asUintN(64, (state ^ (state << 13n)) * 6364136223846793005n + 1442695040888963407n)
    page.writeBigUInt64LE(state ^ (state >> 29n), at)
  }
  return page
}

function changed(page: Buffer, at: number): Buffer {
  const copy = Buffer.from(page)
  copy[at] = copy[at]! ^ 0xff
  return copy
}

const lines = (seed: number) =>
  Buffer.from(`line ${seed} of a text that packs well; `.repeat(200)).subarray(0, pageBytes)

function image(name: string, pages: Buffer[]): string {
  const path = join(folder, name)
  writeFileSync(path, Buffer.concat(pages))
  return path
}

describe('survey', () => {
  const first = image('first', [
    Buffer.alloc(pageBytes),
    Buffer.alloc(pageBytes, 0x5a),
    noise(1),
    noise(2),
    lines(3),
    Buffer.alloc(pageBytes),
  ])
  const second = image('second', [noise(1), changed(noise(2), 100), noise(4), lines(3), lines(5), noise(1)])

  test.each([
    ['256M', 2 ** 28],
    ['many passes', 8192],
  ])('counts each page once, with %s', async (_, memoryBytes) => {
    const found = await survey([surveyImage(first), surveyImage(second)], { memoryBytes })
    expect(found).toMatchObject({
      pages: 12,
      zero: 2,
      filled: 1,
      shared: 3,
      patched: 1,
      references: 1,
      packed: 2,
      packings: { words: 0 },
    })
    expect(found.images.map(({ zero, shared }) => [zero, shared])).toEqual([
      [2, 0],
      [0, 3],
    ])
    expect(found.bytes).toEqual({
      total: 12 * pageBytes,
      withoutFilled: 9 * pageBytes,
      shared: 6 * pageBytes,
      patched: 5 * pageBytes + found.patchBytes,
      packed: 3 * pageBytes + found.patchBytes + found.packedBytes,
    })
    expect(found.patchBytes).toBeLessThan(20)
  })

  test('needs passes when the tables are small, and finds the same', async () => {
    const pages = Array.from({ length: 2000 }, (_, i) => noise(i % 1500))
    const path = image('many', pages)
    const [ample, scarce] = await Promise.all([
      survey([surveyImage(path)], { depth: 'share' }),
      survey([surveyImage(path)], { depth: 'share', memoryBytes: 8192 }),
    ])
    expect(ample).toMatchObject({ passes: 1, shared: 500 })
    expect(scarce.shared).toBe(500)
    expect(scarce.passes).toBeGreaterThan(1)
    await expect(survey([surveyImage(path)], { memoryBytes: 256 })).rejects.toMatchObject({
      code: 'NO_SPACE',
    })
  })

  test('finds the same patches in passes', async () => {
    const pages = Array.from({ length: 1000 }, (_, i) => [noise(i), changed(noise(i), 100)]).flat()
    const path = image('similar', pages)
    const [ample, scarce] = await Promise.all([
      survey([surveyImage(path)], { depth: 'patch' }),
      survey([surveyImage(path)], { depth: 'patch', memoryBytes: 8192 }),
    ])
    expect(ample).toMatchObject({ patchPasses: 1, patched: 1000, references: 1000 })
    expect(scarce).toMatchObject({ patched: 1000, references: 1000 })
    expect(scarce.patchPasses).toBeGreaterThan(4)
  })

  test('holes are zero pages and stay holes', async () => {
    const path = image('sparse', [noise(9)])
    truncateSync(path, 1000 * pageBytes)
    expect(await survey([surveyImage(path)])).toMatchObject({ pages: 1000, zero: 999, shared: 0 })
  })

  test('blocks below the page', async () => {
    const half = (a: Buffer, b: Buffer) =>
      Buffer.concat([a.subarray(0, pageBytes / 2), b.subarray(0, pageBytes / 2)])
    const path = image('halves', [half(noise(1), noise(2)), half(noise(1), Buffer.alloc(pageBytes))])
    const { blocks } = await survey([surveyImage(path)])
    for (const block of blocks) {
      expect(block.zeroShare).toBeCloseTo(0.25)
      expect(block.repeatedShare).toBeCloseTo(0.25)
    }
    // Half of each page is in the one before; the second one that is looked at can refer to it, and the first has none.
    const alike = image(
      'alike',
      [...Array(8).keys()].map((seed) => half(noise(1), noise(10 + seed))),
    )
    for (const { savesMost, savesWhole } of (await survey([surveyImage(alike)])).blocks) {
      expect(savesMost).toBeCloseTo(0.25, 1)
      expect(savesWhole).toBe(savesMost)
    }
  })

  test('of an ELF core counts what it holds, at whatever offset', async () => {
    const pages = [noise(1), noise(2), noise(1), changed(noise(2), 100), Buffer.alloc(pageBytes)]
    const part = { virtual: 0x10000, data: Buffer.concat(pages), memoryBytes: 90 * pageBytes }
    const core = surveyImage(image('core', [elfCore([part])]))
    expect(await survey([core])).toMatchObject({ pages: 5, zero: 1, shared: 1, patched: 1 })
    expect(surveyImage(image('raw', pages))).toMatchObject({ extents: [{ offset: 0, bytes: 5 * pageBytes }] })
  })

  test('pages that a core has in parts are pages as others', async () => {
    const page = noise(21)
    const [half, rest] = [page.subarray(0, 1000), page.subarray(1000)]
    // Whole; in two parts; a last page of which only the first bytes are there, twice.
    const parts = [
      { virtual: 0x10000, data: page },
      { virtual: 0x20000, data: half },
      { virtual: 0x20000 + half.length, data: rest },
      { virtual: 0x30000, data: half },
      { virtual: 0x40800, data: half.subarray(0, 100) },
      { virtual: 0x50000, data: half },
    ]
    const path = image('parts', [elfCore(parts)])
    const found = await survey([surveyImage(path), surveyImage(first), surveyImage(path)])
    expect(found.images.map(({ pages, shared }) => [pages, shared])).toEqual([
      [5, 2],
      [6, 0],
      [5, 5],
    ])
  })

  test('very many segments take passes, not hours', async () => {
    const parts = Array.from({ length: 20_000 }, (_, i) => ({
      virtual: (2 * i + 1) * pageBytes,
      data: Buffer.alloc(pageBytes, Buffer.from([i, i >> 8, i >> 16, 1, 2])),
    }))
    const path = image('segments', [elfCore(parts)])
    expect(await survey([surveyImage(path)], { depth: 'patch' })).toMatchObject({ pages: 20_000, shared: 0 })
    rmSync(path)
  })

  test('refuses what is no image', async () => {
    expect(() => surveyImage(folder)).toThrow(/is a directory, not a file/)
    expect(() => surveyImage(image('empty', []))).toThrow(/empty/)
    expect(() => surveyImage(join(folder, 'nothing'))).toThrow(/there is no file/)
  })
})

describe('detector', () => {
  test('is read in the paper’s notation', () => {
    for (const text of ['(2,1),1', '2,1,1', '2 1 1'])
      expect(parseShape(text)).toEqual({ groups: 2, lines: 1, candidates: 1 })
    for (const text of ['', '2,1', '9,1,1', '8,3,1', '2,1,9', '2,1,0', 'a,b,c', '(2,1),1.5'])
      expect(() => parseShape(text), text).toThrow(/is not a detector/)
  })
})
