/** The redo journal of a standby: after a crash at any byte, the disks are those of the last epoch that was kept, or a newer one. */
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { RawDisk } from '../../src/disk/raw-disk.ts'
import { recordHeaderBytes, recordKind } from '../../src/disk/records.ts'
import { playBack, RedoJournal } from '../../src/disk/redo-journal.ts'
import { seededRandom } from '../support/random.ts'

const random = seededRandom()
const directory = mkdtempSync(join(tmpdir(), 'subpage-redo-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
let count = 0
const diskBytes = 256 * 1024

function fresh(bytes = diskBytes): string {
  const path = join(directory, `disk${count++}`)
  writeFileSync(path, Buffer.alloc(bytes))
  return path
}

function record(offset: number, data: Uint8Array | number): Buffer {
  const zeroes = typeof data === 'number'
  const head = Buffer.alloc(recordHeaderBytes)
  head.writeBigUInt64LE(BigInt(offset), 0)
  head.writeUInt32LE(zeroes ? data : data.length, 8)
  head.writeUInt32LE(zeroes ? recordKind.zeroes : recordKind.data, 12)
  return zeroes ? head : Buffer.concat([head, data])
}

const lazily = ({ disk, records }: { disk: number; records: Uint8Array }) => ({
  ...{ disk, bytes: records.length },
  records: async () => records,
})

/** Two disks, a journal, and what the disks are to be. */
class Kept {
  readonly paths: string[]
  readonly disks: RawDisk[]
  readonly path = join(directory, `journal${count++}`)
  readonly journal: RedoJournal
  readonly places: { path: string; bytes: number }[]
  /** After each epoch. */
  readonly history: Buffer[][]
  #ended = false

  constructor(bytes = diskBytes) {
    this.paths = [fresh(bytes), fresh(bytes)]
    this.disks = this.paths.map((path) => new RawDisk(path, bytes, false))
    this.journal = new RedoJournal(this.path, this.disks)
    this.places = this.paths.map((path) => ({ path, bytes }))
    this.history = [this.paths.map(() => Buffer.alloc(bytes))]
    onTestFinished(() => this.end())
  }

  /** The disks stay as they are. */
  async end(): Promise<void> {
    if (this.#ended) return
    this.#ended = true
    await this.journal.remove()
    await Promise.all(this.disks.map((disk) => disk.close()))
  }

  /** Writes of an epoch that has any; the disks get them only sometimes, as far as the file system says. */
  async epoch(): Promise<void> {
    const now = this.history.at(-1)!.map((content) => Buffer.from(content))
    const writes = Array.from({ length: random.integer(1, 4) }, () => {
      const disk = random.integer(0, 1)
      const length = 512 * random.integer(1, 40)
      const offset = 512 * random.integer(0, (diskBytes - length) / 512)
      const zeroes = random.integer(0, 3) === 0
      const data = Buffer.alloc(length, zeroes ? 0 : random.integer(1, 255))
      data.copy(now[disk]!, offset)
      return { disk, records: record(offset, zeroes ? length : data) }
    })
    this.history.push(now)
    await this.journal.append(this.history.length - 1, writes.map(lazily))
    if (random.integer(0, 1))
      for (const { disk, records } of writes) await this.disks[disk]!.apply(records, 0)
  }
}

test('a crash at any byte leaves a whole epoch, and none that was kept is missing', async () => {
  for (let round = 0; round < 25; round++) {
    const kept = new Kept()
    const sizes = [0]
    for (let n = random.integer(1, 8); n > 0; n--) {
      await kept.epoch()
      sizes.push(statSync(kept.path).size)
    }
    const cut = random.integer(0, sizes.at(-1)!)
    const crashed = `${kept.path}.crashed`
    copyFileSync(kept.path, crashed)
    await kept.end()
    truncateSync(crashed, cut)
    const whole = sizes.filter((size, epoch) => epoch > 0 && size <= cut).length
    const newest = await playBack(crashed, kept.places)
    expect(newest, `seed ${random.seed}`).toBe(whole === 0 ? undefined : whole)
    expect(existsSync(crashed)).toBe(false)
    // Else the disks have some of what came after the cut, which only the primary could bring again.
    if (cut < sizes.at(-1)!) continue
    const content = kept.paths.map((path) => readFileSync(path))
    expect(
      content.every((bytes, disk) => bytes.equals(kept.history[whole]![disk]!)),
      `seed ${random.seed}`,
    ).toBe(true)
  }
})

test('what is torn in the middle ends it there', async () => {
  const kept = new Kept()
  const ends: number[] = []
  for (let n = 0; n < 3; n++) {
    await kept.epoch()
    ends.push(statSync(kept.path).size)
  }
  const bytes = readFileSync(kept.path)
  await kept.end()
  for (let n = 0; n < 20; n++) {
    const at = random.integer(4096, bytes.length - 1)
    const torn = Buffer.from(bytes)
    torn[at]! ^= random.integer(1, 255)
    const path = `${kept.path}.torn`
    writeFileSync(path, torn)
    const whole = ends.filter((end) => end <= at).length
    expect(await playBack(path, kept.places), `seed ${random.seed}`).toBe(whole === 0 ? undefined : whole)
  }
})

test('what belongs to other disks is not written to these', async () => {
  const kept = new Kept()
  await kept.epoch()
  const other = `${kept.path}.other`
  copyFileSync(kept.path, other)
  const places = kept.places.map((place) => ({ ...place, path: fresh() }))
  await expect(playBack(other, places)).rejects.toMatchObject({ code: 'DISK_FAILED' })
  expect(existsSync(other)).toBe(true)
  expect(places.every(({ path }) => readFileSync(path).every((byte) => byte === 0))).toBe(true)
})

describe('its bounds', () => {
  test('it begins anew when it is long, and then the disks have all of it', async () => {
    const kept = new Kept(16 * 2 ** 20)
    const data = Buffer.alloc(16 * 2 ** 20, 7)
    for (let n = 1; n <= 6; n++) {
      const writes = [{ disk: 0, records: record(0, data) }]
      await kept.journal.append(n, writes.map(lazily))
      await kept.disks[0]!.apply(writes[0]!.records, 0)
    }
    expect(statSync(kept.path).size).toBeLessThan(90 * 2 ** 20)
    await kept.journal.clear()
    const cleared = `${kept.path}.cleared`
    copyFileSync(kept.path, cleared)
    await kept.end()
    expect(await playBack(cleared, kept.places)).toBeUndefined()
    expect(readFileSync(kept.paths[0]!).subarray(0, data.length).equals(data)).toBe(true)
  })

  test('nothing is made for a guest that writes nothing, and nothing is played back where there is none', async () => {
    const kept = new Kept()
    await kept.journal.append(1, [])
    expect(existsSync(kept.path)).toBe(false)
    expect(await playBack(kept.path, kept.places)).toBeUndefined()
  })
})
