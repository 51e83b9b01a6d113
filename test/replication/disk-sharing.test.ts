/**
 * Writes to a disk that go as references to the guest's memory, all the way from the journal to the standby's copy, against a
 * plain array: whatever is written to either, sent early, captured for a pause that was none, and seeded. The image is lent page by
 * page, so that whoever reads what is not borrowed is found out.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type ReducePart, Reducer, Restorer, references } from '../../src/delta/reduce.ts'
import { fullShadow } from '../../src/delta/shadow.ts'
import { checkDisk, recordHeaderBytes, recordKind } from '../../src/disk/records.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'
import { type Clock, realClock } from '../../src/replication/clock.ts'
import { DeltaSender } from '../../src/replication/delta-sender.ts'
import { DeltaWriter } from '../../src/replication/delta-writer.ts'
import { DeviceStateWriter } from '../../src/replication/device-state.ts'
import { DiskLineages } from '../../src/replication/disk-lineages.ts'
import { DiskSender } from '../../src/replication/disk-sender.ts'
import { noTraffic } from '../../src/replication/disk-traffic.ts'
import { diskHeaderBytes, noJournal, noSpill } from '../../src/replication/disks.ts'
import { type FrameType, frameType } from '../../src/replication/frame.ts'
import { redo } from '../../src/replication/held-writes.ts'
import { ImageKeeper } from '../../src/replication/image-keeper.ts'
import type { Sending } from '../../src/replication/sending.ts'
import { StandbyMachine } from '../../src/replication/standby-state.ts'
import { LendingImage } from './lending-image.ts'
import { ScriptedDiskImage, ScriptedDisks, scriptedDiskBytes } from './scripted-disk.ts'

const pages = 24
/** So few contents come again and again, so that what is known of a page is often out of date. */
const contents = 4
const all = PageRanges.all(pages)
const nothing = new Uint8Array(0)

/** A disk of which a test says when a write waits. */
class PressedDisks extends ScriptedDisks {
  pressed = false
  override get urgent(): boolean {
    return this.pressed
  }
}

/** A primary's and a standby's halves of a connection, and a guest between them. */
class Way {
  readonly ram = Region.anonymous(pages * pageBytes)
  readonly image = new LendingImage(pages)
  readonly disks = new PressedDisks()
  readonly copy = new ScriptedDiskImage()
  readonly traffic = [noTraffic()]
  readonly #shadow = fullShadow(pages)
  readonly #writer = new DeltaWriter(this.ram, this.#shadow, 'masked')
  readonly #devices = new DeviceStateWriter()
  readonly #keeper: ImageKeeper
  readonly #deltas: DeltaSender
  readonly #sender: DiskSender
  readonly #ending = new AbortController()
  #frames: { type: FrameType; epoch: number; payload: Uint8Array }[] = []
  #tick: () => void = () => undefined
  #epoch = 0
  /** Written since the shadow was brought up, and pages whose shadow is ahead of the image. */
  #dirty = new Set<number>()
  #unsynced = new Set<number>(all.pages())
  /** Sent early: a standby that is seeded again drops them. */
  #early = new Set<number>()

  constructor(sending: Sending) {
    const machine = new StandbyMachine(() => undefined)
    machine.fire('connect')
    this.#keeper = new ImageKeeper(this.image, () => undefined, machine, {
      disks: [this.copy],
      journal: noJournal,
      spill: noSpill,
    })
    const sink = {
      send: async (type: FrameType, epoch = 0, payload: Uint8Array = nothing) => {
        this.#frames.push({ type, epoch, payload: payload.slice() })
      },
    }
    const clock: Clock = {
      ...realClock,
      sleep: () =>
        new Promise((resolve) => {
          this.#tick = resolve
        }),
    }
    this.#deltas = new DeltaSender(sink, pages, this.#shadow.copy, sending, { disks: true })
    const lineages = new DiskLineages([], clock)
    this.#sender = new DiskSender(this.disks, sink, this.#deltas, clock, this.traffic, lineages)
  }

  async begin(): Promise<void> {
    this.#keeper.begin(true)
    await this.disks.begin([{ hashes: await this.copy.hashes() }], () => undefined)
    await this.seed(all)
    const seeded = this.#sender.seed(this.#ending.signal, async () => undefined)
    await Promise.all([seeded, this.#settle()])
    void this.#sender.pump(1, this.#ending.signal)
    await this.commit()
  }

  /** Brings these pages up, and those that must go whole, as seeding does over a live connection. */
  async seed(wanted: PageRanges): Promise<void> {
    this.#sender.shadowMoves()
    const whole = wanted.union(pagesOf(this.#unsynced)).union(pagesOf(this.#early))
    this.#early.clear()
    await this.#deltas.post(0, whole, await this.#writer.capture(whole, true))
    for (const page of whole.pages()) {
      this.#dirty.delete(page)
      this.#unsynced.delete(page)
    }
    await this.#settle()
  }

  write(offset: number, content: Uint8Array): void {
    this.ram.write(offset, content)
    const last = Math.floor((offset + content.length - 1) / pageBytes)
    for (let page = Math.floor(offset / pageBytes); page <= last; page++) this.#dirty.add(page)
  }

  /** Some of what is dirty goes before the epoch ends. */
  async early(part: (page: number) => boolean): Promise<void> {
    if (this.#unsynced.size > 0) return
    const chosen = pagesOf([...this.#dirty].filter(part))
    this.#deltas.announce(this.#epoch + 1, chosen)
    const captured = await this.#writer.capture(chosen, false)
    await this.#deltas.post(this.#epoch + 1, chosen, captured)
    for (const page of chosen.pages()) {
      this.#dirty.delete(page)
      this.#early.add(page)
    }
  }

  /** What waits on the disk goes before the epoch ends. */
  async press(): Promise<void> {
    this.disks.pressed = true
    while (this.disks.waitingBytes > 0) {
      this.#tick()
      await new Promise(setImmediate)
    }
    this.disks.pressed = false
  }

  /** A pause that was none: its pages are captured, and nothing is sent. */
  async breakOff(): Promise<void> {
    this.#sender.hold(this.#epoch + 1)
    await this.#capture()
    this.#sender.resume()
  }

  async commit(): Promise<void> {
    const epoch = ++this.#epoch
    this.#sender.hold(epoch)
    const { known, whole, captured } = await this.#capture()
    const state = { disk: this.disks.digest, ram: this.ram.read(0, this.ram.bytes) }
    await this.#deltas.post(epoch, known.union(whole), ...captured)
    await this.#sender.post()
    const commit = {
      deltas: this.#deltas.total.frames,
      deltaBytes: this.#deltas.total.bytes,
      consoleBytes: 0,
      digest: this.#deltas.digest,
      diskFrames: this.#sender.frames,
      suspended: false,
    }
    this.#sender.posted()
    this.#deltas.ended(epoch)
    this.#unsynced.clear()
    this.#early.clear()
    await this.#settle()
    this.#keeper.holdDevice(epoch, this.#devices.encode(nothing))
    await this.#keeper.commit(epoch, commit, async () => undefined)
    expect(this.copy.digest === state.disk).toBe(true)
    expect(Buffer.compare(this.image.content.read(0, this.ram.bytes), state.ram)).toBe(0)
    expect(this.image.lentPages).toBe(0)
  }

  async #capture() {
    const whole = pagesOf(this.#unsynced)
    const known = pagesOf(this.#dirty).subtract(whole)
    const captured = [await this.#writer.capture(known, false), await this.#writer.capture(whole, true)]
    for (const page of this.#dirty) this.#unsynced.add(page)
    this.#dirty.clear()
    return { known, whole, captured }
  }

  /** What was sent arrives. */
  async #settle(): Promise<void> {
    await new Promise(setImmediate)
    for (const { type, epoch, payload } of this.#frames.splice(0)) {
      const seeds = epoch === 0
      if (type === frameType.disk)
        await (seeds
          ? this.#keeper.seedDisk(payload, () => undefined)
          : this.#keeper.holdDisk(epoch, payload))
      else if (seeds) await this.#keeper.seed(payload, type, () => undefined)
      else await this.#keeper.hold(epoch, payload, type)
    }
  }

  close(): void {
    this.#ending.abort()
    this.#tick()
    this.#deltas.close()
    this.#keeper.close()
    this.#devices.close()
    this.#shadow.close()
    this.image.close()
    this.ram.close()
  }
}

const pagesOf = (pages: Iterable<number>) => PageRanges.of([...pages].map((page) => [page, 1] as const))

const steps = [
  'memory',
  'copy',
  'line',
  'disk',
  'odd',
  'zero',
  'again',
  'early',
  'press',
  'break',
  'seed',
  'commit',
] as const
interface Step {
  kind: (typeof steps)[number]
  at: number
  from: number
  size: number
}
const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom(...steps),
  at: fc.nat(),
  from: fc.nat(),
  size: fc.nat(),
})

async function take(way: Way, { kind, at, from, size }: Step): Promise<void> {
  const page = (at % pages) * pageBytes
  const diskPages = scriptedDiskBytes / pageBytes
  const length = Math.min((1 + (size % 5)) * pageBytes, (pages - (from % pages)) * pageBytes)
  const content = () => way.ram.read((from % pages) * pageBytes, length)
  const block = (at % (diskPages - 5)) * pageBytes
  switch (kind) {
    case 'memory':
      return way.write(page, noise(pageBytes, from % contents))
    case 'copy':
      return way.write(page, way.ram.read((from % pages) * pageBytes, pageBytes))
    case 'line':
      return way.write(page + 64 * (from % 64), noise(64, size % 3))
    case 'disk':
      return way.disks.write(block, content())
    case 'odd':
      return way.disks.write(
        block + (size % pageBytes),
        content().subarray(from % 4000, (from % 4000) + 1 + (at % 12_000)),
      )
    case 'zero':
      return way.disks.write(block, new Uint8Array(length))
    case 'again': {
      // As of a log: the beginning is what a page has, the rest is not.
      const changed = content()
      changed.set(noise(64 * (1 + (at % 20)), at), length - 64 * (1 + (at % 20)))
      return way.disks.write(block, changed)
    }
    case 'early':
      return await way.early((n) => (n + at) % 3 > 0)
    case 'press':
      return await way.press()
    case 'break':
      return await way.breakOff()
    case 'seed':
      return await way.seed(pagesOf([at % pages, from % pages]))
    case 'commit':
      return await way.commit()
  }
}
/** Bytes that nothing compresses. */
function noise(bytes: number, seed: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(bytes / 4))
  let state = Math.imul(seed + 1, 2_654_435_761) | 1
  for (let at = 0; at < words.length; at++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[at] = state
  }
  return new Uint8Array(words.buffer, 0, bytes)
}

const sendings: [string, Sending][] = [
  ['every part, compressed', { reduce: ['dictionary', 'sharing', 'similar'], compress: 'zstd' }],
  ['small blocks, not compressed', { reduce: ['dictionary', 'sharing'], blockBytes: 64, compress: 'off' }],
  ['whole pages only', { reduce: ['sharing'], blockBytes: 4096, compress: 'lz4' }],
  ['nothing is reduced', {}],
  ['compression only', { reduce: [], compress: 'zstd' }],
  ['whatever is best', { reduce: ['dictionary', 'sharing', 'similar'], compress: 'auto' }],
]

describe.each(sendings)('%s', (_, sending) => {
  test('whatever happens, memory and disk of the standby are those of the checkpoint', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (course) => {
        const way = new Way(sending)
        try {
          await way.begin()
          for (const next of course) await take(way, next)
          await way.commit()
        } finally {
          way.close()
        }
      }),
      { numRuns: 40 },
    )
  })
})

describe('what a guest writes from its memory', () => {
  const sending: Sending = { reduce: ['dictionary', 'sharing', 'similar'], compress: 'off' }
  async function written(before: (way: Way) => Promise<void>): Promise<ReturnType<typeof noTraffic>> {
    const way = new Way(sending)
    try {
      await way.begin()
      for (let page = 0; page < pages; page++) way.write(page * pageBytes, noise(pageBytes, page))
      const content = way.ram.read(2 * pageBytes, 16 * pageBytes)
      await before(way)
      way.disks.write(5 * pageBytes, content.subarray(0, 4 * pageBytes))
      if (before === pressed) await way.press()
      await way.commit()
      return way.traffic[0]!
    } finally {
      way.close()
    }
  }
  const pressed = (way: Way) => way.commit()

  test('with the checkpoint that its memory goes with', async () => {
    const { sharedBytes, wireBytes } = await written(async () => undefined)
    expect(sharedBytes).toBe(4 * pageBytes)
    expect(wireBytes).toBeLessThan(150)
  })

  test('later, and before the end of an epoch', async () => {
    const { sharedBytes, wireBytes } = await written(pressed)
    expect(sharedBytes).toBe(4 * pageBytes)
    expect(wireBytes).toBeLessThan(150)
  })

  test.each<[string, (way: Way) => Promise<void>]>([
    ['a pause that was none', (way) => way.breakOff()],
    ['an early pass', (way) => way.early(() => true)],
    ['a part of seeding', (way) => way.seed(pagesOf([3]))],
  ])('is not looked for in what was captured by %s', async (_, moves) => {
    const way = new Way({ ...sending, reduce: ['sharing'] })
    try {
      await way.begin()
      // The page is known by a content that it has not on the standby, and has again here.
      for (const content of [1, 2]) {
        way.write(3 * pageBytes, noise(pageBytes, content))
        await way.commit()
      }
      way.write(3 * pageBytes, noise(pageBytes, 1))
      await moves(way)
      way.disks.write(0, noise(pageBytes, 1))
      await way.press()
      const { sharedBytes } = way.traffic[0]!
      way.write(3 * pageBytes, noise(pageBytes, 3))
      await way.commit()
      expect(sharedBytes).toBe(0)
    } finally {
      way.close()
    }
  })

  test('before the end of the epoch that its memory goes with: as content', async () => {
    const way = new Way(sending)
    try {
      await way.begin()
      way.write(0, noise(pageBytes, 1))
      await way.early(() => true)
      way.disks.write(0, way.ram.read(0, pageBytes))
      await way.press()
      way.write(0, noise(pageBytes, 2))
      await way.commit()
      // The dictionary knows the lines of what went early.
      expect(way.traffic[0]).toMatchObject({ sharedBytes: 0, dictionaryBytes: pageBytes })
    } finally {
      way.close()
    }
  })
})

/** A record of data. */
const record = (offset: number, data: Uint8Array) => {
  const head = Buffer.alloc(recordHeaderBytes)
  head.writeBigUInt64LE(BigInt(offset), 0)
  head.writeUInt32LE(data.length, 8)
  head.writeUInt32LE(recordKind.data, 12)
  return Buffer.concat([head, data])
}

test('what an epoch changes is filled in once it is applied, and written then', async () => {
  const image = Region.anonymous(2 * pageBytes)
  const disk = new ScriptedDiskImage()
  let apply: () => void = () => undefined
  const applied = new Promise<void>((resolve) => {
    apply = resolve
  })
  const fills = new Uint8Array(Uint32Array.of(recordHeaderBytes, 1, 64 << 16).buffer)
  const payload = record(4096, new Uint8Array(pageBytes))
  const writes = { number: 0, disk, bytes: payload.length, payload: async () => payload, from: 0, fills }
  const done = redo([{ ...writes, giveBack: () => undefined }], image, applied)
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
  image.write(pageBytes, noise(pageBytes, 7))
  apply()
  await done
  expect(Buffer.compare(disk.content.subarray(4096, 2 * 4096), noise(pageBytes, 7))).toBe(0)
  image.close()
})

describe('damaged', () => {
  const parts: ReducePart[] = ['dictionary', 'sharing']
  test('writes are refused, or are writes to this disk that share with this image', async () => {
    const ram = Region.anonymous(pages * pageBytes)
    for (let page = 0; page < pages; page++) ram.write(page * pageBytes, noise(pageBytes, page))
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...references),
        fc.constantFrom('off', 'zstd', 'lz4'),
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), { maxLength: 4 }),
        fc.option(fc.nat()),
        async (reference, method, damage, cut) => {
          const [reducer, restorer] = [new Reducer(pages, parts, 256), new Restorer()]
          try {
            reducer.know(all, ram)
            const plain = Buffer.concat([
              record(4096, Buffer.concat([ram.read(3 * pageBytes, 3 * pageBytes), noise(700, 9)])),
              record(513, noise(5000, 4)),
              record(20_480, new Uint8Array(4096)),
            ])
            reducer.begin(true)
            const { payload } = reducer.reduceWritesSync(plain, ram, reference, method, diskHeaderBytes)
            const sent = payload.slice(diskHeaderBytes)
            for (const [at, flip] of damage) sent[at % sent.length]! ^= flip
            const given = cut === null ? sent : sent.subarray(0, cut % sent.length)
            const { records, fills } = await restorer.restoreWrites(given, pages, 2 ** 20)
            checkDisk(records, 0, scriptedDiskBytes)
            const words = new Uint32Array(fills.buffer, fills.byteOffset, fills.length / 4)
            for (let at = 0; at < words.length; at += 3) {
              const [to, page, lines] = [words[at]!, words[at + 1]!, words[at + 2]!]
              expect(page).toBeLessThan(pages)
              expect((lines & 0xffff) + (lines >>> 16)).toBeLessThanOrEqual(64)
              expect(to + 64 * (lines >>> 16)).toBeLessThanOrEqual(records.length)
            }
            if (damage.length === 0 && cut === null && reference === 'none')
              expect(Buffer.compare(records, plain)).toBe(0)
          } catch (error) {
            expect(error).toMatchObject({ code: 'FRAME_MALFORMED' })
          } finally {
            reducer.close()
            restorer.close()
          }
        },
      ),
      { numRuns: 400 },
    )
    ram.close()
  })
})
