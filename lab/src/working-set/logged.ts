/**
 * The estimates beside the exact record of every access, in a guest whose QEMU has the plugin: `subpage wss`, Page Reference
 * Logging and Page Modification Logging look at the same intervals, and so does the truth.
 */
import { DistEstimator } from 'subpage/workingset/dist'
import type { Estimate } from 'subpage/workingset/estimator'
import { liveSettings } from 'subpage/workingset/live'
import { exactSource, type ObservationSource, pmlSource, prlSource } from '../plugin/observations.ts'
import { mean } from '../report/statistics.ts'
import { byAdditions, type Case } from './cases.ts'
import { Lab } from './lab.ts'

interface Judged {
  pages: number
  error: number
}

export interface Logged {
  name: string
  /** Pages accessed in an interval, the mean of all. */
  exactPages: number
  access: Judged & { plusMinusPages: number; covered: boolean }
  prl: Judged
  pml: Judged
}

/** A page belongs to the working set when it was logged at all. */
const tau = 0

/** Adds to `found`. Cases with phases are left out: the slower guest makes other phases of them. */
export async function measureLogged(
  cases: readonly Case[],
  intervals: number,
  found: Logged[],
  note: (text: string) => void,
  signal: AbortSignal,
): Promise<void> {
  for (const [additions, alike] of byAdditions(cases.filter(({ truth }) => truth !== 'phases'))) {
    note('starting a guest with the plugin')
    const lab = await Lab.start(signal, additions, ['pml', 'prl', 'accesses'])
    try {
      for (const study of alike) {
        note(`${study.name}, every access`)
        found.push(await measure(lab, study, intervals))
      }
    } finally {
      await lab.end()
    }
  }
}

async function measure(lab: Lab, study: Case, intervals: number): Promise<Logged> {
  await lab.begin(study.command, study.ready)
  try {
    using share = await lab.openShare()
    await lab.listen(1000)
    const exact: number[] = []
    const [prl, pml] = [new DistEstimator(lab.ramPages), new DistEstimator(lab.ramPages)]
    const truth = exactSource(share)
    const logs: [DistEstimator, ObservationSource][] = [
      [prl, prlSource(share, tau)],
      [pml, pmlSource(share)],
    ]
    const { windows } = await lab.watch({
      intervals,
      settings: liveSettings,
      estimator: new DistEstimator(lab.ramPages),
      atInterval: () => {
        exact.push(truth.look().accessed.pageCount)
        for (const [estimator, source] of logs) estimator.add(source.look())
      },
    })
    const last = windows.at(-1)!.estimate
    /** Against the intervals that it is the estimate of. */
    const judge = ({ pages, intervals: counted }: Estimate): Judged => {
      const truth = mean(exact.slice(-counted))
      return { pages, error: Math.abs(pages - truth) / truth }
    }
    const access = judge(last)
    return {
      name: study.name,
      exactPages: mean(exact),
      access: {
        ...access,
        plusMinusPages: last.plusMinus,
        covered: Math.abs(last.pages - mean(exact.slice(-last.intervals))) <= last.plusMinus,
      },
      prl: judge(prl.estimate!),
      pml: judge(pml.estimate!),
    }
  } finally {
    await lab.endPrograms(study.ends)
  }
}
