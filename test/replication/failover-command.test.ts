/** Failover by command: what may happen at the same moment, and what a person may decide that nobody else may. */
import { expect, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import { frameType } from '../../src/replication/frame.ts'
import type { Image } from '../../src/replication/image.ts'
import { seededRandom } from '../support/random.ts'
import { protectedPair } from './pair.ts'
import { asPrimary, delta, sendCheckpoint } from './peers.ts'
import { digestOf } from './scripted-guest.ts'
import { ScriptedArbiter, type ScriptedHost } from './scripted-host.ts'

/** Pages can be borrowed only when the gate is open. */
function gated(image: Image): { image: Image; asked: Promise<void>; open: () => void; close: () => void } {
  let gate = Promise.resolve()
  let open = () => {}
  let ask = () => {}
  const asked = new Promise<void>((resolve) => {
    ask = resolve
  })
  return {
    image: {
      ...image,
      borrow: async (pages) => {
        ask()
        await gate
        return await image.borrow(pages)
      },
    },
    asked,
    open: () => open(),
    close: () => {
      gate = new Promise((resolve) => {
        open = resolve
      })
    },
  }
}

const start = (arbiter?: ScriptedArbiter) =>
  protectedPair({ random: seededRandom(), ...(arbiter && { arbiter }) })

/** A whole checkpoint, and then a seeding frame that is being taken in. */
async function seedingAgain(): Promise<{ host: ScriptedHost; open: () => void }> {
  let gate: ReturnType<typeof gated> | undefined
  const { host, peer, reconnect } = await asPrimary((made) => {
    gate = gated(made.image)
    made.image = gate.image
  })
  await sendCheckpoint(peer, 1, [delta({ 1: 11 })])
  await peer.answer(frameType.ack)
  await expect.poll(() => host.standby?.state).toBe('Protected')
  const again = await reconnect()
  gate!.close()
  await again.connection.send(frameType.pages, 0, delta({ 1: 99 }))
  await gate!.asked
  return { host, open: gate!.open }
}

test('a seeding frame that is being taken in when the command comes does not reach the image', async () => {
  const { host, open } = await seedingAgain()
  const image = digestOf(host.waiting.image)
  const taken = host.standby!.failover('by command', true)
  open()
  expect(await taken).toMatchObject({ how: 'took-over', committed: { epoch: 1 } })
  await expect.poll(() => host.standby?.connected).toBe(false)
  expect(digestOf(host.waiting.image)).toBe(image)
})

test('one that has reached the image leaves nothing to take over', async () => {
  const { host, open } = await seedingAgain()
  open()
  await expect.poll(() => host.standby?.state).toBe('Seeding')
  await expect(host.standby!.failover('by command', true)).rejects.toMatchObject({
    code: 'STANDBY_NOT_READY',
  })
  expect(host.waiting.whole).toBeUndefined()
})

test('an image that is outdated is whole still: with --force it can be taken over, without it cannot', async () => {
  const pair = await start(new ScriptedArbiter())
  const { standby } = pair.host
  // The primary cannot come back, and goes on alone.
  pair.host.server.close()
  pair.host.source = undefined
  pair.host.dropConnections()
  await expect.poll(() => pair.primary?.alone).toBe(true)
  pair.host.source = 'gone'
  await expect.poll(() => standby?.why?.message).toMatch(/primary goes on with the guest alone/)
  expect(standby?.committed).toBeUndefined()
  await expect(standby!.failover('by command', false)).rejects.toMatchObject({
    code: 'STANDBY_NOT_READY',
    message: expect.stringMatching(/outdated.*primary goes on with the guest alone.*--force/),
  })
  expect(await standby!.failover('by command', true)).toMatchObject({ how: 'took-over' })
  expect(pair.host.waiting.whole).toBe(true)
  // Should the former primary come back, the arbiter tells it.
  expect(standby?.succession.generation).toBe(3)
  expect(await pair.options.succession.successor()).toMatchObject({ claimant: 'standby', generation: 3 })
})

test('with --force an arbiter that gives no answer does not stand in the way', async () => {
  const arbiter = new ScriptedArbiter()
  const pair = await start(arbiter)
  arbiter.reachable = false
  const { standby } = pair.host
  await expect(standby!.failover('by command', false)).rejects.toMatchObject({ code: 'ARBITER_UNREACHABLE' })
  expect(await standby!.failover('by command', true)).toMatchObject({ how: 'took-over' })
  expect(pair.host.waiting.whole).toBe(true)
  expect(standby?.succession.generation).toBe(3)
})

test('without --force the decision for the primary stands, and says so', async () => {
  const arbiter = new ScriptedArbiter()
  const pair = await start(arbiter)
  await pair.options.succession.claim()
  await expect(pair.host.standby!.failover('by command', false)).rejects.toMatchObject({
    code: 'HELD_ELSEWHERE',
    message: expect.stringMatching(/primary goes on with script \(generation 2\): give --force/),
  })
})

test('of two commands at once the second asks after the first, and its checkpoint lasts until then', async () => {
  const arbiter = new ScriptedArbiter()
  const pair = await start(arbiter)
  const { standby } = pair.host
  const asked: ((error: Error) => void)[] = []
  arbiter.claim = () => new Promise((_, reject) => asked.push(reject))
  const first = standby!.failover('first', false)
  const second = standby!.failover('second', true)
  const refused = expect(first).rejects.toMatchObject({ code: 'ARBITER_UNREACHABLE' })
  await expect.poll(() => asked.length).toBe(1)
  const noAnswer = new SubpageError('ARBITER_UNREACHABLE', 'the test says so')
  asked[0]!(noAnswer)
  await refused
  // It waits for the arbiter now, and what it is about is not given up.
  await expect.poll(() => asked.length).toBe(2)
  const third = standby!.failover('third', false)
  asked[1]!(noAnswer)
  expect(await second).toMatchObject({ how: 'took-over', reason: 'second' })
  expect(await third).toBe(await second)
})
