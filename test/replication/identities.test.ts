/**
 * Whom a primary and a standby believe, and what a copy of the guest ends for: the word of a host on which a copy of a newer
 * generation runs. A host of our own identity, an older or equal generation, and an address that comes to lead elsewhere end
 * nothing.
 */
import { describe, expect, onTestFinished, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import { realClock } from '../../src/replication/clock.ts'
import type { Guest } from '../../src/replication/guest.ts'
import { HeldElsewhere, type OtherCopy } from '../../src/replication/held-elsewhere.ts'
import { decideAlone } from '../../src/replication/lost-standby.ts'
import { Primary } from '../../src/replication/primary.ts'
import { PrimaryMachine } from '../../src/replication/primary-state.ts'
import { seededRandom } from '../support/random.ts'
import { helloFor, Pair, type PairOptions, WarpedClock } from './pair.ts'
import { acknowledge, asStandby, type Peer, welcome } from './peers.ts'
import { ScriptedArbiter, ScriptedHost, successionFor } from './scripted-host.ts'
import { dial } from './sockets.ts'

async function start(arbiter?: ScriptedArbiter, rest: Partial<PairOptions> = {}) {
  const pair = await Pair.make({
    random: seededRandom(),
    ...(arbiter && { arbiter }),
    ...rest,
  })
  onTestFinished(() => pair[Symbol.asyncDispose]())
  return pair
}

const withAndWithout: [string, () => ScriptedArbiter | undefined][] = [
  ['with an arbiter', () => new ScriptedArbiter()],
  ['without one', () => undefined],
]

describe('without an arbiter, a standby that refuses', () => {
  /** Protected first; then each connection is refused. */
  async function refusedWith(error: SubpageError) {
    const { guest, protect, connections } = await asStandby(seededRandom(), async (peer: Peer) => {
      if (connections() > 1) return await peer.connection.refuse(error)
      await welcome(peer)
      await acknowledge(peer, 2)
      peer.connection.close()
    })
    const primary = await protect()
    await expect.poll(() => connections() > 2 || !guest.alive, { timeout: 10_000 }).toBe(true)
    return { primary, guest }
  }
  const held = (copy: Omit<OtherCopy, 'runs'>, runs = true) =>
    new HeldElsewhere('script runs here', { ...copy, runs })

  test.each([
    ['a newer generation under our own name', held({ claimant: 'primary', generation: 7 })],
    ['an equal generation', held({ claimant: 'other', generation: 1 })],
    ['a newer generation that does not run', held({ claimant: 'other', generation: 2 }, false)],
    ['no copy that it names', new SubpageError('HELD_ELSEWHERE', 'script is in generation 2 here')],
    ['a code that we do not know', new SubpageError('PEER_MISMATCH', 'no')],
  ])('for %s ends no guest', async (_, error) => {
    const { primary, guest } = await refusedWith(error)
    expect(guest.alive).toBe(true)
    expect(primary).toMatchObject({ alone: true, state: 'Connecting' })
    expect(primary.reason).toContain(error.message)
  })

  test('says what is to be done about two copies of one generation', async () => {
    const { primary } = await refusedWith(held({ claimant: 'other', generation: 1 }))
    expect(primary.reason).toMatch(/this copy goes on\. End one of the two with subpage remove/)
  })

  test('for a copy of a newer generation ends ours', async () => {
    const { guest } = await refusedWith(held({ claimant: 'other', generation: 2 }))
    expect(await guest.ended).toMatchObject({ how: 'superseded' })
  })
})

test('an arbiter that does not know what the other host says was decided decides nothing', async () => {
  const arbiter = new ScriptedArbiter()
  const succession = successionFor('primary', arbiter)
  await succession.anchor()
  const said: string[] = []
  const machine = new PrimaryMachine(true, () => said.push(machine.why?.message ?? ''))
  const lost = {
    why: new HeldElsewhere('script is in generation 2 here', {
      claimant: 'other',
      generation: 2,
      runs: false,
    }),
    session: undefined,
    guest: { alive: true, supersede: () => said.push('ended') } as unknown as Guest,
    succession,
    clock: realClock,
    machine,
  }
  expect(await decideAlone(lost)).toBe('open')
  expect(said).toEqual([
    expect.stringMatching(/generation 2 here, which the test does not know: .* held back/),
  ])
  expect(await arbiter.holder(helloFor({ pages: 1 }).guest.id, 2)).toBe(undefined)
  // Once it knows that it was given back, it decides about the one after.
  const other = successionFor('other', arbiter)
  expect(await other.claim()).toBe(undefined)
  await other.giveBack()
  expect(await decideAlone(lost)).toBe('alone')
  expect(succession.generation).toBe(3)
})

describe.each(withAndWithout)('%s', (_, arbiter) => {
  test.each([
    ['primary', 'primary'],
    // A copy of a state directory on a host of another name.
    ['north-1234abcd', 'south-1234abcd'],
  ])('%s is no standby of %s', async (ours, theirs) => {
    const pair = await start(arbiter())
    const { hello } = pair.options
    pair.options.hello = async () => {
      const words = await hello()
      return { ...words, source: { ...words.source, claimant: ours } }
    }
    pair.host.claimant = theirs
    await expect(pair.protect()).rejects.toMatchObject({
      code: 'PEER_MISMATCH',
      message: expect.stringMatching(/same identity.*delete the file host-id/),
    })
    expect(pair.host.standby).toBe(undefined)
    expect(pair.guest.alive).toBe(true)
  })

  test('the primary itself is no standby', async () => {
    const pair = await start(arbiter())
    pair.host.claimant = 'primary'
    const { id } = helloFor({ pages: 1 }).guest
    pair.host.present = {
      kind: 'running',
      id,
      claimant: 'primary',
      generation: 1,
      successor: async () => undefined,
    }
    await expect(pair.protect()).rejects.toMatchObject({
      code: 'PEER_MISMATCH',
      message: expect.stringMatching(/the address leads to this host, primary, where script runs itself/),
    })
  })

  test('a host that has come to be of our identity is none any more, and costs no guest', async () => {
    const pair = await start(arbiter())
    const primary = await pair.protect()
    await pair.epochs(2)
    pair.host.claimant = 'primary'
    pair.host.dropConnections()
    await expect.poll(() => primary.alone && primary.reason).toMatch(/same identity/)
    expect(pair.guest.alive).toBe(true)
  })

  test('an address that comes to lead to a third host: first it is decided who goes on', async () => {
    const clock = new WarpedClock()
    let port = (of: number) => of
    const pair = await start(arbiter(), { clock, connect: (of) => dial(port(of)) })
    const primary = await pair.protect()
    await pair.epochs(2)
    const third = new ScriptedHost(64, pair.arbiter)
    third.claimant = 'third'
    await third.listen()
    onTestFinished(() => third.close())
    port = () => third.port
    // As after a restart of the agent: it connects before anything else.
    await primary.detach()
    pair.primary = Primary.resume({ ...pair.options, exposed: true })
    await pair.epochs(2)
    expect(third.standby?.state).toBe('Protected')
    const { succession } = pair.options
    // What the former standby holds is outdated.
    expect(succession.generation).toBe(pair.arbiter ? 2 : 1)
    expect(third.standby?.succession.generation).toBe(succession.generation)
    clock.pass(200_000)
    if (pair.arbiter) {
      await expect.poll(() => pair.host.standby?.why?.message).toMatch(/primary goes on with the guest alone/)
      expect(pair.host.standby?.committed).toBe(undefined)
    }
    expect(pair.host.waiting.whole).toBe(undefined)
  })
})
