/** Regions: files and anonymous memory, their sizes, errors and permissions. */

import { spawnSync } from 'node:child_process'
import { readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { totalmem } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { makeOwnedDirectory } from '../../src/agent/owned-directory.ts'
import { load } from '../../src/memory/native.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { Region } from '../../src/memory/region.ts'

const folder = makeOwnedDirectory('subpage-test-', '/dev/shm')
afterAll(() => rmSync(folder, { recursive: true }))
let files = 0
const fresh = () => join(folder, `file-${files++}`)

describe('Region.create and Region.map', () => {
  it('make a private file whose space is reserved, and share what is written', async () => {
    const path = fresh()
    using region = await Region.create(path, 3 * pageBytes)
    const status = statSync(path)
    expect(status.mode & 0o777).toBe(0o600)
    expect(status.blocks * 512).toBe(3 * pageBytes)
    expect(region).toMatchObject({ bytes: 3 * pageBytes, pages: 3 })
    region.write(4095, Uint8Array.of(1, 2))
    using other = Region.map(path, { writable: false })
    expect([...other.read(4094, 4)]).toEqual([0, 1, 2, 0])
    expect(readFileSync(path)[4096]).toBe(2)
  })

  it('share the first bytes of a file alone, too', async () => {
    const path = fresh()
    using whole = await Region.create(path, 3 * pageBytes)
    using part = Region.map(path, { writable: false, bytes: 2 * pageBytes })
    expect(part.pages).toBe(2)
    whole.write(2 * pageBytes - 1, Uint8Array.of(7))
    expect([...part.read(2 * pageBytes - 1, 1)]).toEqual([7])
    for (const bytes of [4 * pageBytes, 100])
      expect(() => Region.map(path, { writable: false, bytes })).toThrow(
        expect.objectContaining({ code: 'BAD_ARGUMENT' }),
      )
  })

  it('lets other work go on while a file is made', async () => {
    let rounds = 0
    const working = setInterval(() => rounds++, 1)
    const region = await Region.create(fresh(), 256 * 2 ** 20)
    clearInterval(working)
    region.close()
    expect(rounds).toBeGreaterThan(0)
  })

  it('say NO_SPACE when a file does not fit, and leave none behind', async () => {
    const path = fresh()
    await expect(Region.create(path, 2 ** 50)).rejects.toThrow(
      expect.objectContaining({ code: 'NO_SPACE', message: expect.stringContaining(path) }),
    )
    expect(() => statSync(path)).toThrow(/ENOENT/)
  })

  it.each([
    ['a file that is not there', () => Region.map(fresh(), { writable: false })],
    ['a folder', () => Region.map(folder, { writable: false })],
    ['an empty file', () => Region.map(withBytes(0), { writable: false })],
    ['a file of odd size', () => Region.map(withBytes(pageBytes + 1), { writable: false })],
  ])('say BAD_ARGUMENT for %s', (_, map) => {
    expect(map).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
  })

  it('say BAD_ARGUMENT for a file to make that is there', async () => {
    await expect(Region.create(withBytes(pageBytes), pageBytes)).rejects.toMatchObject({
      code: 'BAD_ARGUMENT',
    })
  })

  it.each([0, -4096, 4095, 1.5, Number.NaN])('take no size of %s', async (bytes) => {
    expect(() => Region.anonymous(bytes)).toThrow(TypeError)
    await expect(Region.create(fresh(), bytes)).rejects.toThrow(TypeError)
  })

  it('keep writers out of a read-only region', () => {
    using region = Region.map(withBytes(pageBytes), { writable: false })
    expect(() => region.write(0, Uint8Array.of(1))).toThrow(/read-only/)
  })
})

describe('Region.anonymous', () => {
  it('as large as all memory, and beside another one, does not keep us from starting programs', () => {
    using _large = Region.anonymous(Math.floor(totalmem() / pageBytes) * pageBytes)
    using _beside = Region.anonymous(256 * pageBytes)
    expect(spawnSync('/bin/true')).toMatchObject({ status: 0 })
  })

  it('reaches beyond 4 GiB and takes memory only where it is written', () => {
    const bytes = 6 * 2 ** 30
    const before = process.memoryUsage.rss()
    using region = Region.anonymous(bytes)
    region.write(bytes - 3, Uint8Array.of(1, 2, 3))
    region.write(2 ** 32 - 1, Uint8Array.of(4, 5))
    expect([...region.read(bytes - 4, 4)]).toEqual([0, 1, 2, 3])
    expect([...region.read(2 ** 32 - 2, 4)]).toEqual([0, 4, 5, 0])
    expect(process.memoryUsage.rss() - before).toBeLessThan(bytes / 4)
  })

  it('says NO_SPACE for more than an address space has', () => {
    expect(() => Region.anonymous(2 ** 52)).toThrow(expect.objectContaining({ code: 'NO_SPACE' }))
  })

  it.each([
    [pageBytes, 1],
    [pageBytes - 1, 2],
    [-1, 1],
    [0.5, 1],
    [2 ** 53, 1],
  ])('refuses to read or write at %s, %s bytes', (offset, length) => {
    using region = Region.anonymous(pageBytes)
    expect(() => region.read(offset, length)).toThrow()
    expect(() => region.write(offset, new Uint8Array(length))).toThrow()
  })
})

describe('the addon', () => {
  it('is ADDON_MISSING when used, not when imported', () => {
    const missing = load('/nowhere/subpage.node')
    expect(() => missing.cpuPath()).toThrow(expect.objectContaining({ code: 'ADDON_MISSING' }))
  })
})

function withBytes(bytes: number): string {
  const path = fresh()
  writeFileSync(path, '')
  truncateSync(path, bytes)
  return path
}
