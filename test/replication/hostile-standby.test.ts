/**
 * Standbys that break the protocol, on purpose or by damage, with frames that are correct in themselves: each gets one clear
 * error, its connection is closed, and the guest stays as it was.
 */
import { describe, expect, test } from 'vitest'
import { pageBytes } from '../../src/memory/page.ts'
import { type FrameType, frameType, payloadBytesMax } from '../../src/replication/frame.ts'
import { seededRandom } from '../support/random.ts'
import { acknowledge, asStandby, type Peer, pages, welcome } from './peers.ts'

const random = seededRandom()
const nothing = Buffer.alloc(0)

describe('a hostile standby', () => {
  const refusal = { code: 'NO_SPACE', message: 'full' }
  const handshakes: [what: string, play: (peer: Peer) => Promise<unknown>, code: string, message: RegExp][] =
    [
      ['hangs up', async (p) => p.socket.end(), 'PEER_UNREACHABLE', /without an answer/],
      [
        'speaks another protocol',
        async (p) => p.socket.write(Buffer.alloc(64, 'x')),
        'FRAME_MALFORMED',
        /SPG2/,
      ],
      [
        'acknowledges at once',
        (p) => p.connection.send(frameType.ack, 1),
        'FRAME_MALFORMED',
        /expected a welcome/,
      ],
      ['has a smaller image', (p) => welcome(p, pages - 1), 'PEER_MISMATCH', /another size/],
      [
        'welcomes in no known form',
        (p) => p.connection.sendJson(frameType.welcome, {}),
        'FRAME_MALFORMED',
        /welcome/,
      ],
      [
        'refuses',
        (p) => p.connection.sendJson(frameType.refuse, refusal),
        'NO_SPACE',
        /the other host: full/,
      ],
      ...['constructor', '__proto__', 'toString', 'NO_SUCH_CODE', ''].map(
        (code): [string, (peer: Peer) => Promise<unknown>, string, RegExp] => [
          `refuses with the code "${code}"`,
          (p) => p.connection.sendJson(frameType.refuse, { code, message: 'odd' }),
          'PEER_UNREACHABLE',
          /the other host: odd/,
        ],
      ),
      [
        'tells it to come again, for ever',
        (p) => p.connection.send(frameType.again),
        'PEER_UNREACHABLE',
        /one process after the other/,
      ],
      [
        'refuses in no known form',
        (p) => p.connection.sendJson(frameType.refuse, { code: 1 }),
        'FRAME_MALFORMED',
        /refusal/,
      ],
    ]
  test.each(handshakes)('%s', async (_, play, code, message) => {
    const { guest, protect } = await asStandby(random, async (peer) => void (await play(peer)))
    const error = await protect().catch((thrown) => thrown)
    expect(error).toMatchObject({ code, message: expect.stringMatching(message) })
    // What status and API would make of it.
    expect([error.exit, error.http].every(Number.isInteger)).toBe(true)
    expect([guest.history.size, guest.paused]).toEqual([0, false])
  })

  const answers: [what: string, type: FrameType, epoch: number, payload: Uint8Array, message: RegExp][] = [
    [
      'acknowledges what was never sent',
      frameType.ack,
      1_000_000,
      nothing,
      /acknowledges checkpoint 1000000/,
    ],
    ['acknowledges twice', frameType.ack, 2, nothing, /acknowledges checkpoint 2, which/],
    ['sends hashes unasked', frameType.hashes, 0, Buffer.alloc(16), /which nobody asked for/],
    ['sends a page unasked', frameType.page, 1, Buffer.alloc(4096), /which nobody asked for/],
    ['sends deltas', frameType.pages, 1, nothing, /does not send frame type 4/],
    ['welcomes again', frameType.welcome, 0, nothing, /does not send frame type 2/],
    ['took over unasked', frameType.tookOver, 1, nothing, /does not send frame type 16/],
    ['ends our guest', frameType.guestEnded, 0, nothing, /does not send frame type 8/],
    ['refuses late', frameType.refuse, 0, Buffer.from(JSON.stringify(refusal)), /the other host: full/],
  ]
  test.each(answers)('%s', async (_, type, epoch, payload, message) => {
    const { guest, protect, connections } = await asStandby(random, async (peer) => {
      await welcome(peer)
      await acknowledge(peer, 3)
      await peer.connection.send(type, epoch, payload)
    })
    const primary = await protect()
    const reasons: string[] = []
    primary.on('state', (state, reason) => state === 'Connecting' && reasons.push(reason))
    await expect.poll(() => reasons.length, { interval: 2 }).toBe(1)
    expect(reasons[0]).toMatch(message)
    expect(guest.paused).toBe(false)
    guest.work()
    // It tries again, as after any lost connection.
    await expect.poll(connections).toBe(2)
  })

  const hashBytes = pages * 16
  const lies: [what: string, parts: number[], message: RegExp][] = [
    ['too many hashes', [hashBytes + 16], /answers with 1040 bytes, 1024 were asked for/],
    ['too many hashes in the end', [hashBytes - 16, 32], /answers with 1040 bytes/],
    ['empty answers', [0], /answers with 0 bytes/],
    ['far too many', [payloadBytesMax], /answers with 4194304 bytes/],
  ]
  test.each(lies)('verify: %s', async (_, parts, message) => {
    const { guest, protect } = await asStandby(random, async (peer) => {
      await welcome(peer)
      await answering(peer, async () => {
        for (const bytes of parts) await peer.connection.send(frameType.hashes, 0, Buffer.alloc(bytes))
      })
    })
    const primary = await protect()
    await expect(primary.verify()).rejects.toMatchObject({
      code: 'FRAME_MALFORMED',
      message: expect.stringMatching(message),
    })
    expect(guest.paused).toBe(false)
  })

  test('verify: a page of another size, and a page for a hash', async () => {
    for (const [type, bytes] of [
      [frameType.page, pageBytes + 1],
      [frameType.hashes, 16],
    ] as const) {
      const { protect } = await asStandby(random, async (peer) => {
        await welcome(peer)
        await answering(peer, async (asked) => {
          if (asked === frameType.askHashes)
            await peer.connection.send(frameType.hashes, 0, Buffer.alloc(hashBytes))
          else await peer.connection.send(type, 0, Buffer.alloc(bytes))
        })
      })
      const primary = await protect()
      await expect(primary.verify()).rejects.toMatchObject({ code: 'FRAME_MALFORMED' })
    }
  })

  test('verify: whoever gives up on one that answers nothing waits for it no longer', async () => {
    let asked = 0
    let letAnswer: () => void = () => undefined
    const late = new Promise<void>((resolve) => {
      letAnswer = resolve
    })
    const { guest, protect } = await asStandby(random, async (peer) => {
      await welcome(peer)
      await answering(peer, async (type) => {
        asked++
        await late
        const [reply, bytes] =
          type === frameType.askHashes ? [frameType.hashes, hashBytes] : [frameType.page, pageBytes]
        await peer.connection.send(reply, 0, Buffer.alloc(bytes))
      })
    })
    const primary = await protect()
    const verified = primary.verify()
    await expect.poll(() => asked).toBe(1)
    expect(primary.operations.current(undefined)).toMatchObject({ kind: 'verify', cancellable: true })
    primary.operations.cancel('verify')
    await expect(verified).rejects.toMatchObject({ code: 'CANCELLED' })
    expect(primary.operations.current(undefined)).toBeUndefined()
    expect(guest.paused).toBe(false)
    // Nobody is told what it says later.
    const { checkpoints } = primary.stats.summary(0)
    letAnswer()
    await expect.poll(() => primary.stats.summary(0).checkpoints).toBeGreaterThan(checkpoints)
    expect(primary.operations.verified).toBeUndefined()
  })

  /** Acknowledges as it should, and leaves questions to `reply`. */
  async function answering(peer: Peer, reply: (asked: FrameType) => Promise<void>): Promise<void> {
    for (;;) {
      const { type, epoch } = await peer.next()
      if (type === frameType.commit) await peer.connection.send(frameType.ack, epoch)
      if (type === frameType.askHashes || type === frameType.askPage) await reply(type)
    }
  }
})
