/** A guest whose machine gets other parts while it is protected, or before: its standby could not load its devices' state. */
import { expect, test } from 'vitest'
import { realClock } from '../../src/replication/clock.ts'
import { Misfit, untilFits } from '../../src/replication/misfit.ts'
import { seededRandom } from '../support/random.ts'
import { protectedPair, startPair } from './pair.ts'
import { ScriptedArbiter } from './scripted-host.ts'

const random = seededRandom()
const poll = { timeout: 10_000, interval: 5 }

test.each([['without an arbiter', undefined] as const, ['with one', new ScriptedArbiter()] as const])(
  'the standby gives its checkpoint up, the guest goes on alone, and is protected again once it fits, %s',
  async (_, arbiter) => {
    const pair = await protectedPair({ random, ...(arbiter && { arbiter }) })
    const { primary, guest, host } = pair
    const { generation } = pair.options.succession
    host.beginsAnew = true
    guest.parts = ['a network card']
    await expect.poll(() => primary?.state, poll).toBe('Failed')
    expect(primary?.reason).toContain('it has now: a network card')
    await expect.poll(() => primary?.alone, poll).toBe(true)
    expect(await host.outcome).toMatchObject({ how: 'discarded' })
    // Nobody had to be asked.
    expect(pair.options.succession.generation).toBe(generation)
    const { connections } = pair
    guest.parts = ['another one']
    await expect.poll(() => primary?.reason, poll).toContain('it has now: another one')
    expect(pair.connections).toBe(connections)
    guest.parts = []
    await expect.poll(() => primary?.state, poll).toBe('Protected')
    expect(primary).toMatchObject({ alone: false, reason: '' })
    await primary?.stop()
  },
)

test('what nobody can take back while the guest runs is said, and not looked at again', async () => {
  const { guest } = await startPair({ random })
  guest.parts = ['other memory']
  const stopping = new AbortController()
  const said: string[] = []
  let sleeps = 0
  const sleep = async () => {
    guest.lasting = true
    if (++sleeps === 5) stopping.abort()
  }
  const misfit = new Misfit({ what: 'it has now: other memory', lasting: false }, [])
  await untilFits({ guest, clock: { ...realClock, sleep } }, misfit, stopping.signal, (now) =>
    said.push(now?.message ?? ''),
  )
  expect(said).toEqual([
    expect.stringMatching(/other memory.*: take that back/),
    expect.stringMatching(/other memory.*: shut the guest down and start it/),
  ])
  expect(guest.looks).toBe(1)
})

test('one that does not fit is not protected in the first place', async () => {
  const pair = await startPair({ random })
  pair.guest.parts = ['a network card']
  await expect(pair.protect()).rejects.toMatchObject({ code: 'DEVICES_DIFFER' })
  expect(pair.guest.openTrackers).toBe(0)
})

test('a protection that waits for a machine that fits can be ended', async () => {
  const pair = await protectedPair({ random })
  pair.guest.parts = ['a network card']
  await expect.poll(() => pair.primary?.alone, poll).toBe(true)
  await pair.primary?.stop()
  await pair.primary?.finished
  expect(pair.guest.openTrackers).toBe(0)
})
