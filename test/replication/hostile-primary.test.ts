/**
 * Primaries that break the protocol, on purpose or by damage, with frames that are correct in themselves: each gets one clear
 * error, its connection is closed, and image, host and guest stay as they were.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { limits } from '../../src/limits.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { frameType } from '../../src/replication/frame.ts'
import { encodeCommit } from '../../src/replication/messages.ts'
import { arrayBufferBytes } from '../support/collected.ts'
import { helloFor } from './pair.ts'
import { asPrimary, commitOf, delta, type Peer, pages, sendCheckpoint } from './peers.ts'
import { digestOf } from './scripted-guest.ts'

describe('a hostile primary', () => {
  const whole = delta({ 3: 33 })
  const beyond = delta({ [pages]: 1 }, pages + 1)
  const flipped = Buffer.from(whole)
  flipped[0]! ^= 0xff

  /** What it does after one honest checkpoint, and what it is told. */
  const attacks: [what: string, attack: (peer: Peer) => Promise<unknown>, message: RegExp][] = [
    ['repeats an epoch', (p) => sendCheckpoint(p, 5, [whole]), /sends epoch 5 again/],
    ['goes back in time', (p) => sendCheckpoint(p, 4, [whole]), /sends epoch 4 again/],
    ['commits epoch 0', (p) => p.connection.send(frameType.commit, 0, commitOf([])), /sends epoch 0 again/],
    ['sends noise for a delta', (p) => p.connection.send(frameType.pages, 6, Buffer.alloc(99, 7)), /refused/],
    ['sends an empty delta', (p) => p.connection.send(frameType.pages, 6), /refused/],
    ['sends a damaged delta', (p) => p.connection.send(frameType.pages, 6, flipped), /refused/],
    ['names a page outside the image', (p) => p.connection.send(frameType.pages, 6, beyond), /refused/],
    [
      'mixes two epochs',
      async (p) => {
        await p.connection.send(frameType.pages, 6, whole)
        await p.connection.send(frameType.pages, 7, whole)
      },
      /epoch 7 in the middle of epoch 6/,
    ],
    [
      'commits without a device state',
      async (p) => {
        await p.connection.send(frameType.pages, 6, whole)
        await p.connection.send(frameType.commit, 6, commitOf([whole]))
      },
      /no device state/,
    ],
    [
      'sends two device states',
      async (p) => {
        await p.sendDevice(6, 'a')
        await p.sendDevice(6, 'b')
      },
      /two device states/,
    ],
    [
      'uses the device state of another epoch',
      async (p) => {
        await p.sendDevice(6, 'a')
        await p.connection.send(frameType.commit, 7, commitOf([]))
      },
      /epoch 7 in the middle of epoch 6/,
    ],
    ...(
      [
        [0, whole.length],
        [2, whole.length],
        [1, whole.length - 1],
        [1, 0],
      ] as const
    ).map(([deltas, deltaBytes]): [string, (peer: Peer) => Promise<unknown>, RegExp] => [
      `counts ${deltas} deltas of ${deltaBytes} bytes where there is 1 of ${whole.length}`,
      async (p) => {
        await p.connection.send(frameType.pages, 6, whole)
        await p.sendDevice(6, 'state')
        const commit = encodeCommit({
          deltas,
          deltaBytes,
          consoleBytes: 0,
          digest: 0n,
          diskFrames: 0,
          suspended: false,
        })
        await p.connection.send(frameType.commit, 6, commit)
      },
      /not whole/,
    ]),
    ['commits in half a frame', (p) => p.connection.send(frameType.commit, 6, Buffer.alloc(12)), /12 bytes/],
    ['asks for a page outside', (p) => p.connection.send(frameType.askPage, pages), /asks for page 64/],
    ['says hello again', (p) => p.connection.sendJson(frameType.hello, helloFor({ pages })), /type 1/],
    ['hands over what is not committed', (p) => p.connection.send(frameType.handover, 6), /not committed/],
    ['hands over with nobody to decide', (p) => p.connection.send(frameType.handover, 5), /no arbiter/],
    ['says that it took over', (p) => p.connection.send(frameType.tookOver, 5), /type 16/],
    ['acknowledges itself', (p) => p.connection.send(frameType.ack, 6), /type 7/],
    ['answers unasked', (p) => p.connection.send(frameType.hashes, 0, Buffer.alloc(16)), /type 11/],
    [
      'ends in a way of its own',
      (p) => p.connection.sendJson(frameType.guestEnded, { how: 'x' }),
      /wrong form/,
    ],
    [
      'floods with deltas beyond the size of the guest',
      async (p) => {
        const large = delta(Object.fromEntries(Array.from({ length: pages }, (_, page) => [page, page + 1])))
        const most = pages * pageBytes + limits.checkpointOverheadBytes.value
        // Beside what is taken: what is on its way in sockets.
        for (let sent = 0; sent < most + 2 ** 26; sent += large.length)
          await p.connection.send(frameType.pages, 6, large)
      },
      /larger than the guest/,
    ],
    [
      'floods with tiny deltas',
      async (p) => {
        const tiny = delta({})
        for (;;)
          await Promise.all(Array.from({ length: 1000 }, () => p.connection.send(frameType.pages, 6, tiny)))
      },
      /larger than the guest/,
    ],
  ]

  test.each(attacks)('%s', { timeout: 240_000 }, async (_, attack, message) => {
    const { host, peer, reconnect } = await asPrimary()
    await peer.connection.send(frameType.pages, 0, delta({ 1: 1, 2: 2 }))
    await sendCheckpoint(peer, 5, [delta({ 2: 22 })])
    await peer.answer(frameType.ack)
    const image = digestOf(host.waiting.image)
    const before = await arrayBufferBytes()

    // A flood ends when the other side has closed.
    const attacking = attack(peer).catch(() => undefined)
    expect((await peer.refusal()).message).toMatch(message)
    await Promise.all([peer.ended, attacking])

    expect((await arrayBufferBytes()) - before).toBeLessThan(200 * 2 ** 20)
    expect(digestOf(host.waiting.image) === image).toBe(true)
    expect(host.standby?.committed).toEqual({ epoch: 5, consoleBytes: 0 })
    await expect.poll(() => host.standby?.state).toBe('Connecting')
    expect(host.standby?.why?.message).toMatch(message)
    expect(host.waiting.discarded).toBe(false)

    // An honest primary finds all in order.
    const honest = await reconnect()
    await honest.connection.send(frameType.pages, 0, delta({ 4: 4 }))
    await sendCheckpoint(honest, 6, [delta({ 5: 5 })])
    await honest.answer(frameType.ack)
    expect([1, 2, 4, 5].map((page) => host.waiting.image.read(page * pageBytes, 1)[0])).toEqual([1, 22, 4, 5])
  })

  test('one that seeds again takes its checkpoint away, and what it had sent for the next one', async () => {
    const { host, peer } = await asPrimary()
    const at = (page: number) => host.waiting.image.read(page * pageBytes, 1)[0]
    await peer.connection.send(frameType.pages, 0, delta({ 1: 1 }))
    await sendCheckpoint(peer, 5, [delta({ 2: 22 })])
    await peer.answer(frameType.ack)
    await peer.connection.send(frameType.pages, 6, delta({ 2: 66 }))
    await peer.connection.send(frameType.pages, 0, delta({ 3: 33 }))
    await expect.poll(() => host.standby?.committed).toBeUndefined()
    expect(host.standby?.state).toBe('Seeding')
    await expect(host.standby?.failover('now', true)).rejects.toMatchObject({ code: 'STANDBY_NOT_READY' })
    await sendCheckpoint(peer, 6, [delta({ 4: 44 })])
    await peer.answer(frameType.ack)
    expect(host.standby?.committed).toMatchObject({ epoch: 6 })
    expect([1, 2, 3, 4].map(at)).toEqual([1, 22, 33, 44])

    await peer.connection.send(frameType.pages, 7, delta({ 2: 77 }))
    await peer.connection.send(frameType.pages, 0, delta({ 3: 34 }))
    await peer.sendDevice(7, 'state')
    await peer.connection.send(frameType.commit, 7, commitOf([delta({ 2: 77 })]))
    expect((await peer.refusal()).message).toMatch(/not whole/)
    expect(host.standby?.committed).toBeUndefined()
    expect([2, 3].map(at)).toEqual([22, 34])
  })

  test('half a checkpoint of a lost connection is not mixed into the next one', async () => {
    const { host, peer, reconnect } = await asPrimary()
    await peer.connection.send(frameType.pages, 0, delta({ 1: 1 }))
    await peer.connection.send(frameType.pages, 1, delta({ 1: 99 }))
    await peer.sendDevice(1, 'old')
    await peer.connection.finish()
    await expect.poll(() => host.standby?.connected).toBe(false)
    const next = await reconnect()
    await next.connection.send(frameType.commit, 1, commitOf([]))
    expect((await next.refusal()).message).toMatch(/no device state/)
    expect(host.waiting.image.read(pageBytes, 1)[0]).toBe(1)
    expect(host.standby?.committed).toBeUndefined()
  })

  test('one that reads nothing is not served beyond what it takes', async () => {
    const { host, peer } = await asPrimary()
    peer.socket.pause()
    const before = await arrayBufferBytes()
    const asked = 200_000
    let handedOver = 0
    for (let n = 0; n < asked; n++)
      peer.connection.send(frameType.askPage, 1).then(
        () => handedOver++,
        () => 'closed at the end of the test',
      )
    // Until nothing moves any more.
    await expect
      .poll(async () => {
        const before = handedOver
        await delay(50)
        return handedOver === before
      })
      .toBe(true)
    expect(handedOver).toBeLessThan(asked)
    expect((await arrayBufferBytes()) - before).toBeLessThan(64 * 2 ** 20)
    expect(host.standby?.connected).toBe(true)
  })
})
