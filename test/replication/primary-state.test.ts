/** The primary's table of transitions: what it can never do, in whatever order things happen. */
import { once } from 'node:events'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { BrokenInvariant } from '../../src/errors.ts'
import { type Dismissal, dismiss } from '../../src/replication/farewell.ts'
import {
  type PrimaryChange,
  PrimaryMachine,
  type PrimaryPhase,
  primaryChanges,
  primaryTransitions,
} from '../../src/replication/primary-state.ts'
import { seededRandom } from '../support/random.ts'
import { startPair } from './pair.ts'
import { ScriptedArbiter } from './scripted-host.ts'

const states = Object.keys(primaryTransitions) as PrimaryPhase[]
const changes = Object.keys(primaryChanges) as PrimaryChange[]

interface Way {
  exposed: boolean
  way: PrimaryChange[]
}

/** To each state the shortest way, from either beginning. */
function allWays(): Map<PrimaryPhase, Way> {
  const found = new Map<PrimaryPhase, Way>([
    ['alone', { exposed: false, way: [] }],
    ['silent', { exposed: true, way: [] }],
  ])
  for (const [from, { exposed, way }] of found)
    for (const change of changes) {
      const to = primaryTransitions[from][change]
      if (to !== undefined && !found.has(to)) found.set(to, { exposed, way: [...way, change] })
    }
  return found
}
const ways = allWays()

function machineIn(state: PrimaryPhase): PrimaryMachine {
  const { exposed, way } = ways.get(state)!
  const machine = new PrimaryMachine(exposed, () => undefined)
  for (const change of way) machine.fire(change)
  return machine
}

test('every state can be reached', () => {
  expect([...ways.keys()].sort()).toEqual([...states].sort())
})

test('whatever the table does not hold is an invariant that is broken, and changes nothing', () => {
  for (const state of states) {
    const machine = machineIn(state)
    for (const change of changes) {
      if (primaryTransitions[state][change] !== undefined) continue
      expect(machine.allows(change)).toBe(false)
      expect(() => machine.fire(change)).toThrow(BrokenInvariant)
      expect(machine.state).toBe(state)
    }
  }
})

describe('in every state', () => {
  test.each(states)('%s', (state) => {
    const machine = machineIn(state)
    const { exposed, connected, ending, covered } = machine
    const allows = (change: PrimaryChange) => machine.allows(change)
    const dismissing = state.endsWith('dismissing')
    // One connection at a time, and none that is served once the end has begun, or to a standby that could not take over.
    expect(allows('connect')).toBe(!connected && !ending && !machine.misfit)
    expect(allows('lose')).toBe(connected)
    if (!ending) {
      // Only a standby that is connected and may hold a checkpoint can have committed one.
      if (allows('commit')) expect([connected, exposed]).toEqual([true, true])
      // A guest is handed over only from a whole checkpoint of this connection.
      if (allows('hand over')) expect(state).toMatch(/^(protected|lagging)/)
      // One command at a time; only one that was given ends the protection.
      expect(allows('dismiss')).toBe(!dismissing)
      expect(allows('dismissed')).toBe(dismissing)
      expect([allows('guest ended'), allows('fail')]).toEqual([true, true])
    }
    expect(allows('keep')).toBe(dismissing)
    // A guest whose QEMU hangs is ended for its standby only where that one is not about to be told to give up.
    if (covered) expect([connected, exposed, dismissing, ending]).toEqual([true, true, false, false])
    if (state !== 'failed') expect(allows('over')).toBe(ending && state !== 'over')
    // A standby that may hold a checkpoint is not forgotten when a connection comes or goes, or the supervisor.
    const keeping = [
      'connect',
      'seeded',
      'lose',
      'suspect',
      'fall behind',
      'differ',
      'fit',
      'leave',
      'keep',
    ] as const
    for (const change of exposed ? keeping : []) {
      const next = machineIn(state)
      if (next.allows(change)) next.fire(change)
      expect(next.exposed, change).toBe(true)
    }
    // A supervisor can always leave, and that replaces no end that was decided.
    machine.fire('leave')
    expect(machine.ending).toBe(true)
    if (ending) expect(machine.state).toBe(state)
  })
})

test('what is shown follows from the state', () => {
  const shown: unknown[] = []
  const why = (message: string) => ({ code: 'STANDBY_LAGS' as const, message })
  const machine = new PrimaryMachine(false, () =>
    shown.push([machine.label, machine.why?.message ?? '', machine.alone]),
  )
  machine.change('connect', undefined)
  machine.fire('seeded')
  machine.change('commit', undefined)
  machine.change('lag', why('slow'))
  machine.change('commit late', why('slow'))
  machine.change('fall behind', why('backlog'))
  machine.fire('forget')
  machine.show(why('backlog'))
  machine.fire('lose')
  machine.show(why('lost'))
  machine.change('differ', why('plugged in'))
  machine.change('fit', why('plugged out'))
  machine.change('leave', machine.why)
  machine.show(why('late'))
  machine.change('fail', why('broken'))
  expect(shown).toEqual([
    ['Seeding', '', true],
    ['Protected', '', false],
    ['Lagging', 'slow', false],
    ['Seeding', 'backlog', false],
    ['Seeding', 'backlog', true],
    ['Connecting', 'lost', true],
    ['Failed', 'plugged in', true],
    ['Connecting', 'plugged out', true],
    ['Failed', 'broken', true],
  ])
})

describe('a defect that the table catches', () => {
  test('a protection that was said to go on is ended by an answer that comes late', async () => {
    const machine = machineIn('protected')
    machine.fire('dismiss')
    machine.fire('keep')
    const dismissal = {
      machine,
      guest: { alive: true },
      tasks: { end: () => undefined },
      session: { dismiss: async (_disksToo: boolean, given: () => void) => given() },
      succession: { arbitrated: false, dismissStandby: async () => undefined },
      clock: { sleep: () => new Promise(() => undefined) },
      disksToo: false,
    } as unknown as Dismissal
    await expect(dismiss(dismissal)).rejects.toThrow(/"dismissed" cannot happen in state "protected"/)
    expect(machine.ending).toBe(false)
  })

  test('a checkpoint counts while the standby is being seeded: the process ends', async () => {
    const ends: unknown[] = []
    const queue = globalThis.queueMicrotask
    vi.stubGlobal('queueMicrotask', (run: () => void) =>
      queue(() => {
        try {
          run()
        } catch (error) {
          ends.push(error)
        }
      }),
    )
    onTestFinished(() => {
      vi.unstubAllGlobals()
      vi.restoreAllMocks()
    })
    const { fire } = PrimaryMachine.prototype
    vi.spyOn(PrimaryMachine.prototype, 'fire').mockImplementation(function (this: PrimaryMachine, event) {
      if (event !== 'seeded') fire.call(this, event)
    })
    const pair = await startPair({ random: seededRandom() })
    const primary = await pair.protect()
    await primary.finished
    const message = expect.stringMatching(/"commit" cannot happen in state "seeding"/)
    expect(primary).toMatchObject({ state: 'Failed', covered: false, reason: message })
    expect(ends).toEqual([expect.objectContaining({ code: 'INTERNAL', message })])
  })

  test('a supervisor leaves right when a command has ended the protection: that stays ended', async () => {
    const pair = await startPair({ random: seededRandom(), arbiter: new ScriptedArbiter() })
    const primary = await pair.protect()
    await once(primary, 'epoch')
    const freed = vi.spyOn(pair.guest, 'freeOutputs')
    const { fire } = PrimaryMachine.prototype
    let detached: Promise<void> | undefined
    vi.spyOn(PrimaryMachine.prototype, 'fire').mockImplementation(function (this: PrimaryMachine, event) {
      fire.call(this, event)
      if (event === 'dismissed') detached = primary.detach()
    })
    onTestFinished(() => void vi.restoreAllMocks())
    await primary.stop()
    await detached
    expect(await pair.host.outcome).toMatchObject({ how: 'discarded' })
    expect(detached).toBeDefined()
    // What the guest sends is not held back for a next supervisor that knows of no protection.
    expect(freed).toHaveBeenCalled()
  })
})
