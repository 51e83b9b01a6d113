/** Distributions: percentiles, bins, cumulative shares. Percentiles are of the nearest rank: always a value that occurred. */
import type { Axis, Histogram, Series } from 'subpage/report/chart'

/** @param sorted ascending, not empty. @param share from 0 to 1 */
export function percentile(sorted: ArrayLike<number>, share: number): number {
  if (sorted.length === 0) throw new TypeError('there is no percentile of nothing')
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!
}

export function ascending(values: Iterable<number>): Float64Array {
  return Float64Array.from(values).sort()
}

export const sum = (values: Iterable<number>): number => {
  let total = 0
  for (const value of values) total += value
  return total
}

export function mean(values: ArrayLike<number>): number {
  return values.length === 0 ? Number.NaN : sum(Array.from(values)) / values.length
}

/** The middle value, or the mean of the two middle ones. */
export function median(values: Iterable<number>): number {
  const sorted = ascending(values)
  const middle = sorted.length >> 1
  if (sorted.length === 0) return Number.NaN
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** The geometric mean of ratios, and between which it lies with 95 % confidence. */
export function ratioInterval(ratios: readonly number[]): { mean: number; low: number; high: number } {
  const logs = ratios.map(Math.log)
  const middle = mean(logs)
  const variance = sum(logs.map((log) => (log - middle) ** 2)) / Math.max(1, logs.length - 1)
  const reach = 1.96 * Math.sqrt(variance / logs.length)
  return { mean: Math.exp(middle), low: Math.exp(middle - reach), high: Math.exp(middle + reach) }
}

/** Bins of equal width, or of equal ratio for a logarithmic axis; the last one includes its upper end. */
export function bins(
  values: readonly number[],
  count: number,
  scale: Axis['scale'] = 'linear',
): Histogram['bins'] {
  if (values.length === 0) return []
  const sorted = ascending(values)
  const [low, high] = [sorted[0]!, sorted.at(-1)!]
  const to = scale === 'log' ? Math.log : (value: number) => value
  const back = scale === 'log' ? Math.exp : (value: number) => value
  if (scale === 'log' && !(low > 0)) throw new TypeError('a logarithmic axis has positive values only')
  if (low === high) return [{ from: low, to: high, count: values.length }]
  const width = (to(high) - to(low)) / count
  const counts = new Array<number>(count).fill(0)
  for (const value of sorted) counts[Math.min(count - 1, Math.floor((to(value) - to(low)) / width))]!++
  return counts.map((found, i) => ({
    from: i === 0 ? low : back(to(low) + i * width),
    to: i === count - 1 ? high : back(to(low) + (i + 1) * width),
    count: found,
  }))
}

/** The share of values at or below each; at most `pointsMax` points, both ends among them. For a chart of style `step`. */
export function cumulative(name: string, values: readonly number[], pointsMax = 400): Series {
  const sorted = ascending(values)
  const points: [number, number][] = []
  const step = Math.max(1, sorted.length / pointsMax)
  for (let at = step; at < sorted.length; at += step)
    points.push([sorted[Math.ceil(at) - 1]!, Math.ceil(at) / sorted.length])
  if (sorted.length > 0) points.push([sorted.at(-1)!, 1])
  return { name, points: points.filter(([x], i) => x !== points[i + 1]?.[0]) }
}

/**
 * Fewer points for the eye: of each of at most `pointsMax` stretches the one with the largest value, so that no peak is lost.
 */
export function thinned(points: Series['points'], pointsMax = 600): Series['points'] {
  if (points.length <= pointsMax) return points
  const stretch = points.length / pointsMax
  return Array.from({ length: pointsMax }, (_, i) => {
    const part = points.slice(Math.floor(i * stretch), Math.floor((i + 1) * stretch))
    return part.reduce((best, point) => (point[1] > best[1] || Number.isNaN(best[1]) ? point : best))
  })
}
