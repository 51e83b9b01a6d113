/**
 * Watches a process that was not prepared for it: interval after interval, how much of its memory the processor's accessed
 * bits say it used. Nothing is forgotten, since dropping entries of private memory would lose what is in it, and nothing is
 * put into the process; so which pages they were is known by mapping only, and writes are not told from reads.
 *
 * What it costs the process: the kernel walks its page tables twice an interval, on our processor; the process waits only
 * where it needs a table that is being read. The cost that is told is that of the walks, an upper bound. What may be missed: src/tracking/referenced.ts.
 */
import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { SubpageError } from '../errors.ts'
import { pageBytes } from '../memory/page.ts'
import { assertOwnProc } from '../qemu/process.ts'
import {
  clearReferences,
  isKernelThread,
  type ReferencedMapping,
  readReferences,
} from '../tracking/referenced.ts'
import { DistEstimator } from './dist.ts'
import { heatRows, type Sample } from './sample.ts'
import type { Share } from './share.ts'

const largePagePages = largePageBytes() / pageBytes

function largePageBytes(): number {
  try {
    return Number(readFileSync('/sys/kernel/mm/transparent_hugepage/hpage_pmd_size', 'utf8'))
  } catch {
    // A kernel without them: none are counted.
    return 2 * 2 ** 20
  }
}

/**
 * A sample for each interval, until the caller has enough. `ramPages` is what is resident.
 * @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE, BAD_ARGUMENT for what has no memory to watch
 */
export async function* watchProcess(
  pid: number,
  intervalMs: number,
  signal?: AbortSignal,
): AsyncGenerator<Sample> {
  assertOwnProc()
  assertWatchable(pid)
  const estimator = new DistEstimator(0)
  const doubts: number[] = []
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
    const dist = usedOf(mappings)
    // What large pages leave open is the same in each interval: more intervals do not make it less.
    estimator.addInterval({ pages: dist.pages, plusMinus: 0 })
    doubts.push(dist.plusMinus)
    const { estimate, phaseChanges } = estimator
    if (!estimate) throw new TypeError('an interval has ended, so there is an estimate')
    const resident = sum(mappings, 'residentPages') + sum(mappings, 'hugetlbPages')
    yield {
      atMs: Date.now(),
      windowMs: endMs - clearedMs,
      ramPages: resident,
      watchedPages: resident,
      dist,
      estimate: { ...estimate, plusMinus: estimate.plusMinus + mean(doubts.slice(-estimate.intervals)) },
      written: null,
      phaseChanges,
      idlePages: [],
      heat: heatOf(mappings, resident),
      largePages: sum(mappings, 'largePages'),
      hugetlbPages: sum(mappings, 'hugetlbPages'),
      costShare: walkUs / 1000 / (performance.now() - startedMs),
    }
  }
}

/** @throws SubpageError BAD_ARGUMENT */
function assertWatchable(pid: number): void {
  if (!existsSync(`/proc/${pid}`)) throw new SubpageError('BAD_ARGUMENT', `there is no process ${pid}`)
  if (isKernelThread(pid))
    throw new SubpageError(
      'BAD_ARGUMENT',
      `process ${pid} is a thread of the kernel, which has no memory of its own: name another process`,
    )
}

type Counted = 'residentPages' | 'referencedPages' | 'largePages' | 'hugetlbPages'

const sum = (mappings: readonly ReferencedMapping[], what: Counted) =>
  mappings.reduce((pages, mapping) => pages + mapping[what], 0)

const mean = (values: readonly number[]) =>
  values.reduce((total, value) => total + value, 0) / Math.max(1, values.length)

/** Where the truth lies between two bounds: a large page that was accessed was used in one page of it, or in all. */
function usedOf(mappings: readonly ReferencedMapping[]): Share {
  let [least, most] = [0, 0]
  for (const { referencedPages, largePages, hugetlbPages } of mappings) {
    const inLarge = Math.min(referencedPages, largePages)
    least += referencedPages - inLarge + inLarge / largePagePages
    most += referencedPages + hugetlbPages
  }
  return { pages: (least + most) / 2, plusMinus: (most - least) / 2 }
}

/** Resident memory in the order of its addresses; within a mapping the share is the same everywhere. */
function heatOf(mappings: readonly ReferencedMapping[], resident: number): number[] {
  const hot = new Float64Array(heatRows)
  const rowPages = resident / heatRows
  let at = 0
  for (const mapping of mappings) {
    const residentPages = mapping.residentPages + mapping.hugetlbPages
    const referencedPages = mapping.referencedPages + mapping.hugetlbPages
    const end = at + residentPages
    for (let row = Math.floor(at / rowPages); row < heatRows && row * rowPages < end; row++) {
      const overlap = Math.min(end, (row + 1) * rowPages) - Math.max(at, row * rowPages)
      hot[row]! += (overlap * referencedPages) / residentPages
    }
    at = end
  }
  return Array.from(hot, (pages) => (resident === 0 ? -1 : Math.round((100 * pages) / rowPages)))
}
