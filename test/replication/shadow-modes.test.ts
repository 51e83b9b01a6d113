/**
 * A protection with each kind of shadow that is not a copy of everything: the image is the committed checkpoint whatever fails, verify finds what differs,
 * and a standby that is found again is brought up to date.
 */
import fc from 'fast-check'
import { describe, expect, onTestFinished, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { Primary } from '../../src/replication/primary.ts'
import type { Sending } from '../../src/replication/sending.ts'
import { seededRandom } from '../support/random.ts'
import { Pair, type PairOptions } from './pair.ts'
import { digestOf } from './scripted-guest.ts'

const random = seededRandom()

const kinds: [name: string, sending: Sending][] = [
  ['a cache of a quarter', { shadow: { cacheBytes: 16 * pageBytes } }],
  ['a cache of one page', { shadow: { cacheBytes: pageBytes } }],
  ['hashes', { shadow: 'hash' }],
  ['hashes of lines', { shadow: 'hash', grainBytes: 64 }],
]

const state = (pair: Pair) => expect.poll(() => pair.primary?.state, { timeout: 10_000, interval: 5 })

async function expectEqualAtRest(pair: Pair): Promise<void> {
  pair.rest()
  await state(pair).toBe('Protected')
  expect(await pair.primary?.verify(), `seed ${random.seed}`).toMatchObject({ equal: true })
  expect(digestOf(pair.guest.ram) === digestOf(pair.host.waiting.image), `seed ${random.seed}`).toBe(true)
}

describe.each(kinds)('with %s', (_, sending) => {
  const start = async (options: Partial<PairOptions> = {}) => {
    const pair = await Pair.make({ random, sending, ...options })
    onTestFinished(() => pair[Symbol.asyncDispose]())
    return pair
  }
  const startProtected = async () => {
    const pair = await start()
    await pair.protect()
    await pair.epochs(3)
    return pair
  }

  test('the image is the committed checkpoint at every look, also after a connection was lost', async () => {
    // Long enough for pages to go early.
    const pair = await start({ epochMs: 10, sending: { ...sending, speculate: 'always' } })
    await pair.protect()
    let early = 0
    pair.primary?.on('epoch', (report) => (early += report.early?.pages.pageCount ?? 0))
    for (let look = 0; look < 10; look++) {
      await pair.epochs(1)
      // A large checkpoint is applied beside the event loop, a moment after it was acknowledged.
      await expect
        .poll(() => pair.imageIsCommitted(), { interval: 1, message: `look ${look}, seed ${random.seed}` })
        .toBe(true)
    }
    expect(early).toBeGreaterThan(0)
    pair.host.source = 'runs'
    pair.host.dropConnections()
    await state(pair).toBe('Connecting')
    await pair.epochs(3)
    await expectEqualAtRest(pair)
    pair.guest.end({ how: 'died', detail: 'at last' })
    expect(await pair.host.outcome).toMatchObject({ how: 'took-over' })
    expect(pair.host.waiting.whole).toBe(true)
  })

  test('an image that stood still is found equal by the next agent, page by page', async () => {
    const pair = await startProtected()
    pair.host.source = 'runs'
    await pair.primary?.detach()
    await expect.poll(() => pair.host.standby?.state).toBe('Connecting')
    pair.primary = Primary.resume({ ...pair.options, exposed: true })
    await pair.epochs(3)
    await expectEqualAtRest(pair)
  })

  test('verify names what differs in the image, and the page that the tracker missed', async () => {
    const pair = await startProtected()
    pair.rest()
    await pair.epochs(2)
    const { image } = pair.host.waiting
    const at = 7 * pageBytes + 5 * 64 + 9
    const byte = image.read(at, 1)
    image.write(at, new Uint8Array([byte[0]! ^ 1]))
    expect(await pair.primary?.verify()).toMatchObject({ difference: { page: 7, line: 5, in: 'image' } })
    image.write(at, byte)
    pair.guest.write(9 * pageBytes + 63 * 64, new Uint8Array([77, 78]), false)
    expect(await pair.primary?.verify()).toMatchObject({ equal: false, difference: { page: 9 } })
  })

  test('whatever fails, and in whatever order: nothing is forgotten', { timeout: 60_000 }, async () => {
    const mishap = fc.constantFrom('pause', 'harvest', 'broken', 'resume', 'connection', 'none')
    await fc.assert(
      fc.asyncProperty(fc.array(mishap, { minLength: 1, maxLength: 4 }), async (mishaps) => {
        const limits = { wholePages: random.integer(0, 8) }
        await using pair = await Pair.make({ random, pages: 16, epochMs: 1, sending, limits })
        pair.host.source = 'runs'
        await pair.protect()
        for (const one of mishaps) {
          await pair.epochs(1)
          failOnce(pair, one)
        }
        await pair.epochs(2)
        await expectEqualAtRest(pair)
      }),
      { numRuns: 2 },
    )
  })

  test('says what it takes', async () => {
    const pair = await startProtected()
    const { memory } = pair.primary!
    const pages = pair.guest.ram.pages
    expect(memory.shadow).toBe(typeof sending.shadow === 'object' ? 'cache' : sending.shadow)
    if (memory.shadow === 'hash')
      expect(memory.shadowBytes).toBe((pages * pageBytes * 16) / (sending.grainBytes ?? 256))
    else expect(memory.shadowBytes).toBeLessThan(16 * pageBytes + pages * 10)
    expect(memory.reducerBytes).toBeGreaterThan(2 ** 20)
  })
})

function failOnce({ guest, host }: Pair, what: string): void {
  const fails = () => {
    guest.mishaps = {}
    throw new SubpageError(what === 'pause' ? 'PAUSE_BROKEN' : 'QEMU_FAILED', 'the test says so')
  }
  if (what === 'pause') guest.mishaps.pause = fails
  else if (what === 'harvest') guest.mishaps.harvest = fails
  else if (what === 'resume') guest.mishaps.resume = fails
  else if (what === 'connection') host.dropConnections()
  else if (what === 'broken')
    guest.mishaps.resume = () => {
      guest.mishaps = {}
      return { valid: false }
    }
}

test('a grain under a codec that tells bytes apart is refused', async () => {
  const pair = await Pair.make({ random, sending: { grainBytes: 1024 } })
  onTestFinished(() => pair[Symbol.asyncDispose]())
  await expect(pair.protect()).rejects.toMatchObject({ code: 'BAD_ARGUMENT' })
})
