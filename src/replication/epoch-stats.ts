/** What the epochs of one protection have cost: histograms (HdrHistogram, relative error below 1 %) and totals. */
import { createHistogram } from 'node:perf_hooks'
import type { PageRanges } from '../memory/page-ranges.ts'
import type { HotPageFigures } from '../tracking/hot-pages.ts'
import type { Reduced } from './delta-sender.ts'
import { DurationStats, type Durations } from './durations.ts'
import { type Pace, shortestMs, type Takes } from './pace.ts'
import type { EarlyPages } from './pending-pages.ts'

/** One committed checkpoint. Times in microseconds, sizes in bytes. */
export interface EpochReport {
  epoch: number
  /** For so long the guest stood still. */
  pauseUs: number
  /** From the request to stop it until it was known to run again. */
  pausingUs: number
  /** Our own part of the pause: harvest and capture. */
  ownUs: number
  /** The hypervisor's flush of the disks, within the pause. */
  stopFlushUs: number
  harvestUs: number
  captureUs: number
  /** From the end of the pause until the standby held the checkpoint. */
  commitUs: number
  dirtyPages: number
  changedLines: number
  deltaBytes: number
  /** Everything sent for this checkpoint: delta, device state, frame headers. */
  sentBytes: number
  /** Of these, what was sent after the pause: what a client waits for. */
  finalBytes: number
  /** Estimate of what first writes to armed pages have cost the guest. */
  faultUs: number
  /** What was sent before, and the pages of it that were sent again. */
  early: Readonly<EarlyPages> | undefined
  again: PageRanges
  /** What made the delta smaller, since the connection began. */
  reduced: Reduced
  /** Captures that two threads have shared, since the protection began. */
  sharedCaptures: number
  /** Since the protection began; null where every page is armed. */
  hotPages: HotPageFigures | null
  consoleBytes: number
}

export interface Percentiles {
  p50: number
  p99: number
  max: number
}

/** What protecting costs the guest, lately; estimates, from what is measured while it runs. */
export interface ProtectionCost {
  /** Share of time in pauses. */
  pauses: number
  /** Share of the time of one virtual CPU in faults, at what a fault costs a program on this host. */
  faults: number
  /** How long what it sends waits for its commit, on average, if it sends at any time; null: nothing is held. With an automatic pace it ends an epoch that has lasted long enough. */
  outputWaitMs: number | null
}

export interface EpochSummary {
  checkpoints: number
  /** Checkpoints that were begun and not committed; their pages went with a later one. */
  failed: number
  pauseUs: Percentiles
  ownUs: Percentiles
  /** Of that, finding the dirty pages. */
  harvestUs: Percentiles
  /** Of checkpoints before which a disk was flushed. */
  stopFlushUs: Percentiles
  commitUs: Percentiles
  /** Between two commits one after the other. */
  gapUs: Percentiles
  /** The same pauses and commits, counted by length, for who wants to know of a time of their own choice. */
  durations: { pause: Durations; commit: Durations }
  /** How old the guest's state is that the standby holds: what a failover now would lose; null before the first commit. */
  lagMs: number | null
  /** Null before the second commit. */
  cost: ProtectionCost | null
  bytes: { dirtyPages: number; changedLines: number; delta: number; sent: number; final: number }
  dirtyPages: number
  /** Sent before the end of their epoch; again: written after that, and sent once more. */
  earlyPages: number
  earlyPagesAgain: number
  /** Captures of so many pages that two threads have shared them. */
  sharedCaptures: number
  changedLines: number
  /** Bytes of dirty pages divided by bytes of changed lines; null before anything has changed. */
  amplification: number | null
}

export class EpochStats {
  readonly #pause = histogram()
  readonly #own = histogram()
  readonly #harvest = histogram()
  readonly #flush = histogram()
  readonly #commit = histogram()
  readonly #gap = histogram()
  readonly #pauses = new DurationStats()
  readonly #commits = new DurationStats()
  readonly #costs = new CostStats()
  #committedAtMs: number | undefined
  #heldAtMs: number | undefined
  /** Whatever is sent; infinite where epochs are fixed. */
  #atLeastMs = Number.POSITIVE_INFINITY
  #checkpoints = 0
  #failed = 0
  #dirtyPages = 0
  #changedLines = 0
  #delta = 0
  #sent = 0
  #final = 0
  #early = 0
  #earlyAgain = 0
  last: EpochReport | undefined

  /** How long the epoch that begins lasts at least, milliseconds: see pace.ts. @param costUs pause and faults of its first checkpoint */
  shortestMs(pace: Pace, costUs: number): number {
    const ms = shortestMs(pace, costUs, this.#costs.takes)
    this.#atLeastMs = pace.pauseShareMax === undefined ? Number.POSITIVE_INFINITY : ms
    return ms
  }

  /** @param nowMs by a clock that never goes back */
  add(report: EpochReport, nowMs: number): void {
    this.last = report
    if (this.#committedAtMs !== undefined) {
      this.#gap.record(inBounds((nowMs - this.#committedAtMs) * 1000))
      this.#costs.add(report, (nowMs - this.#committedAtMs) * 1000, this.#atLeastMs * 1000)
    }
    this.#committedAtMs = nowMs
    this.#heldAtMs = nowMs - (report.commitUs + report.pausingUs) / 1000
    this.#checkpoints++
    this.#pause.record(inBounds(report.pauseUs))
    this.#own.record(inBounds(report.ownUs))
    this.#harvest.record(inBounds(report.harvestUs))
    if (report.stopFlushUs > 0) this.#flush.record(inBounds(report.stopFlushUs))
    this.#commit.record(inBounds(report.commitUs))
    this.#pauses.add(report.pauseUs)
    this.#commits.add(report.commitUs)
    this.#dirtyPages += report.dirtyPages
    this.#changedLines += report.changedLines
    this.#delta += report.deltaBytes
    this.#sent += report.sentBytes
    this.#final += report.finalBytes
    if (!report.early) return
    this.#early += report.early.pages.pageCount
    this.#earlyAgain += report.again.pageCount
  }

  addFailed(): void {
    this.#failed++
  }

  /** @param nowMs by the clock of `add` */
  summary(nowMs: number, outputs: 'held' | 'free' = 'held'): EpochSummary {
    const bytes = {
      dirtyPages: this.#dirtyPages * 4096,
      changedLines: this.#changedLines * 64,
      delta: this.#delta,
      sent: this.#sent,
      final: this.#final,
    }
    return {
      checkpoints: this.#checkpoints,
      failed: this.#failed,
      pauseUs: percentiles(this.#pause),
      ownUs: percentiles(this.#own),
      harvestUs: percentiles(this.#harvest),
      stopFlushUs: percentiles(this.#flush),
      commitUs: percentiles(this.#commit),
      gapUs: percentiles(this.#gap),
      durations: { pause: this.#pauses.counted, commit: this.#commits.counted },
      lagMs: this.#heldAtMs === undefined ? null : Math.max(0, nowMs - this.#heldAtMs),
      cost: this.#costs.lately(outputs),
      bytes,
      dirtyPages: this.#dirtyPages,
      earlyPages: this.#early,
      earlyPagesAgain: this.#earlyAgain,
      sharedCaptures: this.last?.sharedCaptures ?? 0,
      changedLines: this.#changedLines,
      amplification: bytes.changedLines === 0 ? null : bytes.dirtyPages / bytes.changedLines,
    }
  }
}

/** Weight of the newest epoch. */
const weight = 0.02

/** Means, of which the newest epochs count most. */
class CostStats {
  #epochs = 0
  #means = { periodUs: 0, atLeastUs: 0, pauseUs: 0, pausingUs: 0, faultUs: 0, commitUs: 0 }

  get takes(): Takes {
    const { pausingUs, commitUs } = this.#means
    return { pausingUs, commitUs }
  }

  /** @param periodUs since the last commit @param shortestUs whatever is sent, it is as long as this */
  add({ pauseUs, pausingUs, faultUs, commitUs }: EpochReport, periodUs: number, shortestUs: number): void {
    const newest = Math.max(weight, 1 / ++this.#epochs)
    const atLeastUs = Math.min(periodUs, shortestUs)
    const now = { periodUs, atLeastUs, pauseUs, pausingUs, faultUs, commitUs }
    for (const what of Object.keys(now) as (keyof typeof now)[])
      this.#means[what] += newest * (now[what] - this.#means[what])
  }

  lately(outputs: 'held' | 'free'): ProtectionCost | null {
    if (this.#epochs === 0) return null
    const { periodUs, atLeastUs, pauseUs, pausingUs, faultUs, commitUs } = this.#means
    // What is sent before the epoch has lasted long enough waits for that; it runs for this long of it, and in all.
    const [early, running] = [Math.max(0, atLeastUs - pausingUs), Math.max(1, periodUs - pausingUs)]
    const share = (us: number) => Math.min(1, us / Math.max(1, periodUs))
    return {
      pauses: share(pauseUs),
      faults: share(faultUs),
      outputWaitMs: outputs === 'free' ? null : (early ** 2 / running / 2 + pausingUs + commitUs) / 1000,
    }
  }
}

/** More than an hour is counted as that: without a bound each histogram would take 0.4 MiB. */
const usMax = 2 ** 32

const histogram = () => createHistogram({ lowest: 1, highest: usMax, figures: 3 })

const inBounds = (us: number) => Math.min(usMax, Math.max(1, Math.round(us)))

function percentiles(histogram: ReturnType<typeof createHistogram>): Percentiles {
  if (histogram.count === 0) return { p50: 0, p99: 0, max: 0 }
  return { p50: histogram.percentile(50), p99: histogram.percentile(99), max: histogram.max }
}
