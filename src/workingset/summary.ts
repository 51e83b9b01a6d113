/**
 * What a series of intervals says altogether: percentiles, the share that is only read, and a recommendation in plain
 * words. A pure function of the samples, live or from a file.
 */
import { pageBytes } from '../memory/page.ts'
import { idleEdgesMs, type Sample } from './sample.ts'

export interface Summary {
  intervals: number
  spanMs: number
  givenBytes: number
  /** The working set as last estimated, which is about so long a time, until now. */
  used: { bytes: number; plusMinusBytes: number; stable: boolean; spanMs: number }
  /** Of the intervals, p0, p5, … p100: index i is percentile 5 × i. */
  percentileBytes: number[]
  /** Of what an interval used; null when writes are not known. */
  writtenBytes: number | null
  readOnlyBytes: number | null
  /** How much has been idle for how long, for certain; empty where nobody knows. */
  idleBytes: { atLeastMs: number; bytes: number }[]
  phaseChanges: number
  costShare: number
  /** The kernel's own memory, which it needs even when it does not touch it: f of M = wss × page size + f. */
  footprintBytes: number
  recommendedBytes: number
  /** Of a process: memory of whose use less is known (Sample). */
  largeBytes: number
  hugetlbBytes: number
}

export const percentileStep = 5
/** Memory is given in steps of this. */
const stepBytes = 32 * 2 ** 20
/** Beyond what was seen: what is seen in an interval is not all that a guest ever does. */
const headroom = 1.1

/**
 * What a Linux guest keeps for itself: 64 bytes for each page (struct page), and its code and data. Measured on the demo
 * guest's kernel (docs/working-sets.md); `--footprint` says otherwise.
 */
function kernelFootprintBytes(ramBytes: number): number {
  return Math.round(ramBytes / 64) + 40 * 2 ** 20
}

/** @param samples at least one */
export function summarize(samples: readonly Sample[], footprintBytes?: number): Summary {
  const last = samples.at(-1)
  if (!last) throw new TypeError('no interval has ended')
  const givenBytes = last.ramPages * pageBytes
  const dist = samples.map((sample) => sample.dist.pages * pageBytes).sort((a, b) => a - b)
  const largest = Math.max(...samples.map(({ dist: { pages, plusMinus } }) => pages + plusMinus)) * pageBytes
  const written = last.written ? Math.min(last.written.pages, last.dist.pages) * pageBytes : null
  const footprint = footprintBytes ?? kernelFootprintBytes(givenBytes)
  const needed = Math.ceil((largest * headroom + footprint) / stepBytes) * stepBytes
  return {
    intervals: samples.length,
    spanMs: spanOf(samples),
    givenBytes,
    used: {
      bytes: last.estimate.pages * pageBytes,
      plusMinusBytes: last.estimate.plusMinus * pageBytes,
      stable: last.estimate.stable,
      spanMs: spanOf(samples.slice(-last.estimate.intervals)),
    },
    percentileBytes: Array.from({ length: 100 / percentileStep + 1 }, (_, i) =>
      percentile(dist, i * percentileStep),
    ),
    writtenBytes: written,
    readOnlyBytes: written === null ? null : last.dist.pages * pageBytes - written,
    idleBytes: last.idlePages.map((pages, i) => ({
      atLeastMs: idleEdgesMs[i] ?? 0,
      bytes: pages * pageBytes,
    })),
    phaseChanges: last.phaseChanges,
    costShare: last.costShare,
    footprintBytes: footprint,
    recommendedBytes: needed,
    largeBytes: (last.largePages ?? 0) * pageBytes,
    hugetlbBytes: (last.hugetlbPages ?? 0) * pageBytes,
  }
}

/** @param samples at least one */
function spanOf(samples: readonly Sample[]): number {
  const first = samples[0]!
  return samples.at(-1)!.atMs - first.atMs + first.windowMs
}

/** Of values in ascending order, between the two nearest. */
function percentile(sorted: readonly number[], percent: number): number {
  const at = ((sorted.length - 1) * percent) / 100
  const low = sorted[Math.floor(at)] ?? 0
  return low + ((sorted[Math.ceil(at)] ?? low) - low) * (at - Math.floor(at))
}
