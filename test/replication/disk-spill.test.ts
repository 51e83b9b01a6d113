/** More writes to disks than a standby holds in memory go through a file: nothing changes but where they wait. */
import { randomBytes } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, expect, onTestFinished, test } from 'vitest'
import { chunkBytes } from '../../src/disk/records.ts'
import { SpillFile } from '../../src/disk/spill-file.ts'
import { limits } from '../../src/limits.ts'
import { Region } from '../../src/memory/region.ts'
import type { WritesSpill } from '../../src/replication/disks.ts'
import { HeldWrites, redo } from '../../src/replication/held-writes.ts'
import { wholeImage } from '../../src/replication/image.ts'
import { seededRandom } from '../support/random.ts'
import { Pair } from './pair.ts'
import { ScriptedDiskImage, ScriptedDisks, scriptedDiskBytes } from './scripted-disk.ts'

const MiB = 2 ** 20
let directory: string

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'subpage-spill-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
})

const frame = (content: Uint8Array) => {
  const head = Buffer.alloc(8 + 16)
  head.writeUInt32LE(content.length, 8 + 8)
  return Buffer.concat([head, content])
}

test('a standby holds its limit in memory and the rest in a file, applies all in order, and gives the room back', async () => {
  const region = Region.anonymous(4096)
  onTestFinished(() => region.close())
  const spill = new SpillFile(join(directory, 'made'))
  const disk = new ScriptedDiskImage()
  const held = new HeldWrites(wholeImage(region), [disk], spill)
  const frames = Math.ceil((limits.heldDiskBytes.value + 8 * MiB) / scriptedDiskBytes)
  for (let round = 0; round < 2; round++) {
    let last = Buffer.alloc(0)
    for (let n = 0; n < frames; n++) {
      last = randomBytes(scriptedDiskBytes)
      await held.hold(frame(last), undefined)
      expect(held.bytes).toBeLessThanOrEqual(limits.heldDiskBytes.value)
    }
    expect(spill.bytes).toBeGreaterThan(7 * MiB)
    // It has no name.
    expect(readdirSync(join(directory, 'made'))).toEqual([])
    const writes = held.take()
    await redo(writes, region, Promise.resolve())
    expect(Buffer.compare(disk.content, last)).toBe(0)
    for (const { giveBack } of writes) giveBack()
    expect([spill.bytes, held.bytes]).toEqual([0, 0])
  }
  expect(spill.totalBytes).toBeGreaterThan(14 * MiB)
  // What is dropped is released, too.
  for (let n = 0; n < frames; n++) await held.hold(frame(randomBytes(scriptedDiskBytes)), undefined)
  held.forget()
  expect(spill.bytes).toBe(0)
  await spill.close()
})

test('a file that cannot be made is said', async () => {
  writeFileSync(join(directory, 'none'), '')
  await expect(new SpillFile(join(directory, 'none')).put(new Uint8Array(1))).rejects.toThrow(
    /EEXIST|ENOTDIR/,
  )
  expect(existsSync(join(directory, 'spill'))).toBe(false)
})

/** A guest that writes more in one epoch than is held. */
async function burst(spill: WritesSpill) {
  const pair = await Pair.make({ random: seededRandom() })
  onTestFinished(() => pair[Symbol.asyncDispose]())
  const disks = new ScriptedDisks()
  const image = new ScriptedDiskImage()
  pair.guest.disks = disks
  pair.host.disks = [image]
  pair.host.spill = spill
  await pair.protect()
  await pair.epochs(2)
  const pieces = Math.ceil((limits.heldDiskBytes.value + 4 * MiB) / chunkBytes)
  await pair.whileRunning(() => {
    for (let n = 0; n < pieces; n++) disks.write((n % 8) * chunkBytes, randomBytes(chunkBytes))
  })
  return { pair, disks, image }
}

test('a burst of writes goes through it to the disk of a takeover', async () => {
  const spill = new SpillFile(directory)
  const { pair, disks, image } = await burst(spill)
  await expect.poll(() => spill.totalBytes, { timeout: 10_000, interval: 2 }).toBeGreaterThan(0)
  await pair.epochs(2)
  pair.guest.end({ how: 'died', detail: 'killed' })
  expect(await pair.host.outcome).toMatchObject({ how: 'took-over' })
  expect(image.digest).toBe(disks.digest)
  await spill.close()
})

test('one that is full costs the checkpoint, and says so; the guest goes on, and is protected again', async () => {
  let full = true
  const spill = new SpillFile(directory)
  const { pair, disks, image } = await burst({
    bytes: 0,
    put: (content) =>
      full ? Promise.reject(new Error('ENOSPC: no space left on device')) : spill.put(content),
  })
  await expect
    .poll(() => pair.primary?.reason, { timeout: 10_000, interval: 1 })
    .toMatch(/cannot put writes to disks aside: ENOSPC/)
  // The last checkpoint is whole: nothing of this one has touched the disk.
  expect(pair.host.standby?.committed).toBeDefined()
  full = false
  await expect.poll(() => pair.primary?.state, { timeout: 10_000, interval: 2 }).toBe('Protected')
  await pair.epochs(2)
  pair.guest.end({ how: 'died', detail: 'killed' })
  expect(await pair.host.outcome).toMatchObject({ how: 'took-over' })
  expect(image.digest).toBe(disks.digest)
  await spill.close()
})
