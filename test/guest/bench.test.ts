/** A tiny size of each benchmark that needs guests: they run, and print what they promise. How fast is not tested. */
import { expect, test } from 'vitest'
import { run as checkpoint } from '../../bench/checkpoint.ts'
import { run as failover } from '../../bench/failover.ts'
import { run as sending } from '../../bench/sending.ts'

const positive = expect.toSatisfy((value: unknown) => typeof value === 'number' && value > 0)

test('checkpoint', async () => {
  const { json, text } = await checkpoint({ tiny: true })
  expect(json).toMatchObject({
    epochMs: 25,
    dirtyPages: positive,
    pauseUs: { p50: positive, p99: positive },
    ownUs: { p50: positive, p99: positive },
    agentBytes: positive,
  })
  expect(text).toMatch(/dirty pages/)
})

test('failover', async () => {
  const { json } = await failover({ tiny: true })
  expect(json).toMatchObject({ failovers: 2, takeoverMs: { p50: positive, max: positive } })
})

test('sending', async () => {
  const { json } = await sending({ tiny: true })
  const protectedWay = { primaryCpu: positive, standbyCpu: positive, pauseUs: positive, sentBytes: positive }
  expect(json).toMatchObject({
    epochMs: 25,
    ways: [
      { name: 'unprotected', perSecond: positive, lost: 0, sentBytes: 0 },
      { name: 'deltas only', perSecond: positive, ...protectedWay },
      { name: 'as protect does', perSecond: positive, ...protectedWay },
    ],
  })
})
