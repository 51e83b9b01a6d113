/**
 * A standby loses its machine between claiming the next generation and being granted it. It cannot go on with the guest, and
 * the primary may not, unless the generation is given back.
 */
import { afterEach, expect, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import type { Holder } from '../../src/replication/arbiter.ts'
import { seededRandom } from '../support/random.ts'
import { Pair } from './pair.ts'
import { ScriptedArbiter, successionFor } from './scripted-host.ts'

/** The standby's claims take effect at once, and are answered late; the primary's come after one of those. */
class SlowToTheStandby extends ScriptedArbiter {
  granted: () => void = () => undefined
  answer: () => void = () => undefined
  readonly #granted = new Promise<void>((resolve) => {
    this.granted = resolve
  })
  readonly #answered = new Promise<void>((resolve) => {
    this.answer = resolve
  })
  /** Until then everybody is answered at once. */
  slow = false

  get standbyHasClaimed(): Promise<void> {
    return this.#granted
  }

  override async claim(guest: string, generation: number, claimant: string): Promise<Holder> {
    if (this.slow && claimant === 'primary') await this.#granted
    const holder = await super.claim(guest, generation, claimant)
    if (!this.slow || claimant === 'primary') return holder
    this.granted()
    await this.#answered
    return holder
  }
}

const pairs: Pair[] = []
afterEach(async () => {
  for (const pair of pairs.splice(0)) await pair[Symbol.asyncDispose]()
})

test('a standby that is discarded while its claim is under way gives back what it wins', async () => {
  const arbiter = new SlowToTheStandby()
  const pair = await Pair.make({ random: seededRandom(), arbiter })
  pairs.push(pair)
  const primary = await pair.protect()
  await pair.epochs(3)
  arbiter.slow = true
  // As the standby sees it; in truth the guest lives.
  pair.host.source = 'gone'
  pair.host.dropConnections()
  await arbiter.standbyHasClaimed
  const discarded = pair.host.standby!.discard('the waiting QEMU died')
  await expect.poll(() => primary.reason).toMatch(/standby has taken it over .*may still give it back/)
  expect(pair.guest.alive).toBe(true)
  arbiter.answer()
  expect(await discarded).toMatchObject({ how: 'discarded' })
  await expect.poll(() => primary.alone, { timeout: 5_000 }).toBe(true)
  expect(pair.guest.alive).toBe(true)
  // Not the one that was given back.
  expect(pair.options.succession.generation).toBe(3)
  expect(pair.host.waiting.whole).toBe(undefined)
})

test('a standby that is granted the guest and cannot load it gives it back, and the primary goes on', async () => {
  const pair = await Pair.make({ random: seededRandom(), arbiter: new ScriptedArbiter() })
  pairs.push(pair)
  const primary = await pair.protect()
  await pair.epochs(3)
  pair.host.waiting.refuses = new SubpageError('QEMU_FAILED', 'it does not like the state')
  const standby = pair.host.standby!
  // So the standby need not wait until its promise has lapsed.
  pair.host.source = 'gone'
  await expect(standby.failover('by command', false)).rejects.toMatchObject({ code: 'QEMU_FAILED' })
  expect(standby.state).toBe('Failed')
  await expect.poll(() => primary.alone).toBe(true)
  expect(pair.guest.alive).toBe(true)
  expect(pair.options.succession.generation).toBe(3)
})

test('without an arbiter a forced failover that fails leaves the guest to its primary', async () => {
  const pair = await Pair.make({ random: seededRandom() })
  pairs.push(pair)
  const primary = await pair.protect()
  await pair.epochs(3)
  pair.host.waiting.refuses = new SubpageError('QEMU_FAILED', 'it does not like the state')
  const standby = pair.host.standby!
  await expect(standby.failover('by command', true)).rejects.toMatchObject({ code: 'QEMU_FAILED' })
  expect(standby.succession.generation).toBe(1)
  await expect.poll(() => primary.state).toBe('Connecting')
  // Refused again and again, by a standby that runs nothing.
  await expect.poll(() => pair.host.refused.length + pair.connections).toBeGreaterThan(3)
  expect(pair.guest.alive).toBe(true)
})

test('a standby whose memory cannot come to rest gives back, too', async () => {
  const pair = await Pair.make({ random: seededRandom(), arbiter: new ScriptedArbiter() })
  pairs.push(pair)
  pair.host.image = {
    ...pair.host.image,
    rest: () => Promise.reject(new SubpageError('KEEPER_FAILED', 'the keeper is gone')),
  }
  const primary = await pair.protect()
  await pair.epochs(3)
  await expect(pair.host.standby!.failover('by command', false)).rejects.toMatchObject({
    code: 'KEEPER_FAILED',
  })
  await expect.poll(() => primary.alone).toBe(true)
  expect(pair.guest.alive).toBe(true)
})

test('what an agent has left of a standby is given back by the next; what a guest runs in is not', async () => {
  const arbiter = new ScriptedArbiter()
  const primary = successionFor('primary', arbiter)
  await primary.anchor()
  expect(await successionFor('standby', arbiter).claim()).toBe(undefined)
  expect(await primary.claim()).toMatchObject({ claimant: 'standby', generation: 2 })
  // The agent was killed before it had written down what it won.
  await successionFor('standby', arbiter).giveBackLeft()
  const other = successionFor('standby', arbiter)
  expect(await other.claim()).toBe(undefined)
  expect(other.generation).toBe(3)
  other.use()
  await other.giveBack()
  expect(await primary.claim()).toMatchObject({ claimant: 'standby', generation: 3 })
  expect(await primary.successor()).toMatchObject({ claimant: 'standby', generation: 3 })
})
