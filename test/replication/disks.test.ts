/**
 * A guest's disk on the standby is of one moment with the memory, at every takeover: real Primary and Standby, a scripted guest
 * that writes memory and disk.
 */
import { describe, expect, onTestFinished, test } from 'vitest'
import { chunkBytes } from '../../src/disk/records.ts'
import { limits } from '../../src/limits.ts'
import { Region } from '../../src/memory/region.ts'
import { noJournal, noSpill } from '../../src/replication/disks.ts'
import { wholeImage } from '../../src/replication/image.ts'
import { ImageKeeper } from '../../src/replication/image-keeper.ts'
import { StandbyMachine } from '../../src/replication/standby-state.ts'
import { seededRandom } from '../support/random.ts'
import { Pair, type PairOptions } from './pair.ts'
import { ScriptedDiskImage, ScriptedDisks, scriptedDiskBytes } from './scripted-disk.ts'
import { ScriptedArbiter } from './scripted-host.ts'

const random = seededRandom()

interface WithDisk {
  pair: Pair
  disks: ScriptedDisks
  image: ScriptedDiskImage
  /** What the disk was at each pause, by `consoleBytes`. */
  history: Map<number, string>
  /** Nothing is written from here on. */
  end: number
}

async function make(options: Partial<PairOptions> = {}): Promise<WithDisk> {
  const pair = await Pair.make({ random, ...options })
  onTestFinished(() => pair[Symbol.asyncDispose]())
  const disks = new ScriptedDisks()
  const image = new ScriptedDiskImage()
  const history = new Map<number, string>()
  const made: WithDisk = { pair, disks, image, history, end: scriptedDiskBytes }
  pair.guest.disks = disks
  pair.host.disks = [image]
  const pause = pair.guest.pause.bind(pair.guest)
  pair.guest.pause = async () => {
    const paused = await pause()
    history.set(pair.guest.consoleBytes, disks.digest)
    return paused
  }
  const work = () => {
    if (pair.guest.paused) return
    const length = [512, 4096, 20_000, 16_384][random.integer(0, 3)]!
    const offset = 512 * random.integer(0, (made.end - length) / 512 - 1)
    // As from the page cache, which the guest may change right afterwards: the disk has what it was.
    const from = 4096 * random.integer(0, pair.guest.ram.pages - 4)
    if (length === 16_384) disks.write(offset - (offset % 4096), pair.guest.ram.read(from, length))
    else disks.write(offset, new Uint8Array(length).fill(random.integer(0, 255)))
    if (random.integer(0, 2) === 0) pair.guest.write(from, new Uint8Array(64).fill(random.integer(0, 255)))
  }
  for (let n = 0; n < 50; n++) work()
  const worker = setInterval(work, 1)
  onTestFinished(() => clearInterval(worker))
  return made
}

async function dies({ pair, image, history }: WithDisk): Promise<void> {
  pair.guest.end({ how: 'died', detail: 'killed' })
  expect(await pair.host.outcome, `seed ${random.seed}`).toMatchObject({ how: 'took-over' })
  expect(pair.host.waiting.whole).toBe(true)
  const { consoleBytes } = pair.host.standby!.committed!
  expect(image.digest === history.get(consoleBytes), `seed ${random.seed}`).toBe(true)
  // Before anything that the guest says there.
  expect(image.synced).toBe(image.digest)
}

const committed = ({ pair }: WithDisk) =>
  expect.poll(() => pair.primary?.state, { timeout: 10_000, interval: 2 }).toBe('Protected')

test('a takeover at any moment has the disk of its checkpoint', async () => {
  for (let round = 0; round < 12; round++) {
    const one = await make()
    await one.pair.protect()
    await one.pair.epochs(random.integer(1, 12))
    await dies(one)
  }
})

test('a pause that was broken keeps its writes for the next checkpoint', async () => {
  const one = await make()
  await one.pair.protect()
  await one.pair.epochs(2)
  let broken = 0
  one.pair.guest.mishaps.resume = () => ({ valid: ++broken % 3 === 0 })
  await one.pair.epochs(6)
  expect(broken).toBeGreaterThan(12)
  await dies(one)
})

test('after a cut only what differs goes again, and the disk is whole', async () => {
  const one = await make({ arbiter: new ScriptedArbiter() })
  await one.pair.protect()
  await one.pair.epochs(3)
  const before = one.disks.fedBytes
  const { begins } = one.disks
  for (let cut = 0; cut < 3; cut++) {
    one.pair.host.dropConnections()
    await expect.poll(() => one.disks.begins, { timeout: 10_000 }).toBe(begins + cut + 1)
    await committed(one)
    await one.pair.epochs(3)
  }
  expect(before).toBeGreaterThan(0)
  await dies(one)
})

test('a mirror that breaks off begins the protection anew', async () => {
  const one = await make()
  await one.pair.protect()
  await one.pair.epochs(3)
  one.disks.fail(new Error('the test breaks it'))
  await expect.poll(() => one.pair.primary?.reason, { interval: 1 }).toMatch(/the test breaks it/)
  await expect.poll(() => one.disks.begins, { timeout: 10_000 }).toBe(2)
  await committed(one)
  await one.pair.epochs(2)
  await dies(one)
})

test('a standby whose disk cannot be written has no checkpoint, and says so; the guest goes on', async () => {
  const one = await make()
  await one.pair.protect()
  await one.pair.epochs(3)
  one.image.refuses = Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' })
  await expect
    .poll(() => one.pair.primary?.reason, { timeout: 10_000, interval: 1 })
    .toMatch(/cannot be written: ENOSPC/)
  expect(one.pair.host.standby?.committed).toBeUndefined()
  one.image.refuses = undefined
  await committed(one)
  await one.pair.epochs(2)
  await dies(one)
})

test('memory that is seeded again over a live connection loses no write to a disk', async () => {
  const one = await make({ limits: { wholePages: 16 } })
  await one.pair.protect()
  for (let round = 0; round < 5; round++) {
    await one.pair.epochs(2)
    await one.pair.whileRunning(() => {
      for (let page = 0; page < 64; page++)
        one.pair.guest.write(page * 4096, new Uint8Array(4096).fill(random.integer(1, 255)))
    })
  }
  await one.pair.epochs(3)
  await dies(one)
})

describe('a standby refuses', () => {
  const keeper = () => {
    const region = Region.anonymous(64 * 4096)
    onTestFinished(() => region.close())
    const image = new ScriptedDiskImage()
    const machine = new StandbyMachine(() => undefined)
    machine.fire('connect')
    const made = new ImageKeeper(wholeImage(region), () => undefined, machine, {
      disks: [image],
      journal: noJournal,
      spill: noSpill,
    })
    made.begin(false)
    return made
  }
  const frame = (disk: number, zero: number, records: Uint8Array) => {
    const header = Buffer.alloc(8)
    header.writeUInt32LE(disk, 0)
    header.writeUInt32LE(zero, 4)
    return Buffer.concat([header, records])
  }
  const record = (offset: number, length: number, kind: number, data: Uint8Array) => {
    const bytes = Buffer.alloc(16)
    bytes.writeBigUInt64LE(BigInt(offset), 0)
    bytes.writeUInt32LE(length, 8)
    bytes.writeUInt32LE(kind, 12)
    return Buffer.concat([bytes, data])
  }

  test.each([
    ['a disk that the guest has not', frame(1, 0, record(0, 1, 0, new Uint8Array(1)))],
    ['a form that it does not know', frame(0, 2, record(0, 1, 0, new Uint8Array(1)))],
    ['reduced writes, which it was not told of', frame(0, 1, record(0, 1, 0, new Uint8Array(1)))],
    ['no header', Buffer.alloc(3)],
    ['a write beyond the end', frame(0, 0, record(scriptedDiskBytes - 1, 2, 0, new Uint8Array(2)))],
    ['an unknown kind', frame(0, 0, record(0, 1, 2, new Uint8Array(1)))],
    ['less than was announced', frame(0, 0, record(0, 9, 0, new Uint8Array(8)))],
  ])('%s', async (_, payload) => {
    await expect(keeper().holdDisk(1, payload)).rejects.toMatchObject({ code: 'FRAME_MALFORMED' })
  })

  test('more writes than it holds, in large records and in tiny ones', async () => {
    const large = frame(0, 0, record(0, scriptedDiskBytes, 0, new Uint8Array(scriptedDiskBytes)))
    const tiny = frame(0, 0, record(0, 512, 1, new Uint8Array(0)))
    for (const payload of [large, tiny]) {
      const one = keeper()
      const enough = Math.ceil(limits.checkpointDiskBytes.value / (payload.length + 512))
      const flood = async () => {
        for (let n = 0; n <= enough; n++) await one.holdDisk(1, payload)
      }
      await expect(flood()).rejects.toThrow(/more writes to disks/)
    }
  })
})

test('verify looks at the disk while the guest writes to it: whole, and damaged in any place', async () => {
  const one = await make()
  await one.pair.protect()
  await one.pair.epochs(2)
  expect(await one.pair.primary!.verify()).toMatchObject({
    equal: true,
    disks: [{ disk: 0, bytes: scriptedDiskBytes }],
  })
  // A write would mend it.
  one.end -= chunkBytes
  for (let round = 0; round < 5; round++) {
    const at = random.integer(one.end, scriptedDiskBytes - 1)
    // One that was on its way has arrived.
    await expect.poll(() => one.image.content[at] === one.disks.content[at], { interval: 2 }).toBe(true)
    await one.pair.epochs(2)
    one.image.content[at] = one.image.content[at]! ^ 1
    const { disks } = await one.pair.primary!.verify()
    expect(disks[0]!.difference, `seed ${random.seed}`).toBe(one.end)
    one.image.content[at] = one.image.content[at]! ^ 1
  }
  await dies(one)
})

describe('checkpoints that outlast a loss of power', () => {
  const journal = () => {
    const kept = { epochs: [] as number[], cleared: 0, removed: 0, gate: Promise.resolve() }
    return {
      kept,
      append: async (epoch: number, writes: readonly unknown[]) => {
        await kept.gate
        if (writes.length > 0) kept.epochs.push(epoch)
      },
      clear: async () => void kept.cleared++,
      remove: async () => void kept.removed++,
    }
  }

  test('are acknowledged when their writes are kept, and not before', async () => {
    const one = await make({ durability: 'disk' })
    const keeping = journal()
    one.pair.host.journal = keeping
    await one.pair.protect()
    await one.pair.epochs(3)
    // What seeding wrote is on the disk before anything is kept on top of it.
    expect(keeping.kept.cleared).toBe(1)
    let open: () => void = () => undefined
    keeping.kept.gate = new Promise((resolve) => {
      open = resolve
    })
    const [here, there] = [
      () => one.pair.primary!.stats.last!.epoch,
      () => one.pair.host.standby!.committed!.epoch,
    ]
    // It has come to a checkpoint that goes on for no reason but the gate.
    const stands = async () => {
      const before = [here(), there()]
      for (let turn = 0; turn < 200; turn++) await new Promise(setImmediate)
      return here() === before[0] && there() === before[1] && there() - here()
    }
    await expect.poll(stands, { timeout: 10_000 }).toBe(1)
    open()
    await one.pair.epochs(2)
    await dies(one)
    expect(keeping.kept.removed).toBe(1)
  })

  test('a journal that fails costs the checkpoint, not the guest', async () => {
    const one = await make({ durability: 'disk' })
    const keeping = journal()
    one.pair.host.journal = keeping
    await one.pair.protect()
    await one.pair.epochs(2)
    const full = Promise.reject(new Error('no space left'))
    // Whoever keeps writes hears of it.
    full.catch(() => undefined)
    keeping.kept.gate = full
    await expect
      .poll(() => one.pair.primary?.reason, { timeout: 10_000, interval: 1 })
      .toMatch(/cannot keep writes to disks: no space left/)
    keeping.kept.gate = Promise.resolve()
    await committed(one)
    await one.pair.epochs(2)
    await dies(one)
  })

  test('others keep none', async () => {
    const one = await make()
    const keeping = journal()
    one.pair.host.journal = keeping
    await one.pair.protect()
    await one.pair.epochs(3)
    expect(keeping.kept).toMatchObject({ epochs: [], removed: 1 })
    await dies(one)
  })
})
