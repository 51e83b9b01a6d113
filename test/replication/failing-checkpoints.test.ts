/** Whatever step of a checkpoint fails, no page is forgotten, and the standby has the last whole checkpoint. */
import { expect, onTestFinished, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import { seededRandom } from '../support/random.ts'
import { expectEqualAtRest, type Pair, protectedPair, stateOf } from './pair.ts'

const random = seededRandom()

const broken = () => new SubpageError('PAUSE_BROKEN', 'the guard was faster')
const other = () => new SubpageError('QEMU_FAILED', 'no room for the device state')
/** Each fails now and then, from here on. */
const mishaps: [what: string, provoke: (pair: Pair, now: () => boolean) => void][] = [
  ['the pause is refused', ({ guest }, now) => (guest.mishaps.pause = () => fail(now, broken))],
  ['the pause throws', ({ guest }, now) => (guest.mishaps.pause = () => fail(now, other))],
  ['the tracker throws', ({ guest }, now) => (guest.mishaps.harvest = () => fail(now, other))],
  ['the pause was broken', ({ guest }, now) => (guest.mishaps.resume = () => ({ valid: !now() }))],
  [
    'the device state is lost',
    ({ guest }, now) =>
      (guest.mishaps.resume = () => {
        fail(now, other)
        return { valid: true }
      }),
  ],
  [
    'the connection breaks',
    ({ host }, now) => {
      const breaking = setInterval(() => now() && host.dropConnections(), 20)
      onTestFinished(() => clearInterval(breaking))
    },
  ],
]

function fail(now: () => boolean, error: () => Error): void {
  if (now()) throw error()
}

test.each(mishaps)('%s: nothing is forgotten', async (_, provoke) => {
  const pair = await protectedPair({ random })
  pair.host.source = 'runs'
  let left = 4
  let failures = 0
  provoke(pair, () => {
    const now = left > 0 && random.integer(0, 2) === 0
    if (now) {
      left--
      failures++
    }
    return now
  })
  await expect.poll(() => left, { timeout: 20_000 }).toBe(0)
  expect(failures).toBe(4)
  expect(pair.guest.paused).toBe(false)
  await pair.epochs(2)
  await expectEqualAtRest(pair, random.seed)
  pair.guest.end({ how: 'died', detail: 'at last' })
  expect(await pair.host.outcome).toMatchObject({ how: 'took-over' })
  expect(pair.host.waiting.whole, `seed ${random.seed}`).toBe(true)
})

test('pauses that break again and again show in the state', async () => {
  const pair = await protectedPair({ random })
  pair.guest.mishaps.resume = () => ({ valid: false })
  await stateOf(pair).toBe('Lagging')
  expect(pair.primary?.reason).toMatch(/took too long/)
  pair.guest.mishaps = {}
  await stateOf(pair).toBe('Protected')
  expect(pair.primary?.reason).toBe('')
  expect(pair.primary?.stats.summary(0).failed).toBeGreaterThan(0)
})
