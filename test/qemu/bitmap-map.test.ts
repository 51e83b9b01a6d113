/** Maps of what QEMU's bitmaps have noted: a real QEMU without a guest, whose qcow2 disk is written to at the guest's places. */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ChunkMap } from '../../src/disk/chunk-map.ts'
import { chunkBytes } from '../../src/disk/records.ts'
import { BitmapMap } from '../../src/qemu/bitmap-map.ts'
import { BareQemu } from '../support/bare-qemu.ts'

const chunks = 40
const bytes = chunks * chunkBytes
const lineage = '0123456789abcdef'.repeat(2)
const uuid = (digit: string) => `${digit.repeat(8)}-0000-4000-8000-000000000000`

let qemu: BareQemu
let disk: string

beforeAll(async () => {
  qemu = await BareQemu.start((directory) => {
    disk = join(directory, 'disk.qcow2')
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', disk, String(bytes)])
    return ['-blockdev', `driver=qcow2,node-name=disk,file.driver=file,file.filename=${disk}`]
  })
})

afterAll(() => qemu[Symbol.asyncDispose]())

const ofDisk = () => ({ qmp: qemu.qmp, socket: join(qemu.directory, 'nbd'), node: 'disk', bytes })

/** As the guest does. */
async function write(chunk: number, count: number): Promise<void> {
  const command = `write -P 1 ${chunk * chunkBytes + 512} ${(count - 1) * chunkBytes + 512}`
  await qemu.qmp.run('human-monitor-command', { 'command-line': `qemu-io disk "${command}"` })
}

const chunksIn = (bits: Uint8Array) =>
  Array.from({ length: chunks }, (_, chunk) => chunk).filter(
    (chunk) => (bits[chunk >> 3]! >> (chunk & 7)) & 1,
  )

async function serving(work: () => Promise<void>): Promise<void> {
  await qemu.qmp.run('nbd-server-start', { addr: { type: 'unix', data: { path: ofDisk().socket } } })
  await work().finally(() => qemu.qmp.run('nbd-server-stop'))
}

/** A supervisor begins: the former one has seen nothing of what was written. */
async function begun(file: ChunkMap): Promise<BitmapMap> {
  const map = new BitmapMap(file, ofDisk())
  await map.tap()
  await serving(() => map.collect(true))
  return map
}

const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      chunk: fc.integer({ min: 0, max: chunks - 4 }),
      count: fc.integer({ min: 1, max: 4 }),
    }),
  },
  fc.constantFrom('part' as const, 'drop' as const, 'restart' as const),
)

test('whatever is written, parted and dropped, the next supervisor finds all that was written since, and no more', async () => {
  const path = join(qemu.directory, 'disk.map')
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 24 }), async (steps) => {
      await ChunkMap.prepare(path, { guest: uuid('a'), bootId: uuid('b'), path: disk, bytes }, false)
      const file = ChunkMap.open(path, qemu.pid, true)!
      let map = new BitmapMap(file, ofDisk())
      // What a former run has left is of another map.
      await map.tap()
      await serving(() => map.collect(false))
      map.inherit(lineage)
      let [before, since] = [new Set<number>(), new Set<number>()]
      const restart = async () => {
        map = await begun(file)
        expect(chunksIn(map.marked())).toEqual([...new Set([...before, ...since])].sort((a, b) => a - b))
        ;[before, since] = [new Set([...before, ...since]), new Set()]
      }
      for (const next of [...steps, 'restart' as const])
        if (next === 'restart') await restart()
        else if (next === 'part') {
          if (map.part()) [before, since] = [since, new Set()]
        } else if (next === 'drop') {
          map.dropParted()
          before = new Set()
        } else {
          await write(next.chunk, next.count)
          for (let n = 0; n < next.count; n++) since.add(next.chunk + n)
        }
      expect(map.lineage).toBe(lineage)
      file.close()
    }),
    { numRuns: 40 },
  )
})

test('a QEMU that has no bitmap costs the lineage, and says so', async () => {
  const path = join(qemu.directory, 'other.map')
  await ChunkMap.prepare(path, { guest: uuid('a'), bootId: uuid('b'), path: disk, bytes }, false)
  const file = ChunkMap.open(path, qemu.pid, true)!
  const map = new BitmapMap(file, ofDisk())
  await map.tap()
  await serving(() => map.collect(false))
  map.inherit(lineage)
  // Somebody else removes it.
  const nodes = await qemu.qmp.run<{ 'dirty-bitmaps'?: { name: string }[] }[]>('query-named-block-nodes')
  for (const { name } of nodes.flatMap((node) => node['dirty-bitmaps'] ?? []))
    await qemu.qmp.run('block-dirty-bitmap-remove', { node: 'disk', name })
  const later = new BitmapMap(file, ofDisk())
  await later.tap()
  await expect(serving(() => later.collect(true))).rejects.toMatchObject({ code: 'DISK_FAILED' })
  expect(later.lineage).toBe('')
  // A map of another QEMU has none, either.
  later.inherit(lineage)
  file.close()
  const others = ChunkMap.open(path, qemu.pid! + 1, true)!
  expect(others.lineage).toBe('')
  others.close()
})
