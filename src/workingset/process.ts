/**
 * Watches a process that was not prepared for it: interval after interval, how much of its memory the processor's accessed
 * bits say it used. Nothing is forgotten, since dropping entries of private memory would lose what is in it, and nothing is
 * put into the process; so which pages they were is known by mapping only, and writes are not told from reads.
 *
 * What it costs the process: the kernel walks its page tables twice an interval, on our processor; the process waits only
 * where it needs a table that is being read. The cost that is told is that of the walks, an upper bound. What may be missed: src/tracking/referenced.ts.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { assertOwnProc } from '../qemu/process.ts'
import { clearReferences, type ReferencedMapping, readReferences } from '../tracking/referenced.ts'
import { DistEstimator } from './dist.ts'
import { heatRows, type Sample } from './sample.ts'

/**
 * A sample for each interval, until the caller has enough. `ramPages` is what is resident.
 * @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE, BAD_ARGUMENT
 */
export async function* watchProcess(
  pid: number,
  intervalMs: number,
  signal?: AbortSignal,
): AsyncGenerator<Sample> {
  assertOwnProc()
  const estimator = new DistEstimator(0)
  const startedMs = performance.now()
  let walkUs = 0
  for (;;) {
    const fromMs = performance.now()
    let before = process.cpuUsage()
    clearReferences(pid)
    walkUs += process.cpuUsage(before).system
    const clearedMs = performance.now()
    await delay(Math.max(1, fromMs + intervalMs - clearedMs), undefined, { signal })
    const endMs = performance.now()
    before = process.cpuUsage()
    const mappings = readReferences(pid)
    walkUs += process.cpuUsage(before).system
    estimator.addInterval({ pages: sum(mappings, 'referencedPages'), plusMinus: 0 })
    const { latest, estimate, phaseChanges } = estimator
    if (!latest || !estimate) throw new TypeError('an interval has ended, so there is an estimate')
    const resident = sum(mappings, 'residentPages')
    yield {
      atMs: Date.now(),
      windowMs: endMs - clearedMs,
      ramPages: resident,
      watchedPages: resident,
      dist: latest,
      estimate,
      written: null,
      phaseChanges,
      idlePages: [],
      heat: heatOf(mappings, resident),
      costShare: walkUs / 1000 / (performance.now() - startedMs),
    }
  }
}

const sum = (mappings: readonly ReferencedMapping[], what: 'residentPages' | 'referencedPages') =>
  mappings.reduce((pages, mapping) => pages + mapping[what], 0)

/** Resident memory in the order of its addresses; within a mapping the share is the same everywhere. */
function heatOf(mappings: readonly ReferencedMapping[], resident: number): number[] {
  const hot = new Float64Array(heatRows)
  const rowPages = resident / heatRows
  let at = 0
  for (const { residentPages, referencedPages } of mappings) {
    const end = at + residentPages
    for (let row = Math.floor(at / rowPages); row < heatRows && row * rowPages < end; row++) {
      const overlap = Math.min(end, (row + 1) * rowPages) - Math.max(at, row * rowPages)
      hot[row]! += (overlap * referencedPages) / residentPages
    }
    at = end
  }
  return Array.from(hot, (pages) => (resident === 0 ? -1 : Math.round((100 * pages) / rowPages)))
}
