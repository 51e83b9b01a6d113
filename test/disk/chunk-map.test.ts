/** A map of written chunks belongs to its disk, guest and boot, and to nothing else; what a QEMU does not mark is not believed. */
import { mkdtempSync, rmSync, statSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, expect, onTestFinished, test } from 'vitest'
import { ChunkMap, type MapOwner } from '../../src/disk/chunk-map.ts'
import { DiskEndpoint } from '../../src/disk/endpoint.ts'
import { RawDisk } from '../../src/disk/raw-disk.ts'
import { chunkBytes, recordHeaderBytes } from '../../src/disk/records.ts'
import { Region } from '../../src/memory/region.ts'

const bytes = 20 * chunkBytes + 512
const lineage = '0123456789abcdef'.repeat(2)
const id = (digit: string) => `${digit.repeat(8)}-0000-4000-8000-000000000000`

let path: string
let owner: MapOwner

beforeEach(async () => {
  const directory = mkdtempSync(join(tmpdir(), 'subpage-map-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const disk = join(directory, 'disk.raw')
  writeFileSync(disk, '')
  truncateSync(disk, bytes)
  path = join(directory, 'disk.map')
  owner = { guest: id('a'), bootId: id('b'), path: disk, bytes }
  await ChunkMap.prepare(path, owner, false)
})

function opened<T>(use: (map: ChunkMap) => T, writer?: number): T {
  const map = ChunkMap.open(path, writer)!
  try {
    return use(map)
  } finally {
    map.close()
  }
}

/** As the shim does (native/disk/chunk_map.h). */
function poke(offset: number, word: number): void {
  const region = Region.map(path, { writable: true })
  const value = Buffer.alloc(4)
  value.writeUInt32LE(word)
  region.write(offset, value)
  region.close()
}
const set = (index: number) => 4096 + 4096 * index

const kept = async (changed: Partial<MapOwner> = {}) => {
  await ChunkMap.prepare(path, { ...owner, ...changed }, true)
  return opened((map) => map.lineage) === lineage
}

test('is there with its mode and room, has no lineage and no marks', () => {
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(statSync(path).blocks * 512).toBeGreaterThanOrEqual(statSync(path).size)
  expect(opened((map) => [map.lineage, [...map.marked()]])).toEqual(['', [0, 0, 0]])
  expect(ChunkMap.open(`${path}.none`)).toBeUndefined()
  writeFileSync(`${path}.none`, Buffer.alloc(8192))
  expect(ChunkMap.open(`${path}.none`)).toBeUndefined()
})

test('marks made apart are dropped alone, and what was parted stays so for the next one', () => {
  poke(set(0), 0x10)
  opened((map) => {
    expect([map.parted, map.part(), map.parted, map.part()]).toEqual([false, true, true, false])
    poke(set(1), 0x03)
    expect([...map.marked()]).toEqual([0x13, 0, 0])
  })
  opened((map) => {
    expect(map.parted).toBe(true)
    map.dropParted()
    expect([[...map.marked()], map.part()]).toEqual([[0x03, 0, 0], true])
    map.clear()
    expect([[...map.marked()], map.parted]).toEqual([[0, 0, 0], false])
  })
})

test('is kept for the disk as it is: not for another guest, boot, size, file, or one that somebody has written to', async () => {
  const inherit = () => opened((map) => map.inherit(lineage))
  inherit()
  expect(await kept()).toBe(true)
  expect(await kept({ guest: id('c') })).toBe(false)
  const changes: (() => Partial<MapOwner> | undefined)[] = [
    () => ({ bootId: id('c') }),
    () => utimesSync(owner.path, 1, 1) ?? undefined,
    () => {
      rmSync(owner.path)
      writeFileSync(`${owner.path}.other`, '')
      writeFileSync(owner.path, '')
      return truncateSync(owner.path, bytes) ?? undefined
    },
    () => truncateSync(owner.path, bytes + 512) ?? undefined,
    // A guest that runs has not left it.
    () => opened((map) => map.unsettle()) ?? undefined,
    // A write that was not marked.
    () => poke(40, 1) ?? undefined,
  ]
  for (const [index, change] of changes.entries()) {
    truncateSync(owner.path, bytes)
    await ChunkMap.prepare(path, owner, false)
    inherit()
    expect(await kept(), `before change ${index}`).toBe(true)
    expect(await kept(change() ?? {}), `change ${index}`).toBe(false)
  }
})

test('has no lineage when the process that it is to mark does not, from then on', () => {
  opened((map) => map.inherit(lineage))
  expect(opened((map) => map.lineage)).toBe(lineage)
  poke(36, 4711)
  expect(opened((map) => map.lineage, 4711)).toBe(lineage)
  expect(opened((map) => map.lineage, 4712)).toBe('')
  expect(opened((map) => map.lineage, 4711)).toBe('')
})

test('follows what a standby writes to its copy, so that the next process finds it as it was left', async () => {
  opened((map) => map.inherit(lineage))
  const map = ChunkMap.open(path)!
  const disk = new RawDisk(owner.path, bytes, true, map)
  const record = Buffer.alloc(recordHeaderBytes + 512, 1)
  record.writeBigUInt64LE(0n, 0)
  record.writeUInt32LE(512, 8)
  record.writeUInt32LE(0, 12)
  await disk.apply(record, 0)
  await disk.close()
  map.close()
  expect(await kept()).toBe(true)
})

test('a disk is filled from what was there, but for chunks that are written meanwhile; a map of another disk is refused', () => {
  const socket = join(path, '..', 'nbd.sock')
  using endpoint = DiskEndpoint.open({ path: socket, bytes, journalBytesMax: 2 ** 20 })
  endpoint.record()
  endpoint.beginFill({ first: 19, count: 2 })
  expect(endpoint.fill(19, new Uint8Array(chunkBytes + 512).fill(1))).toEqual([])
  expect(endpoint.stats.currentBytes).toBe(2 * 64 + chunkBytes + 512)
  for (const wrong of [
    () => endpoint.beginFill({ first: 0, count: 17 }),
    () => endpoint.beginFill({ first: 20, count: 2 }),
    () => endpoint.fill(20, new Uint8Array(513)),
    () => endpoint.fill(0, new Uint8Array(100)),
    () => endpoint.fill(22, new Uint8Array(0)),
  ])
    expect(wrong).toThrow(TypeError)
  endpoint.watch(path, false)
  using other = DiskEndpoint.open({ path: `${socket}2`, bytes: bytes + 512, journalBytesMax: 2 ** 20 })
  expect(() => other.watch(path, false)).toThrow(/another disk/)
  using third = DiskEndpoint.open({ path: `${socket}3`, bytes, journalBytesMax: 2 ** 20 })
  expect(() => third.watch(owner.path, false)).toThrow(expect.objectContaining({ code: 'EINVAL' }))
})
