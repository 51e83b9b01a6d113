/**
 * Primary and standby as they are, over real sockets, with a guest whose processor is a script (scripted-guest.ts): the course of a
 * protection, and everything that can fail in it. After each mishap the image is one whole committed checkpoint, or the
 * standby says that it has none; and no page is forgotten.
 */
import { once } from 'node:events'
import fc from 'fast-check'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { type Clock, realClock } from '../../src/replication/clock.ts'
import { absenceMs } from '../../src/replication/farewell.ts'
import { frameType } from '../../src/replication/frame.ts'
import { Primary } from '../../src/replication/primary.ts'
import { seededRandom } from '../support/random.ts'
import { dialCutting } from './cut.ts'
import { Pair, type PairOptions, protectedPair, startPair, WarpedClock } from './pair.ts'
import { acknowledge, asPrimary, asStandby, commitOf, delta, sendCheckpoint, welcome } from './peers.ts'
import { digestOf } from './scripted-guest.ts'
import { ScriptedArbiter } from './scripted-host.ts'

const random = seededRandom()

const start = (options: Partial<PairOptions> = {}) => startPair({ random, ...options })
const startProtected = (options: Partial<PairOptions> = {}) => protectedPair({ random, ...options })

const state = (pair: Pair) => expect.poll(() => pair.primary?.state, { timeout: 10_000, interval: 5 })

/** Waits until guest and image are equal, with nobody writing. */
async function expectEqualAtRest(pair: Pair): Promise<void> {
  pair.rest()
  await state(pair).toBe('Protected')
  expect(await pair.primary?.verify(), `seed ${random.seed}`).toMatchObject({ equal: true })
  expect(digestOf(pair.guest.ram) === digestOf(pair.host.waiting.image), `seed ${random.seed}`).toBe(true)
}

describe('the course of a protection', () => {
  test('seeds, commits, and the image is the committed checkpoint at every look', async () => {
    const pair = await startProtected()
    for (let look = 0; look < 100; look++) {
      await pair.epochs(1)
      // A large checkpoint is applied beside the event loop, a moment after it was acknowledged.
      await expect
        .poll(() => pair.imageIsCommitted(), { interval: 1, message: `look ${look}, seed ${random.seed}` })
        .toBe(true)
    }
    await expectEqualAtRest(pair)
    expect(pair.host.states.slice(0, 1)).toEqual(['Protected'])
    expect(pair.primary?.stats.summary(0)).toMatchObject({ failed: 0 })
  })

  test('verify names the page and the line that differ, and which copy', async () => {
    const pair = await startProtected()
    pair.rest()
    await pair.epochs(2)
    const { image } = pair.host.waiting
    const at = 7 * pageBytes + 5 * 64 + 9
    const byte = image.read(at, 1)
    image.write(at, new Uint8Array([byte[0]! ^ 1]))
    expect(await pair.primary?.verify()).toMatchObject({
      equal: false,
      difference: { page: 7, line: 5, in: 'image' },
    })
    image.write(at, byte)
    pair.guest.write(9 * pageBytes + 63 * 64, new Uint8Array([77, 78]), false)
    expect(await pair.primary?.verify()).toMatchObject({
      equal: false,
      difference: { page: 9, line: 63, in: 'shadow' },
    })
  })

  test('several verifications at once, and one that the end of the protection overtakes', async () => {
    const pair = await startProtected()
    const answers = await Promise.all([1, 2, 3].map(() => pair.primary?.verify()))
    expect(answers.map((answer) => answer?.equal)).toEqual([true, true, true])
    const overtaken = pair.primary?.verify()
    const stopped = pair.primary?.stop()
    const outcome = await overtaken?.catch((error) => error.code)
    expect(['NOT_PROTECTED', true]).toContain(typeof outcome === 'string' ? outcome : outcome?.equal)
    await stopped
    await expect(pair.primary?.verify()).rejects.toMatchObject({ code: 'NOT_PROTECTED' })
  })

  test('unprotect needs no arbiter while the standby is there to give its checkpoint up', async () => {
    const arbiter = new ScriptedArbiter()
    const pair = await startProtected({ arbiter })
    arbiter.reachable = false
    await pair.primary!.stop()
    expect(await pair.host.outcome).toMatchObject({ how: 'discarded' })
    expect(pair.guest.alive).toBe(true)
    expect(pair.options.succession.generation).toBe(1)
  })

  test('unprotect of a guest that has died leaves it to its standby, and says so', async () => {
    const pair = await startProtected({ arbiter: new ScriptedArbiter() })
    pair.guest.end({ how: 'died', detail: 'killed' })
    await expect(pair.primary!.stop()).rejects.toMatchObject({ code: 'GUEST_DIED' })
    expect(await pair.host.outcome).toMatchObject({ how: 'took-over' })
  })

  test('unprotect with a standby of an older release, which closes the connection without an answer', async () => {
    const { guest, protect } = await asStandby(random, async (peer) => {
      await welcome(peer)
      void acknowledge(peer).catch(() => undefined) // It ends with the connection.
      await peer.heard(frameType.unprotect)
      peer.connection.close()
    })
    const primary = await protect()
    await once(primary, 'epoch')
    // Nor does it say its name.
    expect(primary.peerHost).toBeUndefined()
    await primary.stop()
    expect(guest).toMatchObject({ alive: true, paused: false })
  })

  test('unprotect: the copy is discarded, the guest runs on', async () => {
    const pair = await startProtected()
    expect(pair.primary?.peerHost).toBe('beta')
    await pair.primary?.stop()
    expect(await pair.host.outcome).toMatchObject({ how: 'discarded' })
    expect(pair.host.waiting.discarded).toBe(true)
    expect(pair.guest.paused).toBe(false)
  })

  test('detach: the standby keeps its copy for the next agent', async () => {
    const pair = await startProtected()
    pair.host.source = 'runs'
    await pair.primary?.detach()
    await expect.poll(() => pair.host.standby?.state).toBe('Connecting')
    expect(pair.guest.paused).toBe(false)
    expect(pair.host.waiting.discarded).toBe(false)
    expect(pair.imageIsCommitted()).toBe(true)
    pair.primary = Primary.resume({ ...pair.options, exposed: true })
    await pair.epochs(3)
    await expectEqualAtRest(pair)
  })

  test('a lost connection is found again, and what differs is sent', async () => {
    const pair = await startProtected()
    pair.host.source = 'runs'
    pair.host.dropConnections()
    await state(pair).toBe('Connecting')
    await pair.epochs(3)
    await expectEqualAtRest(pair)
  })

  test('a primary that comes while its standby is thrown away is not told that it has lost', async () => {
    const pair = await startProtected()
    let open = () => {}
    pair.host.waiting.gate = new Promise((resolve) => {
      open = resolve
    })
    const connected = once(pair.host.server, 'connection')
    void pair.host.standby?.discard('its image is damaged')
    pair.host.dropConnections()
    await connected
    const again = once(pair.host.server, 'connection')
    open()
    expect(await pair.host.outcome).toMatchObject({ how: 'discarded' })
    await again
    expect(pair.guest.alive).toBe(true)
  })

  test('without its primary a standby says what it knows', async () => {
    const arbiter = new ScriptedArbiter()
    const pair = await startProtected({ arbiter })
    arbiter.reachable = false
    await pair.primary?.detach()
    arbiter.reachable = true
    await expect.poll(() => pair.host.standby?.why?.message).toMatch(/waiting for the primary/)
    pair.host.source = 'runs'
    await expect.poll(() => pair.host.standby?.why?.message).toMatch(/still runs there/)
    pair.host.source = 'gone'
    expect(await pair.host.outcome).toMatchObject({ how: 'took-over' })
    expect(pair.host.waiting.whole).toBe(true)
  })

  test('a primary whose supervisor is stopped holds back, and its standby keeps the checkpoint', async () => {
    const pair = await startProtected({ arbiter: new ScriptedArbiter() })
    pair.host.source = 'runs'
    const freed = vi.spyOn(pair.guest, 'freeOutputs')
    await pair.primary?.detach()
    await expect
      .poll(() => pair.host.standby?.why?.message)
      .toMatch(/supervisor was stopped; the guest still runs there/)
    expect(freed).not.toHaveBeenCalled()
    expect(pair.guest.paused).toBe(false)
    expect(pair.options.succession.generation).toBe(1)
    expect(pair.host.standby?.committed).toBeDefined()
    pair.host.source = 'gone'
    expect(await pair.host.outcome).toMatchObject({ how: 'took-over' })
    expect(pair.host.waiting.whole).toBe(true)
  })

  test('from another host it is waited for longer than one that is silent, and not for ever', async () => {
    const clock = new WarpedClock()
    const pair = await startProtected({ arbiter: new ScriptedArbiter(), suspicionMs: 1_000, clock })
    await pair.primary?.detach()
    await expect
      .poll(() => pair.host.standby?.why?.message)
      .toMatch(/supervisor was stopped; waiting for the primary/)
    clock.pass(absenceMs - 500)
    await new Promise((resolve) => setTimeout(resolve, 150))
    expect(pair.host.standby?.ending).toBe(false)
    clock.pass(1_000)
    expect(await pair.host.outcome).toMatchObject({ how: 'took-over', reason: 'the primary is silent' })
  })

  test('a primary whose supervisor is stopped without an arbiter goes on alone', async () => {
    const pair = await startProtected()
    pair.host.source = 'runs'
    const freed = vi.spyOn(pair.guest, 'freeOutputs')
    await pair.primary?.detach()
    expect(freed).toHaveBeenCalled()
  })

  test('nobody there: one error, and the guest is left alone', async () => {
    const pair = await start()
    pair.host.server.close()
    await once(pair.host.server, 'close')
    await expect(pair.protect()).rejects.toThrow(/ECONNREFUSED/)
    expect(pair.guest.history.size).toBe(0)
  })
})

describe('a checkpoint that fails', () => {
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
    const pair = await startProtected()
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
    await expectEqualAtRest(pair)
    pair.guest.end({ how: 'died', detail: 'at last' })
    expect(await pair.host.outcome).toMatchObject({ how: 'took-over' })
    expect(pair.host.waiting.whole, `seed ${random.seed}`).toBe(true)
  })

  test('pauses that break again and again show in the state', async () => {
    const pair = await startProtected()
    pair.guest.mishaps.resume = () => ({ valid: false })
    await state(pair).toBe('Lagging')
    expect(pair.primary?.reason).toMatch(/took too long/)
    pair.guest.mishaps = {}
    await state(pair).toBe('Protected')
    expect(pair.primary?.reason).toBe('')
    expect(pair.primary?.stats.summary(0).failed).toBeGreaterThan(0)
  })
})

describe('the takeover', () => {
  test('waits until the last checkpoint is applied, however large', async () => {
    const pair = await startProtected({ pages: 4096, epochMs: 5 })
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
    const pair = await startProtected()
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
    const pair = await startProtected()
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
})

describe('a connection that is cut', () => {
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
    const pair = await startProtected({
      connect: (port) => dialCutting(port, cuts.shift() ?? Number.POSITIVE_INFINITY),
    }).catch(async () => await startProtected())
    pair.host.source = 'runs'
    await expect.poll(() => cuts.length, { timeout: 30_000 }).toBe(0)
    await pair.epochs(5)
    await expectEqualAtRest(pair)
  })
})

test('a standby whose disk is slow says welcome first, and is not silent meanwhile', async () => {
  let ticks = 0
  const clock: Clock = {
    ...realClock,
    after: (ms, run) =>
      realClock.after(ms, () => {
        ticks++
        run()
      }),
  }
  const pair = await start({ clock, suspicionMs: 500 })
  pair.host.save = async () => void (await expect.poll(() => ticks, { interval: 5 }).toBeGreaterThan(2))
  const primary = await pair.protect()
  await expect.poll(() => primary.state).toBe('Protected')
  expect(pair.host.refused).toEqual([])
})

describe('a standby that does not keep up', () => {
  test('does not keep the guest from being unprotected', { timeout: 30_000 }, async () => {
    // Says welcome and then nothing more, as an agent that was stopped.
    const { guest, protect } = await asStandby(random, async (peer) => {
      await welcome(peer)
      peer.socket.pause()
    })
    const primary = await protect()
    await expect.poll(() => guest.history.size).toBe(1)
    await primary.stop()
    expect(guest.paused).toBe(false)
  })

  test('shows as Lagging', async () => {
    const { protect } = await asStandby(random, async (peer) => {
      await welcome(peer)
      await acknowledge(peer, 5)
    })
    const primary = await protect()
    await expect.poll(() => primary.state, { interval: 1 }).toBe('Protected')
    await expect.poll(() => primary.state).toBe('Lagging')
    expect(primary.reason).toBe('the standby or the link does not keep up')
  })
})
