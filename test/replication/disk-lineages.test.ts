/**
 * Three hosts, among which a guest with a disk goes round: cuts, failovers, standbys that die while they apply, other standbys in
 * between. Whenever two hosts believe that only what their maps have marked differs, the rest is compared byte for byte.
 */
import { describe, expect, test } from 'vitest'
import { chunkBytes } from '../../src/disk/records.ts'
import { CopyLineages, DiskLineages } from '../../src/replication/disk-lineages.ts'
import { seededRandom } from '../support/random.ts'
import { Pair, WarpedClock } from './pair.ts'
import { ScriptedDiskImage, ScriptedDisks, ScriptedMap, scriptedDiskBytes } from './scripted-disk.ts'
import { ScriptedArbiter } from './scripted-host.ts'

const random = seededRandom()
const rounds = 16

class Host {
  readonly content = new Uint8Array(scriptedDiskBytes)
  readonly map = new ScriptedMap()
}

const counts = { map: 0, hashes: 0, looked: 0, died: 0, crashed: 0 }

/** One protection of a guest on `from`, with a standby on `to`, until something happens. @returns where the guest is then */
async function round(from: Host, to: Host): Promise<Host> {
  const pair = await Pair.make({ random, arbiter: new ScriptedArbiter() })
  const clock = new WarpedClock()
  pair.options.clock = clock
  const disks = new ScriptedDisks(from.content, from.map)
  const image = new ScriptedDiskImage(to.content, to.map)
  const history = new Map<number, string>()
  pair.guest.disks = disks
  pair.host.disks = [image]
  let lies: string | undefined
  disks.audit = (looked) => {
    counts.map++
    counts.looked += looked.size
    for (let chunk = 0; chunk < scriptedDiskBytes / chunkBytes; chunk++) {
      const [begin, end] = [chunk * chunkBytes, (chunk + 1) * chunkBytes]
      const equal = Buffer.compare(from.content.subarray(begin, end), to.content.subarray(begin, end)) === 0
      if (!looked.has(chunk) && !equal) lies = `chunk ${chunk} differs, and neither map says so`
    }
  }
  const pause = pair.guest.pause.bind(pair.guest)
  pair.guest.pause = async () => {
    const paused = await pause()
    history.set(pair.guest.consoleBytes, disks.digest)
    // Marks are made apart as often as can be.
    clock.pass(1000)
    return paused
  }
  // Few chunks at a time, so that most are left out, and none twice in a row.
  const places = [0, 1, 2].map(() => random.integer(0, 7))
  const work = () => {
    if (pair.guest.paused || !pair.guest.alive || random.integer(0, 3) > 0) return
    const offset = places[random.integer(0, 2)]! * chunkBytes + 512 * random.integer(0, 100)
    disks.write(offset, new Uint8Array(512 * random.integer(1, 8)).fill(random.integer(0, 255)))
  }
  const worker = setInterval(work, 1)
  const broken = random.integer(0, 3) === 0
  if (broken) pair.guest.mishaps.resume = () => ({ valid: random.integer(0, 2) > 0 })
  const committed = () =>
    expect
      .poll(() => pair.primary?.state, { timeout: 10_000, interval: 2, message: `seed ${random.seed}` })
      .toBe('Protected')
  /** The standby's process dies while it writes, and so does the primary's supervisor, later. */
  const crash = async (records: number) => {
    counts.crashed++
    image.recordsLeft = records
    await expect.poll(() => image.recordsLeft < 0, { timeout: 10_000, interval: 1 }).toBe(true)
    return from
  }
  try {
    const early = random.integer(0, 3) === 0 ? crash(random.integer(0, 4)) : undefined
    await pair.protect()
    if (early) return await early
    await pair.epochs(random.integer(1, 4))
    for (let cut = random.integer(0, 2); cut > 0; cut--) {
      const { begins } = disks
      pair.host.dropConnections()
      await expect.poll(() => disks.begins, { timeout: 10_000, interval: 2 }).toBeGreaterThan(begins)
      if (random.integer(0, 2) > 0) await committed()
    }
    await committed()
    await pair.epochs(random.integer(1, 4))
    counts.hashes += disks.begins
    if (random.integer(0, 2) === 0) return await crash(random.integer(0, 5))
    counts.died++
    pair.guest.end({ how: 'died', detail: 'killed' })
    expect(await pair.host.outcome, `seed ${random.seed}`).toMatchObject({ how: 'took-over' })
    const { consoleBytes } = pair.host.standby!.committed!
    expect(image.digest === history.get(consoleBytes), `seed ${random.seed}`).toBe(true)
    return to
  } finally {
    expect(lies, `seed ${random.seed}`).toBeUndefined()
    clearInterval(worker)
    await pair[Symbol.asyncDispose]()
  }
}

test('what maps leave out is equal, whatever happened to the hosts', { timeout: 60_000 }, async () => {
  const hosts = [new Host(), new Host(), new Host()]
  // A former guest's.
  for (const { content } of hosts) content.fill(random.integer(0, 255))
  let at = hosts[0]!
  let to = hosts[1]!
  for (let n = 0; n < rounds; n++) {
    const next = await round(at, to)
    const others = hosts.filter((host) => host !== next)
    const former = next === at ? to : at
    at = next
    to = random.integer(0, 3) === 0 ? others[random.integer(0, 1)]! : former
  }
  expect(counts.map).toBeGreaterThan(3)
  // Much was left out.
  expect(counts.looked).toBeLessThan(counts.map * 7)
})

describe('a lineage', () => {
  const bytes = [scriptedDiskBytes]
  /** A session with a standby that says it is of `lineage`; undefined: it knows of none. */
  const session = (lineage: string | undefined) => {
    const said: string[] = []
    return {
      said,
      welcome: { disks: [{ path: '', made: true, ...(lineage !== undefined && { lineage }) }] } as never,
      diskHashes: async () => new Uint8Array(8 * 16),
      diskChanges: async () => Uint8Array.of(2),
      renewLineage: async (_: number, renewed: Uint8Array) => {
        said.push(Buffer.from(renewed).toString('hex'))
      },
    }
  }
  let now = 0
  const clock = {
    now: () => now,
    sleep: async () => undefined,
    after: () => () => undefined,
    afterInput: () => () => undefined,
  }
  const old = 'a'.repeat(32)
  const made = (lineage: string) => {
    const map = new ScriptedMap()
    map.inherit(lineage)
    map.mark(0, 1)
    return { map, lineages: new DiskLineages([map], clock) }
  }

  test('is believed when both have it, and not without one', async () => {
    const { map, lineages } = made(old)
    expect(lineages.told).toEqual([old])
    expect(await lineages.agree(session(old), bytes)).toEqual([{ changed: Uint8Array.of(2) }])
    expect(map.lineage).toBe(old)
    expect(await made('').lineages.agree(session(''), bytes)).toMatchObject([{ hashes: expect.anything() }])
  })

  test('that only one has is forgotten, and a new one is there when a checkpoint is applied', async () => {
    const { map, lineages } = made(old)
    const other = session('b'.repeat(32))
    await lineages.agree(other, bytes)
    expect(map.lineage).toBe('')
    map.mark(0, 1)
    lineages.held(7)
    lineages.acknowledged(7)
    expect([map.lineage, map.marked()[0]]).toEqual(['', 1])
    // It is held before the next one is due, so nothing else is parted.
    lineages.held(8)
    lineages.acknowledged(8)
    expect([[map.lineage], map.marked()[0]]).toEqual([other.said, 0])
  })

  test('begins without the marks from before it, which all was compared for', async () => {
    const { map, lineages } = made(old)
    await lineages.agree(session(old), bytes)
    lineages.held(1)
    map.mark(2 * chunkBytes, 1)
    // The protection ends there, and the next one is to another host.
    const next = new DiskLineages([map], clock)
    const other = session('')
    await next.agree(other, bytes)
    for (const epoch of [1, 2]) {
      next.held(epoch)
      next.acknowledged(epoch)
    }
    expect([[map.lineage], map.marked()[0]]).toEqual([other.said, 0])
  })

  test('that the standby has forgotten: the mirror from before is over before the marks go', async () => {
    await using pair = await Pair.make({ random, arbiter: new ScriptedArbiter() })
    const disks = new ScriptedDisks(undefined, new ScriptedMap())
    const image = new ScriptedDiskImage(undefined, new ScriptedMap())
    pair.guest.disks = disks
    pair.host.disks = [image]
    await pair.protect()
    await expect.poll(() => disks.maps[0]!.lineage, { interval: 2 }).not.toBe('')
    image.map!.forget()
    const { begins } = disks
    pair.host.dropConnections()
    await expect.poll(() => disks.begins, { interval: 2 }).toBe(begins + 1)
    await expect.poll(() => image.map!.lineage, { interval: 2 }).not.toBe('')
    await expect.poll(() => disks.maps[0]!.lineage, { interval: 2 }).toBe(image.map!.lineage)
  })

  test('is not made with a standby of an earlier release', async () => {
    const { map, lineages } = made(old)
    const earlier = session(undefined)
    await lineages.agree(earlier, bytes)
    lineages.acknowledged(1)
    lineages.acknowledged(2)
    expect([map.lineage, earlier.said]).toEqual(['', []])
  })

  test('keeps the marks of a pause that was none', async () => {
    const { map, lineages } = made(old)
    await lineages.agree(session(old), bytes)
    lineages.acknowledged(4)
    lineages.held(5)
    lineages.broken(5)
    lineages.acknowledged(5)
    lineages.acknowledged(6)
    expect(map.marked()[0]).toBe(1)
    now += 1000
    lineages.held(7)
    lineages.acknowledged(7)
    lineages.acknowledged(8)
    expect(map.marked()[0]).toBe(0)
  })

  test('of a standby: its marks go when they were asked for, with the first checkpoint', () => {
    const map = new ScriptedMap()
    map.inherit(old)
    map.mark(0, 1)
    const lineages = new CopyLineages([new ScriptedDiskImage(undefined, map)])
    lineages.begin([old])
    lineages.applied()
    expect([map.lineage, map.marked()[0]]).toEqual([old, 1])
    lineages.begin([old])
    expect(lineages.changes(0)).toEqual(Uint8Array.of(1))
    lineages.applied()
    expect([map.lineage, map.marked()[0]]).toEqual([old, 0])
    lineages.begin(undefined)
    expect(map.lineage).toBe('')
    for (const wrong of [
      () => lineages.changes(1),
      () => lineages.changes(-1),
      () => lineages.renew(1, new Uint8Array(16)),
      () => lineages.renew(0, new Uint8Array(15)),
    ])
      expect(wrong).toThrow(expect.objectContaining({ code: 'FRAME_MALFORMED' }))
  })
})
