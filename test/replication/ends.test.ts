/**
 * How a guest ends, and what its standby makes of it: only a death is taken over, also when the word of the end is lost on the
 * way, or when nobody is there any more to say it.
 */
import { once } from 'node:events'
import { createConnection, createServer, type Socket } from 'node:net'
import { expect, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import { frameType } from '../../src/replication/frame.ts'
import type { GuestEnd } from '../../src/replication/guest.ts'
import { seededRandom } from '../support/random.ts'
import { type PairOptions, protectedPair, startPair } from './pair.ts'
import { acknowledge, asStandby, welcome } from './peers.ts'
import { ScriptedArbiter } from './scripted-host.ts'
import { portOf } from './sockets.ts'

const random = seededRandom()

const start = (options: Partial<PairOptions> = {}) => startPair({ random, ...options })
const startProtected = (options: Partial<PairOptions> = {}) => protectedPair({ random, ...options })

test('a guest that is ending refuses its checkpoint: the standby hears how it ended, or goes on if it did not', async () => {
  const pair = await startProtected({ arbiter: new ScriptedArbiter() })
  /** Its next checkpoint is refused, and it does not seem to run for so many looks. */
  const refused = (looks: number) =>
    new Promise<void>((resolve) => {
      pair.guest.mishaps.resume = () => {
        pair.guest.mishaps = {}
        let left = looks
        Object.defineProperty(pair.guest, 'alive', {
          configurable: true,
          get: () => left-- <= 0,
          set: () => {
            left = looks
          },
        })
        resolve()
        throw new SubpageError('QEMU_FAILED', 'Resetting the Virtual Machine is required')
      }
    })
  // It ran on: what it had announced is forgotten.
  await refused(3)
  await once(pair.primary!, 'epoch')
  await refused(Number.POSITIVE_INFINITY)
  pair.guest.end({ how: 'powered-off', detail: 'it shut itself down' })
  expect(await pair.host.outcome).toMatchObject({ how: 'discarded' })
})

test('a guest that died is taken over from its last checkpoint', async () => {
  const pair = await startProtected()
  pair.guest.end({ how: 'died', detail: 'killed' })
  expect(await pair.host.outcome).toMatchObject({ how: 'took-over', reason: 'the guest died: killed' })
  expect(pair.host.waiting.whole).toBe(true)
})

const orderly: GuestEnd[] = [
  { how: 'powered-off', detail: 'x' },
  { how: 'stopped', detail: 'x' },
  { how: 'panicked', detail: 'x' },
]
test.each(orderly)('a guest that $how is not', async (end) => {
  const pair = await startProtected()
  pair.guest.end(end)
  expect(await pair.host.outcome).toMatchObject({ how: 'discarded' })
  expect(pair.host.waiting.whole).toBeUndefined()
})

test('a guest that dies before its first checkpoint cannot be taken over', async () => {
  const pair = await start()
  pair.guest.mishaps.pause = () => pair.guest.end({ how: 'died', detail: 'early' })
  pair.guest.mishaps.resume = () => ({ valid: false })
  await pair.protect()
  expect(await pair.host.outcome).toMatchObject({ how: 'discarded' })
})

/** Connections that drop what the primary sends once `silent`, and break then. */
async function dialDropping(port: number, silent: () => boolean): Promise<Socket> {
  const proxy = createServer((inner) => {
    const outer = createConnection({ port, host: '127.0.0.1', noDelay: true })
    const cut = () => {
      inner.destroy()
      outer.destroy()
    }
    for (const socket of [inner, outer]) socket.on('error', cut).on('close', cut)
    outer.on('data', (chunk) => inner.write(chunk))
    inner.on('data', (chunk: Buffer) => (silent() ? cut() : outer.write(chunk)))
  }).listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  const socket = createConnection({ port: portOf(proxy), host: '127.0.0.1', noDelay: true })
  await once(socket, 'connect')
  proxy.close()
  return socket
}

const suspicionMs = 500

test.each(orderly)(
  'a guest that $how is not when the word of it is lost with the connection',
  async (end) => {
    const arbiter = new ScriptedArbiter()
    let ended = false
    const pair = await startProtected({
      arbiter,
      suspicionMs,
      connect: (port) => dialDropping(port, () => ended),
    })
    pair.host.source = 'ended'
    ended = true
    pair.guest.end(end)
    await pair.primary!.finished
    pair.host.source = 'gone'
    // It learns from the arbiter that nothing is left to take over, and that nobody needs it.
    await expect.poll(() => pair.host.standby?.ending, { timeout: 10_000 }).toBe(true)
    expect(await pair.host.standby?.failover('asked', false)).toMatchObject({ how: 'discarded' })
  },
)

test('neither host takes a guest back that was ended while nobody could be told: that is said', async () => {
  const arbiter = new ScriptedArbiter()
  let ended = false
  const pair = await startProtected({
    arbiter,
    connect: (port) => dialDropping(port, () => ended),
  })
  const said: string[] = []
  pair.primary!.on('missed', ({ message }) => said.push(message))
  arbiter.reachable = false
  ended = true
  pair.guest.end({ how: 'stopped', detail: 'x' })
  await pair.primary!.finished
  expect(said).toEqual([expect.stringMatching(/may go on with it.*subpage remove/)])
})

test('a standby of an older release, which hears the end and closes without an answer, is claimed against', async () => {
  const arbiter = new ScriptedArbiter()
  const { guest, protect, succession } = await asStandby(
    random,
    async (peer) => {
      await welcome(peer, undefined, true)
      void acknowledge(peer).catch(() => undefined) // It ends with the connection.
      await peer.heard(frameType.guestEnded)
      peer.connection.close()
    },
    arbiter,
  )
  const primary = await protect()
  await once(primary, 'epoch')
  guest.end({ how: 'stopped', detail: 'x' })
  await primary.finished
  expect(succession.generation).toBe(2)
})

test('a standby that has heard it costs the arbiter nothing', async () => {
  const pair = await startProtected({ arbiter: new ScriptedArbiter() })
  pair.guest.end({ how: 'stopped', detail: 'x' })
  await pair.primary!.finished
  expect(await pair.host.outcome).toMatchObject({ how: 'discarded', reason: 'the guest ended: x' })
  expect(pair.options.succession.generation).toBe(1)
})

test('a death whose word is lost is taken over, once its supervisor had the time to say otherwise', async () => {
  let ended = false
  const pair = await startProtected({
    arbiter: new ScriptedArbiter(),
    suspicionMs,
    connect: (port) => dialDropping(port, () => ended),
  })
  pair.host.source = 'ended'
  ended = true
  pair.guest.end({ how: 'died', detail: 'killed' })
  expect(await pair.host.outcome).toMatchObject({ how: 'took-over' })
})
