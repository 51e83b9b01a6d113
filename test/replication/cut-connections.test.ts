/** A connection that is cut anywhere: the image is one whole committed checkpoint, or the standby says that it has none. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { seededRandom } from '../support/random.ts'
import { dialCutting } from './cut.ts'
import { expectEqualAtRest, Pair, protectedPair } from './pair.ts'
import { digestOf } from './scripted-guest.ts'

const random = seededRandom()

/** What a whole protection of a few epochs sends; the cuts go anywhere in it, and a little beyond. */
const bytesMax = 80_000

test('after any number of bytes: a whole checkpoint or none', { timeout: 120_000 }, async () => {
  let takeovers = 0
  const cut = fc.oneof(fc.integer({ min: 1, max: bytesMax }), fc.integer({ min: 1, max: 2000 }))
  await fc.assert(
    fc.asyncProperty(cut, async (bytes) => {
      await using pair = await Pair.make({
        random,
        pages: 16,
        epochMs: 1,
        connect: (port) => dialCutting(port, bytes),
      })
      await pair.protect().catch((error) => {
        // Cut within the handshake.
        expect(error.code, error.message).toMatch(/PEER_UNREACHABLE/)
      })
      const { host, primary } = pair
      if (!primary) return
      await expect.poll(() => primary.state, { timeout: 10_000, interval: 2 }).toBe('Connecting')
      await expect.poll(() => host.standby?.connected, { interval: 2 }).toBe(false)
      const committed = host.committedIn(pair.guest.history)
      if (committed === undefined)
        await expect(host.standby?.failover('now', true)).rejects.toMatchObject({
          code: 'STANDBY_NOT_READY',
        })
      else {
        expect(digestOf(host.waiting.image), `seed ${random.seed}`).toBe(committed)
        expect(await host.standby?.failover('now', true)).toMatchObject({ how: 'took-over' })
        expect(host.waiting.whole).toBe(true)
        takeovers++
      }
    }),
    { numRuns: 60 },
  )
  expect(takeovers).toBeGreaterThan(5)
})

test('again and again, and seeded anew each time: equal at last', { timeout: 60_000 }, async () => {
  const cuts = [3_000, 50_000, 120_000, 300_000]
  const pair = await protectedPair({
    random,
    connect: (port) => dialCutting(port, cuts.shift() ?? Number.POSITIVE_INFINITY),
  }).catch(async () => await protectedPair({ random }))
  pair.host.source = 'runs'
  await expect.poll(() => cuts.length, { timeout: 30_000 }).toBe(0)
  await pair.epochs(5)
  await expectEqualAtRest(pair, random.seed)
})
