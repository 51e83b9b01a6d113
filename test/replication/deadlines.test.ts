/** The deadlines that SPECIFICATION.md names, in simulated time: suspicion, a standby's claim, the end of a superseded copy. */
import { expect, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import type { Holder } from '../../src/replication/arbiter.ts'
import { type Clock, realClock } from '../../src/replication/clock.ts'
import { FailoverMonitor } from '../../src/replication/failover-monitor.ts'
import { absenceMs } from '../../src/replication/farewell.ts'
import type { Guest } from '../../src/replication/guest.ts'
import { Heartbeat } from '../../src/replication/heartbeat.ts'
import { decideAlone } from '../../src/replication/lost-standby.ts'
import type { Hello } from '../../src/replication/messages.ts'
import { PrimaryMachine } from '../../src/replication/primary-state.ts'
import { SimTime } from '../simulation/sim-clock.ts'
import { helloFor } from './pair.ts'
import { ScriptedArbiter, successionFor } from './scripted-host.ts'
import { socketPair } from './sockets.ts'

const suspicionMs = 500
const { guest: identity, generation } = helloFor({ pages: 1 })

function simulated(): { time: SimTime; clock: Clock } {
  const time = new SimTime()
  const clock: Clock = {
    now: () => time.nowMs,
    after: (ms, run) => time.after(ms, run),
    afterInput: (run) => time.after(0, run),
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        const cancel = time.after(ms, () => {
          signal?.removeEventListener('abort', aborted)
          resolve()
        })
        const aborted = () => {
          cancel()
          resolve()
        }
        signal?.addEventListener('abort', aborted, { once: true })
      }),
  }
  return { time, clock }
}

/** Remembers when somebody claimed. */
class TimedArbiter extends ScriptedArbiter {
  readonly claimedAtMs: number[] = []
  readonly #time: SimTime

  constructor(time: SimTime) {
    super()
    this.#time = time
  }

  override async claim(guest: string, generation: number, claimant: string): Promise<Holder> {
    this.claimedAtMs.push(this.#time.nowMs)
    return await super.claim(guest, generation, claimant)
  }
}

test.each([
  ['once there is a checkpoint: the suspicion time', true, suspicionMs],
  ['before: five seconds', false, 5_000],
])('a silent peer is suspected %s', async (_, seeded, limitMs) => {
  const { time, clock } = simulated()
  let suspectedAt = 0
  let beats = 0
  const heartbeat = new Heartbeat(
    clock,
    suspicionMs,
    () => beats++,
    () => {
      suspectedAt = time.nowMs
    },
  )
  if (seeded) heartbeat.seeded()
  await time.run(() => suspectedAt > 0)
  expect(suspectedAt).toBeGreaterThan(limitMs)
  expect(suspectedAt).toBeLessThanOrEqual(limitMs + suspicionMs / 5)
  expect(beats).toBe(Math.floor(limitMs / (suspicionMs / 5)))
})

test('a peer is not suspected while what it has sent lies unread', async () => {
  const [ours, theirs] = await socketPair()
  let nowMs = 0
  let tick = () => {}
  const inTime = (run: () => void) => {
    tick = run
    return () => undefined
  }
  let suspected = false
  const clock: Clock = { ...realClock, now: () => nowMs, after: (_, run) => inTime(run) }
  const suspect = () => {
    suspected = true
  }
  const heartbeat = new Heartbeat(clock, suspicionMs, () => undefined, suspect)
  heartbeat.seeded()
  ours.on('data', () => heartbeat.heard())
  /** As the event loop does: a timer, then input, then what was to come after it. */
  const tickAt = (ms: number, meanwhile = () => {}) =>
    new Promise<void>((resolve) =>
      setTimeout(() => {
        meanwhile()
        nowMs = ms
        tick()
        setImmediate(resolve)
      }),
    )
  for (const ms of [100, 200, 300, 400]) await tickAt(ms)
  // From here on our loop stands still, for too short a time to be a stall.
  await tickAt(suspicionMs + 90, () => theirs.write('a beat'))
  expect(suspected).toBe(false)
  for (let ms = 100; ms <= 600; ms += 100) await tickAt(suspicionMs + 90 + ms)
  expect(suspected).toBe(true)
  for (const socket of [ours, theirs]) socket.destroy()
})

test.each([
  ['the primary has been silent for one and a half times the suspicion time', 0, 1.5 * suspicionMs],
  ['an agent that was stopped in an orderly way is not back in time', absenceMs, absenceMs],
])('a standby claims when %s', async (_, leftForMs, limitMs) => {
  const { time, clock } = simulated()
  const arbiter = new TimedArbiter(time)
  await arbiter.claim(identity.id, generation, 'primary')
  let tookOver = false
  new FailoverMonitor({
    clock,
    succession: successionFor('standby', arbiter),
    settings: { suspicionMs, outputs: 'held' } as Hello['settings'],
    heardAt: 0,
    reason: 'the connection was cut',
    absenceMs: leftForMs,
    sourceFate: () => undefined,
    committed: () => true,
    say: () => undefined,
    takeOver: () => {
      tookOver = true
    },
    discard: () => undefined,
    outdated: () => undefined,
  })
  await time.run(() => tookOver)
  expect(arbiter.claimedAtMs).toHaveLength(2)
  expect(arbiter.claimedAtMs[1]).toBeGreaterThanOrEqual(limitMs)
  expect(arbiter.claimedAtMs[1]).toBeLessThanOrEqual(limitMs + 50)
})

test('a superseded copy is ended five seconds after its primary has learnt of it', async () => {
  const { time, clock } = simulated()
  const arbiter = new TimedArbiter(time)
  await arbiter.claim(identity.id, generation, 'primary')
  await arbiter.claim(identity.id, generation + 1, 'standby')
  let endedAt = 0
  const guest = {
    get alive() {
      return endedAt === 0
    },
    supersede: () => {
      endedAt = time.nowMs
    },
  } as unknown as Guest
  const decided = decideAlone({
    why: new SubpageError('PEER_UNREACHABLE', 'the test says so'),
    session: undefined,
    guest,
    succession: successionFor('primary', arbiter),
    clock,
    machine: new PrimaryMachine(true, () => undefined),
  })
  await time.run(() => endedAt > 0)
  expect(await decided).toBe('over')
  expect(endedAt).toBeGreaterThanOrEqual(5_000)
  expect(endedAt).toBeLessThanOrEqual(5_500)
})
