/**
 * `subpage study workingset`: how far off each way of estimating a working set is, on a real guest with programs whose
 * working set is known, and what watching costs it. After the evaluation of Page Reference Logging (Bitchebe, Tchana,
 * Réveillère), which compares with VMware's sampling.
 */
import { SubpageError } from '../../errors.ts'
import { ascending, percentile } from '../report/statistics.ts'
import type { Study, StudyOptions, StudyResult } from '../study.ts'
import { byAdditions, cases } from './cases.ts'
import { Lab } from './lab.ts'
import { measureLogged } from './logged.ts'
import { type Measured, measureBaseline, measureCase } from './measure.ts'
import { report, text } from './result.ts'
import { measureSlowdown } from './slowdown.ts'
import { access, sampling, type Way } from './ways.ts'

const sets = {
  quick: { intervals: 4, rounds: 1, pairs: 6 },
  full: { intervals: 6, rounds: 3, pairs: 40 },
}

/** Errors are of every estimate, in every round of every case. */
export interface Headline {
  cases: number
  errorP50: number
  errorP95: number
  samplingErrorP50: number
  slowdown: number
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
    const { intervals, rounds, pairs } = sets[set]
    const inLab = async <T>(additions: readonly string[], work: (lab: Lab) => Promise<T>) => {
      note('starting a guest')
      const lab = await Lab.start(signal, additions)
      return await work(lab).finally(() => lab.end())
    }
    const measured: Measured[] = []
    for (const [additions, alike] of byAdditions(chosen))
      await inLab(additions, async (lab) => {
        const baselinePages = await measureBaseline(lab)
        for (const part of alike) {
          note(part.name)
          measured.push(...(await measureCase(lab, part, baselinePages, { intervals, rounds })))
        }
      })
    const [slowdown, about] = await inLab([], async (lab) => {
      note('slowdown')
      const { accel, ramPages } = lab
      return [
        await measureSlowdown(lab, pairs),
        { accel, ramPages, baselinePages: await measureBaseline(lab) },
      ]
    })
    const logged = await measureLogged(chosen, intervals, note, signal)
    const errors = (way: Way) => ascending(measured.flatMap(({ ways }) => ways[way.name]?.errors ?? []))
    const headline: Headline = {
      cases: measured.length,
      errorP50: percentile(errors(access), 0.5),
      errorP95: percentile(errors(access), 0.95),
      samplingErrorP50: percentile(errors(sampling), 0.5),
      slowdown: slowdown.slowdown,
    }
    const result = { ...about, intervals, rounds, measured, slowdown, logged, headline }
    return { json: { set, ...result }, text: (terminal) => text(result, terminal), report: report(result) }
  },
}
