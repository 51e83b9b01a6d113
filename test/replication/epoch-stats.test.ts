/** What protecting costs the guest, as `status` says it. */
import { expect, test } from 'vitest'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { type EpochReport, EpochStats } from '../../src/replication/epoch-stats.ts'

const report = (of: Partial<EpochReport>): EpochReport => ({
  epoch: 1,
  pauseUs: 2_000,
  ownUs: 1_000,
  stopFlushUs: 0,
  harvestUs: 500,
  captureUs: 500,
  commitUs: 3_000,
  faultUs: 500,
  dirtyPages: 10,
  changedLines: 10,
  deltaBytes: 10,
  sentBytes: 10,
  finalBytes: 10,
  early: undefined,
  again: PageRanges.empty,
  reduced: {
    lines: 0,
    dictionaryLines: 0,
    sharedLines: 0,
    similarPages: 0,
    bodyBytes: 0,
    compression: 'off',
  },
  sharedCaptures: 0,
  hotPages: null,
  consoleBytes: 0,
  ...of,
})

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
