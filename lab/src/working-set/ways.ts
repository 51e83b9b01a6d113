/**
 * The ways to estimate that are compared: where observations come from, and which estimator makes an estimate of them. Each
 * watches the same program in the same guest, one after the other.
 */
import { DistEstimator } from 'subpage/workingset/dist'
import { liveSettings } from 'subpage/workingset/live'
import { RandomPagesPlan } from 'subpage/workingset/plan'
import type { Lab, Watched } from './lab.ts'
import { SamplingEstimator } from './sampling.ts'

export interface Way {
  name: string
  title: string
  /** @param metered take the accessed bits too, as a truth */
  watch(lab: Lab, intervals: number, metered: boolean): Promise<Watched>
}

/** What `subpage wss` does, with its defaults. */
export const access: Way = {
  name: 'access',
  title: 'subpage wss',
  watch: (lab, intervals, metered) =>
    lab.watch({ intervals, settings: liveSettings, estimator: new DistEstimator(lab.ramPages), metered }),
}

/** VMware's: 100 pages at random, others in each interval. */
export const sampling: Way = {
  name: 'sampling',
  title: 'sampling',
  watch: (lab, intervals, metered) =>
    lab.watch({
      intervals,
      settings: liveSettings,
      estimator: new SamplingEstimator(lab.ramPages),
      plan: new RandomPagesPlan(lab.ramPages),
      metered,
    }),
}

export const ways: readonly Way[] = [access, sampling]
