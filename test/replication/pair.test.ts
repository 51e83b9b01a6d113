/**
 * Primary and standby as they are, over real sockets, with a guest whose processor is a script (scripted-guest.ts): the course of a
 * protection. What can fail in it: failing-checkpoints.test.ts, takeover.test.ts, cut-connections.test.ts.
 */
import { once } from 'node:events'
import { describe, expect, test, vi } from 'vitest'
import { pageBytes } from '../../src/memory/page.ts'
import { type Clock, realClock } from '../../src/replication/clock.ts'
import { absenceMs } from '../../src/replication/farewell.ts'
import { frameType } from '../../src/replication/frame.ts'
import { Primary } from '../../src/replication/primary.ts'
import { seededRandom } from '../support/random.ts'
import {
  expectEqualAtRest,
  type PairOptions,
  protectedPair,
  startPair,
  stateOf,
  WarpedClock,
} from './pair.ts'
import { acknowledge, asStandby, welcome } from './peers.ts'
import { ScriptedArbiter } from './scripted-host.ts'

const random = seededRandom()

const start = (options: Partial<PairOptions> = {}) => startPair({ random, ...options })
const startProtected = (options: Partial<PairOptions> = {}) => protectedPair({ random, ...options })

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
    await expectEqualAtRest(pair, random.seed)
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
    await expectEqualAtRest(pair, random.seed)
  })

  test('a lost connection is found again, and what differs is sent', async () => {
    const pair = await startProtected()
    pair.host.source = 'runs'
    pair.host.dropConnections()
    await stateOf(pair).toBe('Connecting')
    await pair.epochs(3)
    await expectEqualAtRest(pair, random.seed)
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
