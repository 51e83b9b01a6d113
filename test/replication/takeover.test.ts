/** Taking over: from the last whole checkpoint, whatever arrives meanwhile, or not at all. */
import { expect, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { frameType } from '../../src/replication/frame.ts'
import { seededRandom } from '../support/random.ts'
import { protectedPair } from './pair.ts'
import { asPrimary, commitOf, delta, sendCheckpoint } from './peers.ts'
import { digestOf } from './scripted-guest.ts'

const random = seededRandom()

test('waits until the last checkpoint is applied, however large', async () => {
  const pair = await protectedPair({ random, pages: 4096, epochMs: 5 })
  pair.rest()
  for (let round = 0; round < 10; round++) {
    const noise = Uint8Array.from({ length: 1024 }, () => random.integer(0, 255))
    await pair.whileRunning(() => {
      for (let page = 0; page < 4096; page++) pair.guest.write(page * pageBytes + (page % 3) * 1024, noise)
    })
    await pair.epochs(1)
  }
  pair.guest.end({ how: 'died', detail: 'right after its ack' })
  expect(await pair.host.outcome).toMatchObject({ how: 'took-over' })
  expect(pair.host.waiting.whole).toBe(true)
})

test('what the primary still sends changes nothing any more', async () => {
  const pair = await protectedPair({ random })
  let open = () => {}
  pair.host.waiting.gate = new Promise((resolve) => {
    open = resolve
  })
  const taken = pair.host.standby!.failover('by command', true)
  const image = digestOf(pair.host.waiting.image)
  await expect.poll(() => pair.host.standby?.connected).toBe(false)
  expect(digestOf(pair.host.waiting.image)).toBe(image)
  open()
  expect(await taken).toMatchObject({ how: 'took-over' })
  expect(pair.host.waiting.whole).toBe(true)
  // Of two copies one must end.
  expect(await pair.guest.ended).toMatchObject({ how: 'superseded' })
})

test('a command between device state and commit: the commit comes too late', async () => {
  const { peer, host } = await asPrimary()
  await sendCheckpoint(peer, 1, [delta({ 1: 11 })])
  await peer.answer(frameType.ack)
  const next = delta({ 1: 22 })
  await peer.connection.send(frameType.pages, 2, next)
  await peer.sendDevice(2, '2')
  // The answer proves that the standby has read up to here.
  await peer.connection.send(frameType.askPage, 1)
  await peer.answer(frameType.page)
  let open = () => {}
  host.waiting.gate = new Promise((resolve) => {
    open = resolve
  })
  const taken = host.standby!.failover('by command', true)
  await peer.connection.send(frameType.commit, 2, commitOf([next]))
  await expect.poll(() => host.standby?.connected).toBe(false)
  expect(host.waiting.image.read(pageBytes, 1)[0]).toBe(11)
  open()
  expect(await taken).toMatchObject({ committed: { epoch: 1 } })
})

test('one that fails is said, ends in nothing worse, and can be discarded', async () => {
  const pair = await protectedPair({ random })
  pair.host.waiting.refuses = new SubpageError('QEMU_FAILED', 'it does not like the state')
  const { standby } = pair.host
  await expect(standby?.failover('by command', true)).rejects.toMatchObject({ code: 'QEMU_FAILED' })
  await expect(standby?.failover('again', true)).rejects.toMatchObject({ code: 'QEMU_FAILED' })
  expect([standby?.state, standby?.why?.message]).toEqual(['Failed', 'it does not like the state'])
  expect(await standby?.discard('removed')).toEqual({ how: 'discarded', reason: 'removed' })
  expect(pair.host.waiting.discarded).toBe(true)
})

test('before the first checkpoint there is nothing to take over', async () => {
  const { host } = await asPrimary()
  await expect(host.standby?.failover('now', true)).rejects.toMatchObject({ code: 'STANDBY_NOT_READY' })
  expect(host.waiting.whole).toBeUndefined()
})
