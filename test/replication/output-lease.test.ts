/** Until when a primary may speak, and how long a standby that takes over by command is silent: in simulated time. */
import { expect, test } from 'vitest'
import type { Clock } from '../../src/replication/clock.ts'
import type { Connection } from '../../src/replication/connection.ts'
import { frameType } from '../../src/replication/frame.ts'
import { leaseOutput, OutputLease } from '../../src/replication/output-lease.ts'

const suspicionMs = 500

/** Time goes on when somebody sleeps. */
class StepClock implements Clock {
  ms = 1_000
  now = () => this.ms
  sleep = async (ms: number) => {
    this.ms += ms
  }
  after = () => () => undefined
  afterInput = this.after
}

test('a fresh acknowledgement is good until the suspicion time after it was asked for', async () => {
  const clock = new StepClock()
  const probe = () => Promise.reject(new Error('nobody has to be asked'))
  expect(await leaseOutput({ clock, suspicionMs }, 990, probe)).toBe(990 + suspicionMs)
  expect(await leaseOutput({ clock, suspicionMs }, 1_000 - 450, probe)).toBe(550 + suspicionMs)
})

test('an old one is not: the standby is asked until an answer is fresh', async () => {
  const clock = new StepClock()
  const tookMs = [480, 700, 20]
  const asked: number[] = []
  const probe = async () => {
    asked.push(clock.ms)
    clock.ms += tookMs.shift() ?? 0
  }
  expect(await leaseOutput({ clock, suspicionMs }, 1_000 - 451, probe)).toBe(2_180 + suspicionMs)
  expect(asked).toEqual([1_000, 1_480, 2_180])
})

test('without an answer there is no leave', async () => {
  const clock = new StepClock()
  const lost = () => Promise.reject(new Error('the connection is lost'))
  await expect(leaseOutput({ clock, suspicionMs }, 0, lost)).rejects.toThrow('the connection is lost')
})

test('a standby waits until its last promise has lapsed, and a quarter longer', async () => {
  const clock = new StepClock()
  const lease = new OutputLease(clock)
  await lease.lapsed(suspicionMs)
  expect(clock.ms).toBe(1_000)
  const connection = { send: async () => undefined } as unknown as Connection
  await lease.give(connection, frameType.ack, 7)
  await lease.lapsed(suspicionMs)
  expect(clock.ms).toBe(1_000 + suspicionMs * 1.25)
  await lease.give(connection, frameType.ack, 8)
  lease.waive()
  await lease.lapsed(suspicionMs)
  expect(clock.ms).toBe(1_000 + suspicionMs * 1.25)
})
