/**
 * A protection recovers from any backlog: what is more than a pause can take up goes while the guest runs, in bounded memory,
 * and what cannot be protected at all is refused at the start.
 */
import { once } from 'node:events'
import fc from 'fast-check'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import type { SubpageError } from '../../src/errors.ts'
import { pageBytes } from '../../src/memory/page.ts'
import {
  assertComparable,
  checkpointBytesMax,
  earlyBytesMax,
  pageRecordBytesMax,
  pauseLimits,
} from '../../src/replication/pause-limits.ts'
import type { Sending } from '../../src/replication/sending.ts'
import { seededRandom } from '../support/random.ts'
import { watchCaptures } from './captures.ts'
import { Pair, type PairOptions, protectedPair } from './pair.ts'
import { digestOf } from './scripted-guest.ts'

const random = seededRandom()

const startProtected = (options: Partial<PairOptions> = {}) => protectedPair({ random, ...options })

const state = (pair: Pair) => expect.poll(() => pair.primary?.state, { timeout: 10_000, interval: 5 })

async function expectWholeTakeover(pair: Pair): Promise<void> {
  pair.rest()
  await state(pair).toBe('Protected')
  expect(await pair.primary?.verify(), `seed ${random.seed}`).toMatchObject({ equal: true })
  expect(digestOf(pair.guest.ram) === digestOf(pair.host.waiting.image)).toBe(true)
  pair.guest.end({ how: 'died', detail: 'at last' })
  expect(await pair.host.outcome).toMatchObject({ how: 'took-over' })
  expect(pair.host.waiting.whole).toBe(true)
}

/** The guest writes the first bytes of so many pages, or all of them, while it runs. */
function burst({ guest }: Pair, pages: number, bytes = 64): Promise<void> {
  return new Promise((resolve) => {
    const write = () => {
      if (guest.paused) return setImmediate(write)
      for (let page = 0; page < pages; page++) {
        const content = new Uint8Array(bytes)
        for (let at = 0; at < bytes; at += 4)
          new DataView(content.buffer).setUint32(at, random.integer(1, 2 ** 31))
        guest.write(page * pageBytes, content)
      }
      resolve()
    }
    write()
  })
}

const shadows: [string, Sending][] = [
  ['a full shadow', {}],
  ['a cache', { shadow: { cacheBytes: 32 * pageBytes } }],
  ['hashes', { shadow: 'hash' }],
]

describe('a pause that is broken when it captures too much', () => {
  test.each(shadows)(
    'does not break for ever: the backlog goes while the guest runs, with %s',
    async (_, sending) => {
      let pair: Pair | undefined
      const seen = watchCaptures(() => pair?.guest.paused === true)
      pair = await startProtected({ pages: 512, sending, limits: { wholePages: 100 } })
      const states: string[] = []
      pair.primary?.on('state', (name, reason) => states.push(reason ? `${name}: ${reason}` : name))
      const { guest } = pair
      /** More pages than this the lease does not last for. */
      const leasePages = 200
      guest.mishaps = {
        pause: () => Object.assign(seen, { pages: 0 }),
        resume: () => ({ valid: seen.pages <= leasePages }),
      }
      await burst(pair, 400)
      await expect
        .poll(() => states, { timeout: 10_000 })
        .toContain('Seeding: more pages are behind than a pause can take up')
      await state(pair).toBe('Protected')
      await pair.epochs(2)
      expect(pair.primary?.stats.summary(0).failed).toBeGreaterThan(0)
      await expectWholeTakeover(pair)
    },
  )

  test('until the backlog is there the standby has no checkpoint, and what the guest sends is not held for it', async () => {
    const pair = await startProtected({ pages: 512, limits: { wholePages: 50 } })
    const { guest, host } = pair
    const calls: string[] = []
    const committed = () => (host.standby?.committed ? 'with a checkpoint' : 'without')
    vi.spyOn(guest, 'freeOutputs').mockImplementation(async () => void calls.push(`free, ${committed()}`))
    vi.spyOn(guest, 'holdOutputs').mockImplementation(async () => void calls.push('hold'))
    vi.spyOn(guest, 'releaseOutputs').mockImplementation(async () => void calls.push('release'))
    const alone: boolean[] = []
    pair.primary?.on('alone', (now) => alone.push(now))
    let breaks = 1
    guest.mishaps.resume = () => ({ valid: breaks-- <= 0 })
    await burst(pair, 300)
    await expect.poll(() => alone).toEqual([true, false])
    const from = calls.findIndex((call) => call.startsWith('free'))
    expect(calls.slice(from, from + 3)).toEqual(['free, without', 'hold', 'release'])
    await expectWholeTakeover(pair)
  })

  test('the connection is lost in the middle of it: the guest goes on, and is protected again', async () => {
    const pair = await startProtected({ pages: 4096 * 3, limits: { wholePages: 50 } })
    pair.host.source = 'runs'
    let breaks = 1
    pair.guest.mishaps.resume = () => ({ valid: breaks-- <= 0 })
    await burst(pair, 4096 * 3)
    await state(pair).toBe('Seeding')
    pair.host.dropConnections()
    await state(pair).toBe('Connecting')
    await state(pair).toBe('Protected')
    await expectWholeTakeover(pair)
  })

  test('few pages stay with the next pause, and the checkpoint stays', async () => {
    const pair = await startProtected({ pages: 512, limits: { wholePages: 400 } })
    const states: string[] = []
    pair.primary?.on('state', (name) => states.push(name))
    let breaks = 3
    pair.guest.mishaps.resume = () => ({ valid: breaks-- <= 0 })
    await burst(pair, 200)
    await expect.poll(() => breaks, { interval: 1 }).toBeLessThan(0)
    await pair.epochs(1)
    expect(states).not.toContain('Seeding')
    await expectWholeTakeover(pair)
  })
})

describe('more changes than are captured at once', () => {
  test.each(shadows)(
    'go while the guest runs, and no pause holds more of them, with %s',
    async (_, sending) => {
      let pair: Pair | undefined
      const seen = watchCaptures(() => pair?.guest.paused === true)
      const limits = { wholePages: 64, captureBytes: 2 ** 20 }
      pair = await startProtected({ pages: 2048, sending, limits })
      const missed = once(pair.primary!, 'missed') as Promise<[SubpageError]>
      await burst(pair, 2048, pageBytes)
      expect((await missed)[0]).toMatchObject({
        code: 'PAUSE_BROKEN',
        message: expect.stringMatching(/one epoch/),
      })
      // All of it would be 8 MiB; a capture ends with the chunk that goes beyond.
      expect(seen.bytes).toBeLessThan(limits.captureBytes + 2 ** 20)
      await state(pair).toBe('Protected')
      await expectWholeTakeover(pair)
    },
  )

  test('early and late, a checkpoint of any guest fits into what its standby accepts', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2 ** 4, max: 2 ** 28 }),
        fc.integer({ min: 1, max: 2 ** 32 }),
        (pages, captureBytes) => {
          for (const limits of [pauseLimits, { ...pauseLimits, captureBytes }]) {
            const early = earlyBytesMax(pages * pageBytes, limits)
            const late = Math.min(limits.captureBytes + 2 ** 20, pages * pageRecordBytesMax)
            expect(early).toBeGreaterThanOrEqual(0)
            if (early > 0) expect(early + late).toBeLessThanOrEqual(checkpointBytesMax(pages * pageBytes))
          }
        },
      ),
    )
    // No guest is so small or large that nothing may go early.
    for (const mib of [16, 160, 512, 4096, 65536, 1048576])
      expect(earlyBytesMax(mib * 2 ** 20, pauseLimits)).toBeGreaterThan(2 ** 24)
  })
})

describe('a tracker that names every page', () => {
  const gib = 2 ** 30
  const guest = (ramGib: number, pauseMsMax = 2_000) => ({ ram: { bytes: ramGib * gib }, pauseMsMax })
  const tenGibPerS = () => (10 * gib) / 1000
  const compare = { name: 'compare' as const, fallback: undefined }

  test('is refused where a pause cannot be long enough, with the reason and what to do', () => {
    expect(() => assertComparable(compare, guest(9.9), tenGibPerS)).not.toThrow()
    expect(() => assertComparable(compare, guest(10.1), tenGibPerS)).toThrow(
      expect.objectContaining({
        code: 'TRACKER_UNAVAILABLE',
        message: expect.stringMatching(
          /all 10\.1 GiB .* in every pause: at 10\.0 GiB\/s, .* takes 1\.0 s, .* broken after 2 s\. Protect it with the tracker userfault .*subpage check.* at most 10\.0 GiB/,
        ),
      }),
    )
    const because = { ...compare, fallback: 'this kernel is too old' }
    expect(() => assertComparable(because, guest(64), tenGibPerS)).toThrow(/this kernel is too old/)
    expect(() => assertComparable({ ...compare, name: 'userfault' }, guest(1000), tenGibPerS)).not.toThrow()
  })

  test('is refused when the protection begins, by the speed of this host, and nothing is kept', async () => {
    const pair = await Pair.make({ random, pages: 256 })
    onTestFinished(() => pair[Symbol.asyncDispose]())
    const { guest } = pair
    guest.trackerName = 'compare'
    // A lease in which no host reads a MiB.
    guest.pauseMsMax = 0.001
    await expect(pair.protect()).rejects.toMatchObject({ code: 'TRACKER_UNAVAILABLE' })
    expect(guest.openTrackers).toBe(0)
    expect(pair.host.standby).toBeUndefined()
    guest.pauseMsMax = 2_000
    await pair.protect()
    await state(pair).toBe('Protected')
    expect(await pair.primary?.verify()).toMatchObject({ equal: true })
  })
})
