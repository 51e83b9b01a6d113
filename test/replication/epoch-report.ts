/** A committed checkpoint, for who counts them. */
import { PageRanges } from '../../src/memory/page-ranges.ts'
import type { EpochReport } from '../../src/replication/epoch-stats.ts'

export const epochReport = (of: Partial<EpochReport>): EpochReport => ({
  epoch: 1,
  pauseUs: 2_000,
  pausingUs: 2_000,
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
