/** What is measured in rounds: the middle, how far it varies, and whether two ways differ by more than that. */
import { ascending, median, percentile } from 'subpage-lab/report/statistics'

export interface Spread {
  median: number
  /** First and third quartile. */
  low: number
  high: number
}

export interface Difference extends Spread {
  /** It is larger than the spread: three quarters of the rounds agree on its direction. */
  told: boolean
}

export function spreadOf(values: readonly number[]): Spread {
  const sorted = ascending(values)
  return { median: median(values), low: percentile(sorted, 0.25), high: percentile(sorted, 0.75) }
}

/** In pairs: what was measured in the same round. */
export function differenceOf(values: readonly number[], base: readonly number[]): Difference {
  const spread = spreadOf(values.map((value, round) => value - base[round]!))
  return { ...spread, told: spread.low > 0 || spread.high < 0 }
}
