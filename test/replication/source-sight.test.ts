/** A standby believes that the primary's guest is gone only where it is proven that it would see it. */
import { expect, test } from 'vitest'
import type { Hello } from '../../src/replication/messages.ts'
import { type Sight, SourceSight } from '../../src/replication/source-sight.ts'

const guest = { pid: 2, startTime: '20' }
const supervisor = { pid: 3, startTime: '30' }
const helloFrom = (space: { bootId: string; pidNamespace: string } | undefined) =>
  ({
    source: {
      ...{ bootId: space?.bootId, process: guest },
      ...(space && {
        supervisor: {
          pidNamespace: space.pidNamespace,
          process: supervisor,
          token: { descriptor: 4, name: 't' },
        },
      }),
    },
  }) as unknown as Hello

const here = { bootId: 'b', pidNamespace: 'p' }
type Fate = ReturnType<Sight['fate']>

/** What it makes of the guest's fate after a hello while all runs. */
function fate(of: {
  from?: { bootId: string; pidNamespace: string } | undefined
  here?: typeof here | undefined
  supervisor?: Fate
  holds?: boolean
  atHello?: Fate
  later?: Fate
  /** Of the supervisor. */
  supervisorLater?: Fate
}) {
  const { from = here, supervisor: seen = 'runs', holds = true, atHello = 'runs', later = 'gone' } = of
  let now: Fate = atHello
  let said: Fate = seen
  const sight = new SourceSight({
    space: () => ('here' in of ? of.here : here),
    fate: (process) => (process === (supervisor as unknown) ? said : now),
    holds: () => holds,
  })
  const hello = helloFrom('from' in of ? of.from : from)
  sight.meet(hello)
  now = later
  said = of.supervisorLater ?? 'gone'
  return sight.fate(hello)
}

test('what is proven to be seen is gone, has ended beside a supervisor that knows how, runs, or is hidden now', () => {
  expect(fate({})).toBe('gone')
  expect(fate({ supervisorLater: 'unseen' })).toBe('gone')
  expect(fate({ supervisorLater: 'runs' })).toBe('ended')
  expect(fate({ later: 'runs' })).toBe('runs')
  expect(fate({ later: 'unseen' })).toBeUndefined()
})

test.each<[string, Parameters<typeof fate>[0]]>([
  ['another machine', { from: { bootId: 'other', pidNamespace: 'p' } }],
  ['another PID namespace of this machine', { from: { bootId: 'b', pidNamespace: 'other' } }],
  ['a primary that does not say where it is', { from: undefined }],
  ['a host on which no process can be seen', { here: undefined }],
  ['a supervisor that is hidden', { supervisor: 'unseen' }],
  ['a supervisor of that number that is another', { supervisor: 'gone' }],
  ['a process that does not hold the token: a clone of the machine', { holds: false }],
  ['a guest that is hidden', { atHello: 'unseen' }],
  ['a guest of that number that was never seen to run', { atHello: 'gone' }],
])('%s proves nothing', (_, of) => {
  expect(fate(of)).toBeUndefined()
})

test('without a hello nothing is known', () => {
  const sight = new SourceSight({ space: () => here, fate: () => 'gone', holds: () => true })
  expect(sight.fate(helloFrom(here))).toBeUndefined()
})
