/** Hashes and checksums against published values of XXH3, and the comparison of regions. */
import { describe, expect, it } from 'vitest'
import {
  checksum64,
  compareRegions,
  compareRegionsSync,
  hashBlocks,
  hashBlocksSync,
  writeChecksum64,
} from '../../src/memory/hash.ts'
import { lineBytes, pageBytes } from '../../src/memory/page.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'
import { noise } from '../delta/memories.ts'

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

describe('checksum64', () => {
  it('is XXH3-64', () => {
    // The known values of nothing and of "abc".
    expect(checksum64(new Uint8Array(0)).toString(16)).toBe('2d06800538d394c2')
    expect(checksum64(Buffer.from('abc')).toString(16)).toBe('78af5f94892f3950')
  })

  it('of two buffers is that of one, at any cut', () => {
    const data = noise(5, 700)
    const whole = checksum64(data)
    for (const cut of [0, 1, 31, 240, 241, 699, 700])
      expect(checksum64(data.subarray(0, cut), data.subarray(cut))).toBe(whole)
  })

  it('is written little endian where it was asked for', () => {
    const into = new Uint8Array(10)
    writeChecksum64(into, 1, Buffer.from('abc'))
    expect(hex(into)).toBe('0050392f89945faf7800')
    expect(() => writeChecksum64(into, 3, into)).toThrow(TypeError)
  })
})

describe('hashBlocks', () => {
  const memory = noise(9, 3 * pageBytes)

  it('depends on each block alone, sync and async', async () => {
    using region = Region.anonymous(memory.length)
    region.write(0, memory)
    const ranges = PageRanges.of([
      [0, 1],
      [2, 1],
    ])
    for (const blockBytes of [64, 256, 4096]) {
      const hashes = hashBlocksSync(region, ranges, blockBytes)
      expect(hashes.length).toBe(((2 * pageBytes) / blockBytes) * 16)
      expect(hex(await hashBlocks(region, ranges, blockBytes))).toBe(hex(hashes))
      region.write(2 * pageBytes, Uint8Array.of(memory[2 * pageBytes]! ^ 1))
      const changed = hashBlocksSync(region, ranges, blockBytes)
      region.write(0, memory)
      const differing = Array.from({ length: hashes.length / 16 }, (_, i) => i).filter(
        (i) => hex(hashes.subarray(i * 16, i * 16 + 16)) !== hex(changed.subarray(i * 16, i * 16 + 16)),
      )
      expect(differing).toEqual([pageBytes / blockBytes])
    }
  })

  it('is XXH3-128, canonical', () => {
    using region = Region.anonymous(pageBytes)
    // 4096 zero bytes by XXH3_128bits of libxxhash 0.8, called on its own.
    expect(hex(hashBlocksSync(region, PageRanges.all(1), pageBytes))).toBe(zeroPageHash)
  })

  it.each([0, 32, 63, 100, 8192])('takes no blocks of %s bytes', (blockBytes) => {
    using region = Region.anonymous(pageBytes)
    expect(() => hashBlocksSync(region, PageRanges.all(1), blockBytes)).toThrow(TypeError)
  })

  it('takes no ranges outside the region', () => {
    using region = Region.anonymous(pageBytes)
    expect(() => hashBlocksSync(region, PageRanges.all(2), 64)).toThrow(TypeError)
  })
})

const zeroPageHash = '3ee8dc4f9e7ee49593d76fe148c689ba'

describe('compareRegions', () => {
  it('finds the first line that differs, within the ranges only', async () => {
    using a = Region.anonymous(5 * pageBytes)
    using b = Region.anonymous(5 * pageBytes)
    const all = PageRanges.all(5)
    expect(compareRegionsSync(a, b, all)).toBeUndefined()
    b.write(3 * pageBytes + 7 * lineBytes + 63, Uint8Array.of(1))
    b.write(4 * pageBytes, Uint8Array.of(1))
    expect(compareRegionsSync(a, b, all)).toEqual({ page: 3, line: 7 })
    expect(await compareRegions(a, b, all)).toEqual({ page: 3, line: 7 })
    expect(await compareRegions(a, b, PageRanges.of([[4, 1]]))).toEqual({ page: 4, line: 0 })
    expect(compareRegionsSync(a, b, PageRanges.all(3))).toBeUndefined()
  })

  it('takes no ranges outside either region', async () => {
    using a = Region.anonymous(2 * pageBytes)
    using b = Region.anonymous(pageBytes)
    expect(() => compareRegionsSync(a, b, PageRanges.all(2))).toThrow(TypeError)
    await expect(compareRegions(b, a, PageRanges.all(2))).rejects.toThrow(TypeError)
  })
})
