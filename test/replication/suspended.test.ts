/** A guest that somebody has stopped stands still where it is taken over, as of the last checkpoint. */
import { expect, test } from 'vitest'
import { seededRandom } from '../support/random.ts'
import { protectedPair } from './pair.ts'

test.each([true, false])('the takeover is told: %s', async (suspended) => {
  const pair = await protectedPair({ random: seededRandom() })
  pair.guest.suspended = !suspended
  await pair.epochs(2)
  pair.guest.suspended = suspended
  await pair.epochs(2)
  pair.guest.end({ how: 'died', detail: 'killed' })
  await expect.poll(() => pair.host.waiting.suspended, { timeout: 10_000 }).toBe(suspended)
})
