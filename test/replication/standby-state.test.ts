/** The standby's table of transitions: it has no dead ends but the two ends, and no checkpoint where none can be. */
import { describe, expect, test } from 'vitest'
import {
  type StandbyChange,
  StandbyMachine,
  type StandbyPhase,
  standbyChanges,
  standbyTransitions,
} from '../../src/replication/standby-state.ts'

const states = Object.keys(standbyTransitions) as StandbyPhase[]
const changes = Object.keys(standbyChanges) as StandbyChange[]

/** A machine in each state that can be reached, by the shortest way there. */
function reached(): Map<StandbyPhase, StandbyMachine> {
  const ways = new Map<StandbyPhase, StandbyChange[]>([['new', []]])
  for (const [from, way] of ways)
    for (const change of changes) {
      const to = standbyTransitions[from][change]
      if (to !== undefined && !ways.has(to)) ways.set(to, [...way, change])
    }
  return new Map(
    [...ways].map(([state, way]) => {
      const machine = new StandbyMachine(() => undefined)
      for (const change of way) machine.fire(change)
      return [state, machine]
    }),
  )
}

test('every state can be reached', () => {
  expect([...reached().keys()].sort()).toEqual([...states].sort())
})

test('whatever the table does not hold is an invariant that is broken, and changes nothing', () => {
  for (const state of states)
    for (const change of changes) {
      const machine = reached().get(state)!
      if (standbyTransitions[state][change] !== undefined) continue
      expect(machine.allows(change)).toBe(false)
      expect(() => machine.fire(change)).toThrow(expect.objectContaining({ code: 'INTERNAL' }))
      expect(machine.state).toBe(state)
    }
})

describe('in every state', () => {
  for (const [state, machine] of reached()) {
    test(state, () => {
      const { whole, outdated, ending } = machine
      const deciding = state.endsWith('deciding')
      expect([whole, outdated, ending].filter(Boolean).length).toBeLessThan(2)
      // What may be taken over, by whom.
      expect(machine.allows('take over')).toBe(whole)
      expect(machine.allows('force')).toBe(deciding && (whole || outdated))
      expect(machine.allows('ask')).toBe(!deciding && (whole || outdated))
      expect(machine.allows('answer')).toBe(deciding)
      // What a failover is about lasts until it is decided.
      if (deciding || ending)
        expect([machine.allows('seed'), machine.allows('unprotect')]).toEqual([false, false])
      // One connection at a time, and none that begins once the end has.
      expect(machine.allows('connect') && machine.allows('lose')).toBe(false)
      if (ending) expect(machine.allows('connect')).toBe(false)
      if (machine.allows('commit')) expect(machine.allows('lose')).toBe(true)
      // A decision for the primary can always be heard by a standby without a connection, also late.
      if (ending || machine.allows('connect')) expect(machine.allows('outdate')).toBe(true)
      // An end is always possible, once.
      expect(machine.allows('discard')).toBe(!ending || state === 'failed')
    })
  }
})

test('once the end was begun, only its result is shown', () => {
  const shown: string[] = []
  const why = (message: string) => ({ code: 'PEER_UNREACHABLE' as const, message })
  const machine = new StandbyMachine((label, why) => shown.push(`${label}: ${why?.message ?? ''}`))
  machine.change('connect', undefined)
  machine.change('commit', undefined)
  machine.fire('lose')
  machine.explain(why('waiting for the primary'))
  machine.change('take over', machine.why)
  machine.explain(why('an answer that came late'))
  machine.change('fail', why('the device state could not be loaded'))
  machine.explain(why('an answer that came later'))
  expect(shown).toEqual([
    'Protected: ',
    'Connecting: waiting for the primary',
    'Failed: the device state could not be loaded',
  ])
  expect(machine.latest).toEqual({ from: 'taking over', event: 'fail', to: 'failed' })
})
