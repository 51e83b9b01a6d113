/**
 * Measures one case: each estimator watches the same program for the same number of intervals, one after the other, and is
 * compared with the truth. Errors are fractions of the truth.
 */
import { liveSettings } from '../../workingset/live.ts'
import { RandomPagesPlan } from '../../workingset/plan.ts'
import { mean, median } from '../report/statistics.ts'
import type { Case } from './cases.ts'
import type { Lab, Line, Window } from './lab.ts'

export interface Measured {
  name: string
  truthPages: number
  /** The estimate that `subpage wss` gives, with its own half width of the 95 % interval. */
  accessPages: number
  plusMinusPages: number
  error: number
  /** VMware's way: the mean over as many intervals, each of 100 pages at random. */
  samplingPages: number
  samplingError: number
  /** What a log of written pages sees (PML). */
  writtenPages: number | null
  writtenError: number | null
  watchedShare: number
  costShare: number
}

/** Every page in every interval: exact, whatever it costs. */
const exact = { ...liveSettings, budget: 1 }
const phaseWindowsMin = 3

/** What the guest uses in an interval while it does nothing, in pages. */
export async function measureIdle(lab: Lab): Promise<number> {
  const { windows } = await lab.watch(exact, 4)
  return mean(windows.slice(1).map(({ pages }) => pages))
}

export async function measureCase(
  lab: Lab,
  study: Case,
  idlePages: number,
  intervals: number,
): Promise<Measured[]> {
  await lab.begin(study.command, study.ready)
  try {
    if (study.truth === 'watched') return [await measureReal(lab, study, intervals)]
    const count = study.truth === 'phases' ? phaseIntervals(study) : intervals
    // What the start has left behind is no part of it.
    await lab.listen(1000)
    const access = await lab.watch(liveSettings, count)
    const sampling = await lab.watch(liveSettings, count, new RandomPagesPlan(lab.ramPages))
    if (study.truth === 'phases') return phases(lab.ramPages, study, access, sampling, idlePages)
    const told = [...access.lines, ...sampling.lines].flatMap(({ text }) => number(/distinct=(\d+)/, text))
    return [compare(lab.ramPages, study.name, mean(told) + idlePages, access, sampling.windows)]
  } finally {
    await lab.stop(study.ends)
  }
}

async function measureReal(lab: Lab, study: Case, intervals: number): Promise<Measured> {
  const half = Math.ceil(intervals / 2)
  const before = await lab.watch(exact, half)
  const access = await lab.watch(liveSettings, intervals)
  const sampling = await lab.watch(liveSettings, intervals, new RandomPagesPlan(lab.ramPages))
  const after = await lab.watch(exact, half)
  const truth = mean([...before.windows, ...after.windows].map(({ pages }) => pages))
  return compare(lab.ramPages, study.name, truth, access, sampling.windows)
}

interface Watched {
  windows: Window[]
  lines: Line[]
  costShare: number
}

function compare(
  ramPages: number,
  name: string,
  truthPages: number,
  { windows, costShare }: Watched,
  sampled: Window[],
): Measured {
  const last = windows.at(-1)!
  const sampling = mean(sampled.map(({ pages }) => pages))
  const written = windows.flatMap(({ writtenPages }) => (writtenPages === undefined ? [] : [writtenPages]))
  const off = (pages: number) => Math.abs(pages - truthPages) / truthPages
  return {
    name,
    truthPages,
    accessPages: last.estimate.pages,
    plusMinusPages: last.estimate.plusMinus,
    error: off(last.estimate.pages),
    samplingPages: sampling,
    samplingError: off(sampling),
    writtenPages: written.length > 0 ? mean(written) : null,
    writtenError: written.length > 0 ? off(mean(written)) : null,
    watchedShare: mean(windows.map(({ watchedPages }) => watchedPages)) / ramPages,
    costShare,
  }
}

// ---- phases

interface Phase {
  fromMs: number
  toMs: number
  pages: number
}

/** Two rounds of all phases, and the part of one that was under way. */
function phaseIntervals({ command }: Case): number {
  const count = /phases=([\d,]+)/.exec(command)?.[1]?.split(',').length ?? 1
  const ms = Number(/phase_ms=(\d+)/.exec(command)?.[1])
  return Math.ceil(((count + 1) * ms) / liveSettings.intervalMs)
}

/** The estimate at the end of each whole phase against its size. */
function phases(
  ramPages: number,
  study: Case,
  access: Watched,
  sampling: Watched,
  idlePages: number,
): Measured[] {
  const found = phasesIn(access.lines)
  return found.flatMap((phase) => {
    const windows = within(phase, access.windows)
    const same = phasesIn(sampling.lines).filter(({ pages }) => pages === phase.pages)
    const sampled = same.flatMap((other) => within(other, sampling.windows))
    if (windows.length < phaseWindowsMin || sampled.length < phaseWindowsMin) return []
    const name = `${study.name}: ${phase.pages / 256} MiB`
    return [compare(ramPages, name, phase.pages + idlePages, { ...access, windows }, sampled)]
  })
}

function phasesIn(lines: Line[]): Phase[] {
  const starts = lines.flatMap(({ atMs, text }) =>
    number(/^workset phase .*pages=(\d+)/, text).map((pages) => ({ atMs, pages })),
  )
  return starts.slice(0, -1).map(({ atMs, pages }, i) => ({ fromMs: atMs, toMs: starts[i + 1]!.atMs, pages }))
}

/** The console is read every 10 ms, and the guest's own clock may be a little late. */
const slackMs = 60

const within = ({ fromMs, toMs }: Phase, windows: Window[]) =>
  windows.filter(({ startMs, endMs }) => startMs >= fromMs && endMs <= toMs - slackMs)

// ---- slowdown

export interface Slowdown {
  /** Processor time for a page, watched against unwatched, in pairs of windows; the middle one, less 1. */
  slowdown: number
  pairs: number[]
  costShare: number
}

/** A program that never rests, with and without somebody watching, in turn. */
export async function measureSlowdown(lab: Lab, pairCount: number, windowMs: number): Promise<Slowdown> {
  await lab.begin('workset mib=64 mode=mixed order=random period_ms=1', /^workset ready/m)
  try {
    await lab.listen(1000)
    const pairs: number[] = []
    const costs: number[] = []
    const watched = async () => {
      const { lines, costShare } = await lab.watch(
        liveSettings,
        Math.round(windowMs / liveSettings.intervalMs),
      )
      costs.push(costShare)
      return lines
    }
    for (let pair = 0; pair < pairCount; pair++) {
      // Which comes first changes, so that a drift of the host favours neither.
      const order =
        pair % 2 === 0 ? [watched, () => lab.listen(windowMs)] : [() => lab.listen(windowMs), watched]
      const first = await nsPerPage(lab, order[0]!)
      const second = await nsPerPage(lab, order[1]!)
      pairs.push(pair % 2 === 0 ? first / second - 1 : second / first - 1)
    }
    return { slowdown: median(pairs), pairs, costShare: mean(costs) }
  } finally {
    await lab.stop('workset')
  }
}

/** Processor time of the guest over the pages that it touched in whole seconds of its own. */
async function nsPerPage(lab: Lab, during: () => Promise<Line[]>): Promise<number> {
  const startNs = await lab.processorNs()
  const startMs = performance.now()
  const lines = await during()
  const ns = (await lab.processorNs()) - startNs
  const ms = performance.now() - startMs
  const touched = lines.flatMap(({ text }) => number(/^workset periods=\d+ pages=(\d+)/, text))
  // A line is what a second of the guest's clock has touched; its processor is never idle.
  return ns / ((mean(touched) * ms) / 1000)
}

function number(pattern: RegExp, text: string): number[] {
  const match = pattern.exec(text)
  return match ? [Number(match[1])] : []
}
