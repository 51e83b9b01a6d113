/** The first half of the schedules (many-schedules.ts); those that were bad once; and that a seed says all. */
import { expect, test } from 'vitest'
import { testSchedules } from './many-schedules.ts'
import { describeFailure } from './run-many.ts'
import { simulate } from './schedule.ts'

testSchedules('first half')

/** What each of them found first. A change of what is drawn from a seed makes it another schedule. */
const knownBad: Record<number, string> = {
  95: 'a checkpoint that could not be applied kept the standby from being served ever again',
  182: 'a step that failed between acknowledging and applying left a checkpoint that was never applied',
  211: 'a vigil that ended while a claim by command had no answer looped without a pause',
  216: 'a primary came back to a standby that had forgotten its takeover, and went on in the old history',
  415: 'a standby that was removed while its claim had no answer won the decision, and the guest was lost',
  1499: 'what a connection had taught was freed when the connection was lost, while a checkpoint was still being sent',
  1785: 'a restart soon after a takeover: the arbiter had not been told, and outputs were held for ever',
  5826: 'a failover by command claimed the generation after the one that the primary had just won',
}

for (const [seed, what] of Object.entries(knownBad))
  test(`seed ${seed}: ${what}`, async () => {
    const result = await simulate(Number(seed))
    expect(result.failure ? describeFailure(result) : '').toBe('')
  })

test('seed 34: a QEMU that hangs for too long is ended, and its standby goes on', async () => {
  const { log, lost, failure } = await simulate(34)
  const ended = log.findIndex((line) => line.includes('-- it hangs for too long'))
  expect(ended).toBeGreaterThan(0)
  expect(log.slice(ended).join('\n')).toMatch(/died: it hung and was ended[\s\S]* took over from checkpoint/)
  expect({ lost, failure }).toEqual({ lost: false, failure: undefined })
})

test('a seed gives the same schedule again', async () => {
  const [once, again] = await Promise.all([simulate(7), simulate(7)])
  expect(again.log).toEqual(once.log)
  expect(again.events).toBe(once.events)
})
