/**
 * Measures one case: each way watches the same program for the same number of intervals, in turn and several times, and
 * every estimate is compared with the truth of its own time. Errors are fractions of the truth.
 */
import { DistEstimator } from 'subpage/workingset/dist'
import { liveSettings } from 'subpage/workingset/live'
import { type Line, numbersIn } from '../console-reader.ts'
import { mean } from '../report/statistics.ts'
import type { Case } from './cases.ts'
import type { Lab, Watched, Window } from './lab.ts'
import { access, type Way, ways } from './ways.ts'

/** What one way has said of one case. */
export interface Judged {
  /** Means over the rounds, with the way's own half width of its 95 % interval. */
  pages: number
  plusMinusPages: number
  /** One for each round. */
  errors: number[]
  /** In how many rounds the truth lay within the estimate's own error bar. */
  covered: number
}

export interface Measured {
  name: string
  truth: Case['truth']
  truthPages: number
  /** By the names of `ways`. */
  ways: Record<string, Judged>
  /** What a log of written pages sees (PML). */
  writtenPages: number | null
  writtenError: number | null
  watchedShare: number
  costShare: number
}

/** An estimate beside the truth of its time. */
interface Verdict {
  /** The case, or a phase of it. */
  name: string
  way: Way
  truthPages: number
  pages: number
  plusMinusPages: number
  windows: Window[]
  costShare: number
}

/** Every page in every interval: exact, whatever it costs. */
const exact = { ...liveSettings, budget: 1 }
const phaseWindowsMin = 3

/**
 * What the guest uses in an interval beside the memory that a synthetic program works on, in pages: its kernel, the console,
 * and the program's code. Seen beside one that works on little.
 */
export async function measureBaseline(lab: Lab): Promise<number> {
  await lab.begin('workset mib=1 mode=read', /^workset ready/m)
  try {
    await lab.listen(1000)
    const { windows, lines } = await lab.watch({
      intervals: 5,
      settings: exact,
      estimator: new DistEstimator(lab.ramPages),
    })
    return mean(windows.slice(1).map(({ pages }) => pages)) - toldPages(lines)
  } finally {
    await lab.endPrograms('workset')
  }
}

export async function measureCase(
  lab: Lab,
  study: Case,
  baselinePages: number,
  { intervals, rounds }: { intervals: number; rounds: number },
): Promise<Measured[]> {
  await lab.begin(study.command, study.ready)
  try {
    // What the start has left behind is no part of it.
    await lab.listen(1000)
    const verdicts: Verdict[] = []
    // The phases of one watch are as good as rounds.
    for (let round = 0; round < (study.truth === 'phases' ? 1 : rounds); round++)
      for (const way of ways) verdicts.push(...(await judge(lab, study, way, baselinePages, intervals)))
    return [...new Set(verdicts.map(({ name }) => name))].flatMap((name) => {
      const all = verdicts.filter((verdict) => verdict.name === name)
      return ways.every((way) => all.some((verdict) => verdict.way === way))
        ? [measured(name, study, all, lab.ramPages)]
        : []
    })
  } finally {
    await lab.endPrograms(study.ends)
  }
}

async function judge(
  lab: Lab,
  study: Case,
  way: Way,
  baselinePages: number,
  intervals: number,
): Promise<Verdict[]> {
  const metered = study.truth === 'referenced'
  const watched = await way.watch(lab, study.truth === 'phases' ? phaseIntervals(study) : intervals, metered)
  const { lines, windows } = watched
  if (study.truth === 'phases') return phaseVerdicts(study, way, watched, baselinePages)
  // An estimate is that of so many intervals, the latest.
  const { intervals: counted } = windows.at(-1)!.estimate
  const truth = metered
    ? mean(windows.slice(-counted).map(({ referencedPages }) => referencedPages ?? Number.NaN))
    : toldPages(lines) + baselinePages
  return [verdict(study.name, way, truth, watched)]
}

/** By the program's own words: different pages touched, and used to keep account. */
const toldPages = (lines: Line[]) => mean(numbersIn(lines, /distinct=(\d+)/)) + ownPages(lines)
const ownPages = (lines: Line[]) => mean(numbersIn(lines, /own=(\d+)/))

function verdict(name: string, way: Way, truthPages: number, { windows, costShare }: Watched): Verdict {
  const { pages, plusMinus } = windows.at(-1)!.estimate
  return { name, way, truthPages, pages, plusMinusPages: plusMinus, windows, costShare }
}

function measured(name: string, { truth }: Case, verdicts: Verdict[], ramPages: number): Measured {
  const own = verdicts.filter(({ way }) => way === access)
  const windows = own.flatMap(({ windows }) => windows)
  const written = windows.flatMap(({ writtenPages }) => (writtenPages === undefined ? [] : [writtenPages]))
  const truthPages = mean(own.map(({ truthPages }) => truthPages))
  return {
    name,
    truth,
    truthPages,
    ways: Object.fromEntries(
      ways.map((way) => [way.name, judged(verdicts.filter((verdict) => verdict.way === way))]),
    ),
    writtenPages: written.length > 0 ? mean(written) : null,
    writtenError: written.length > 0 ? Math.abs(mean(written) - truthPages) / truthPages : null,
    watchedShare: mean(windows.map(({ watchedPages }) => watchedPages)) / ramPages,
    costShare: mean(own.map(({ costShare }) => costShare)),
  }
}

function judged(verdicts: Verdict[]): Judged {
  const off = verdicts.map(({ pages, truthPages }) => Math.abs(pages - truthPages))
  return {
    pages: mean(verdicts.map(({ pages }) => pages)),
    plusMinusPages: mean(verdicts.map(({ plusMinusPages }) => plusMinusPages)),
    errors: verdicts.map(({ truthPages }, i) => off[i]! / truthPages),
    covered: verdicts.filter(({ plusMinusPages }, i) => off[i]! <= plusMinusPages).length,
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
  return Math.ceil(((2 * count + 1) * ms) / liveSettings.intervalMs)
}

/** The estimate at the end of each whole phase against its size. */
function phaseVerdicts(study: Case, way: Way, watched: Watched, baselinePages: number): Verdict[] {
  return phasesIn(watched.lines).flatMap((phase) => {
    const windows = within(phase, watched.windows)
    if (windows.length < phaseWindowsMin) return []
    const name = `${study.name}: ${phase.pages / 256} MiB`
    const found = verdict(name, way, phase.pages + ownPages(watched.lines) + baselinePages, {
      ...watched,
      windows,
    })
    // Sampling knows no phases: it is given them.
    return [way === access ? found : { ...found, pages: mean(windows.map(({ pages }) => pages)) }]
  })
}

function phasesIn(lines: Line[]): Phase[] {
  const starts = lines.flatMap((line) =>
    numbersIn([line], /^workset phase .*pages=(\d+)/).map((pages) => ({ atMs: line.atMs, pages })),
  )
  return starts.slice(0, -1).map(({ atMs, pages }, i) => ({ fromMs: atMs, toMs: starts[i + 1]!.atMs, pages }))
}

/** The console is read every few milliseconds, and the guest's own clock may be a little late. */
const slackMs = 60

const within = ({ fromMs, toMs }: Phase, windows: Window[]) =>
  windows.filter(({ startMs, endMs }) => startMs >= fromMs && endMs <= toMs - slackMs)
