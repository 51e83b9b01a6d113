/** What protecting costs the guest, as `status` says it. */
import { expect, test } from 'vitest'
import { EpochStats } from '../../src/replication/epoch-stats.ts'
import { epochReport as report } from './epoch-report.ts'

test('the cost is unknown before there is a time between two commits', () => {
  const stats = new EpochStats()
  expect(stats.summary(0).cost).toBeNull()
  stats.add(report({}), 0)
  expect(stats.summary(0).cost).toBeNull()
})

test('shares of the time between commits, and the mean wait of what is sent at any time in it', () => {
  const stats = new EpochStats()
  for (let n = 0; n <= 10; n++) stats.add(report({}), n * 20)
  const { cost } = stats.summary(200)
  expect(cost!.pauses).toBeCloseTo(0.1)
  expect(cost!.faults).toBeCloseTo(0.025)
  // Half of what it runs in an epoch, the pause, and the commit.
  expect(cost!.outputWaitMs).toBeCloseTo(9 + 2 + 3)
  expect(stats.summary(200, 'free').cost!.outputWaitMs).toBeNull()
})

test('what was long ago is forgotten', () => {
  const stats = new EpochStats()
  for (let n = 0; n < 100; n++) stats.add(report({ pauseUs: 10_000 }), n * 20)
  for (let n = 100; n < 500; n++) stats.add(report({}), n * 20)
  expect(stats.summary(10_000).cost!.pauses).toBeCloseTo(0.1, 2)
})
