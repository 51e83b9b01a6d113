/**
 * `subpage study workingset`: how far off each way of estimating a working set is, on a real guest with programs whose
 * working set is known, and what watching costs it. After the evaluation of Page Reference Logging (Bitchebe, Tchana,
 * Réveillère), which compares with VMware's sampling.
 */
import { needBuilt } from 'subpage/built'
import { SubpageError } from 'subpage/errors'
import { ascending, percentile } from '../report/statistics.ts'
import { type Study, type StudyOptions, type StudyResult, untilInterrupted } from '../study.ts'
import { byAdditions, cases } from './cases.ts'
import { Lab } from './lab.ts'
import { type Logged, measureLogged } from './logged.ts'
import { type Measured, measureBaseline, measureCase } from './measure.ts'
import { type Result, report, text } from './result.ts'
import { measureSlowdown, type Slowdown } from './slowdown.ts'
import { access, sampling, type Way } from './ways.ts'

const sets = {
  quick: { intervals: 4, rounds: 1, pairs: 6 },
  full: { intervals: 6, rounds: 3, pairs: 100 },
}

/** Errors are of every estimate, in every round of every case. */
export interface Headline {
  cases: number
  errorP50: number
  errorP95: number
  samplingErrorP50: number
  /** Null when the study ended before. */
  slowdown: number | null
}

export const study: Study = {
  async run({ set, only, note, signal }: StudyOptions): Promise<StudyResult> {
    const chosen = cases.filter(({ name, quick }) =>
      only ? only.some((part) => name.startsWith(part)) : set === 'full' || quick,
    )
    if (chosen.length === 0)
      throw new SubpageError(
        'BAD_ARGUMENT',
        `no part is named ${only?.join(', ')}: they begin with ${[...new Set(cases.map(({ name }) => name.split(' ')[0]))].join(', ')}`,
      )
    needBuilt('guest', 'workloads')
    const { intervals, rounds, pairs } = sets[set]
    const inLab = async (additions: readonly string[], work: (lab: Lab) => Promise<void>) => {
      note('starting a guest')
      signal.throwIfAborted()
      const lab = await Lab.start(signal, additions)
      await work(lab).finally(() => lab.end())
    }
    let about: Pick<Result, 'accel' | 'ramPages' | 'baselinePages'> | undefined
    const measured: Measured[] = []
    const logged: Logged[] = []
    let slowdown: Slowdown | null = null
    await untilInterrupted(signal, async () => {
      for (const [additions, alike] of byAdditions(chosen))
        await inLab(additions, async (lab) => {
          const { accel, ramPages } = lab
          const baselinePages = await measureBaseline(lab)
          about ??= { accel, ramPages, baselinePages }
          for (const part of alike) {
            note(part.name)
            measured.push(...(await measureCase(lab, part, baselinePages, { intervals, rounds })))
          }
        })
      note('slowdown')
      await inLab([], async (lab) => {
        slowdown = await measureSlowdown(lab, pairs)
      })
      await measureLogged(chosen, intervals, logged, note, signal)
    })
    if (!about || measured.length === 0) throw signal.reason
    const result = {
      ...about,
      intervals,
      rounds,
      measured,
      slowdown,
      logged,
      headline: headlineOf(measured, slowdown),
    }
    return { json: { set, ...result }, text: (terminal) => text(result, terminal), report: report(result) }
  },
}

function headlineOf(measured: readonly Measured[], slowdown: Slowdown | null): Headline {
  const errors = (way: Way) => ascending(measured.flatMap(({ ways }) => ways[way.name]?.errors ?? []))
  return {
    cases: measured.length,
    errorP50: percentile(errors(access), 0.5),
    errorP95: percentile(errors(access), 0.95),
    samplingErrorP50: percentile(errors(sampling), 0.5),
    slowdown: slowdown?.slowdown ?? null,
  }
}
