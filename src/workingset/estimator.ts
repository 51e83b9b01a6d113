/**
 * One interface for all ways to say how much memory a guest works with. An estimator is fed with observations, in order of
 * time, and has an estimate from the first whole interval on.
 */
import type { Observation } from './observation.ts'

export interface Estimate {
  /** Pages in the working set. */
  pages: number
  /** Half the width of the 95 % interval, in pages. */
  plusMinus: number
  /** It has stayed the same for as long as the rule asks. */
  stable: boolean
  /** It is the estimate of so many intervals, the latest. */
  intervals: number
}

export interface Estimator {
  add(observation: Observation): void
  /** Undefined before the first interval has ended. */
  readonly estimate: Estimate | undefined
}
