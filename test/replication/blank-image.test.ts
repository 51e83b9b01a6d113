/** Memory that nobody has ever written is not seeded into an image that is zeros: it is left out, and protected all the same. */
import { describe, expect, test, vi } from 'vitest'
import { pageBytes } from '../../src/memory/page.ts'
import type { Sending } from '../../src/replication/sending.ts'
import { seededRandom } from '../support/random.ts'
import { watchCaptures } from './captures.ts'
import { Pair } from './pair.ts'
import { digestOf } from './scripted-guest.ts'

const random = seededRandom()
const pages = 512
const shadows: [string, Sending][] = [
  ['a full shadow', {}],
  ['a cache', { shadow: { cacheBytes: 32 * pageBytes } }],
  ['hashes', { shadow: 'hash' }],
]

async function made(sending: Sending, prepare: (pair: Pair) => void): Promise<[Pair, seeded: number]> {
  const pair = await Pair.make({ random, pages, sending, limits: { wholePages: 16 } })
  // Of every eighth page nothing was ever written but zeros.
  for (let page = 0; page < pages / 2; page += 8)
    pair.guest.write(page * pageBytes + 100, Buffer.of(random.integer(1, 255)))
  prepare(pair)
  // Whole, before the first checkpoint.
  const seeded = watchCaptures((whole) => whole && !pair.guest.paused)
  await pair.protect()
  await expect.poll(() => pair.primary?.state, { timeout: 10_000, interval: 5 }).toBe('Protected')
  return [pair, seeded.pages]
}

async function holds(pair: Pair): Promise<void> {
  // Where nothing was before, too.
  for (const page of [1, pages / 2 + 3, pages - 1])
    await vi.waitUntil(() => {
      if (pair.guest.paused) return false
      pair.guest.write(page * pageBytes + 8, Buffer.of(1, 2, 3))
      return true
    })
  await pair.epochs(2)
  pair.rest()
  expect(await pair.primary?.verify(), `seed ${random.seed}`).toMatchObject({ equal: true })
  pair.guest.end({ how: 'died', detail: 'at last' })
  expect(await pair.host.outcome).toMatchObject({ how: 'took-over' })
  expect(pair.host.waiting.whole).toBe(true)
  expect(digestOf(pair.guest.ram) === digestOf(pair.host.waiting.image)).toBe(true)
}

describe.each(shadows)('with %s', (_, sending) => {
  test('a blank image gets what was written', async () => {
    const [pair, seeded] = await made(sending, () => undefined)
    await using _end = pair
    expect(seeded).toBeGreaterThanOrEqual(pages / 16)
    // The guest works meanwhile.
    expect(seeded).toBeLessThan(pages / 2)
    await holds(pair)
  })

  test('one that holds anything gets everything', async () => {
    const [pair, seeded] = await made(sending, ({ host }) => {
      host.waiting.blank = false
      host.waiting.image.write(7 * pageBytes, Buffer.from('of another machine'))
    })
    await using _end = pair
    expect(seeded).toBeGreaterThanOrEqual(pages)
    await holds(pair)
  })
})
