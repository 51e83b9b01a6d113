/** What the epochs of one protection have cost: histograms (HdrHistogram, relative error below 1 %) and totals. */
import { createHistogram } from 'node:perf_hooks'
import type { PageRanges } from '../memory/page-ranges.ts'
import type { Reduced } from './delta-sender.ts'
import type { EarlyPages } from './pending-pages.ts'

/** One committed checkpoint. Times in microseconds, sizes in bytes. */
export interface EpochReport {
  epoch: number
  /** From the request to stop the guest until it ran again. */
  pauseUs: number
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
  /** What was sent before, and the pages of it that were sent again. */
  early: Readonly<EarlyPages> | undefined
  again: PageRanges
  /** What made the delta smaller, since the connection began. */
  reduced: Reduced
  consoleBytes: number
}

export interface Percentiles {
  p50: number
  p99: number
  max: number
}

export interface EpochSummary {
  checkpoints: number
  /** Checkpoints that were begun and not committed; their pages went with a later one. */
  failed: number
  pauseUs: Percentiles
  ownUs: Percentiles
  /** Of checkpoints before which a disk was flushed. */
  stopFlushUs: Percentiles
  commitUs: Percentiles
  /** Between two commits one after the other. */
  gapUs: Percentiles
  bytes: { dirtyPages: number; changedLines: number; delta: number; sent: number; final: number }
  dirtyPages: number
  /** Sent before the end of their epoch; again: written after that, and sent once more. */
  earlyPages: number
  earlyPagesAgain: number
  changedLines: number
  /** Bytes of dirty pages divided by bytes of changed lines; null before anything has changed. */
  amplification: number | null
}

export class EpochStats {
  readonly #pause = createHistogram()
  readonly #own = createHistogram()
  readonly #flush = createHistogram()
  readonly #commit = createHistogram()
  readonly #gap = createHistogram()
  #committedAtMs: number | undefined
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

  /** @param nowMs by a clock that never goes back */
  add(report: EpochReport, nowMs: number): void {
    this.last = report
    if (this.#committedAtMs !== undefined) this.#gap.record(atLeastOne((nowMs - this.#committedAtMs) * 1000))
    this.#committedAtMs = nowMs
    this.#checkpoints++
    this.#pause.record(atLeastOne(report.pauseUs))
    this.#own.record(atLeastOne(report.ownUs))
    if (report.stopFlushUs > 0) this.#flush.record(atLeastOne(report.stopFlushUs))
    this.#commit.record(atLeastOne(report.commitUs))
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

  summary(): EpochSummary {
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
      stopFlushUs: percentiles(this.#flush),
      commitUs: percentiles(this.#commit),
      gapUs: percentiles(this.#gap),
      bytes,
      dirtyPages: this.#dirtyPages,
      earlyPages: this.#early,
      earlyPagesAgain: this.#earlyAgain,
      changedLines: this.#changedLines,
      amplification: bytes.changedLines === 0 ? null : bytes.dirtyPages / bytes.changedLines,
    }
  }
}

const atLeastOne = (us: number) => Math.max(1, Math.round(us))

function percentiles(histogram: ReturnType<typeof createHistogram>): Percentiles {
  if (histogram.count === 0) return { p50: 0, p99: 0, max: 0 }
  return { p50: histogram.percentile(50), p99: histogram.percentile(99), max: histogram.max }
}
