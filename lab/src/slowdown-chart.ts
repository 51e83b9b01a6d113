/** What measuring a slowdown by turns has found: a dot for each pair of windows. */
import type { Chart } from 'subpage/report/chart'

/** @param guests each pair's slowdown, as a share */
export function slowdownChart(
  meaning: string,
  guests: readonly { name: string; pairs: readonly number[] }[],
): Chart {
  return {
    kind: 'line',
    style: 'dots',
    name: 'slowdown',
    title: 'Slowdown by pair of windows',
    meaning,
    x: { label: 'pair', unit: 'count' },
    y: { label: 'slowdown', unit: 'share' },
    series: guests.map(({ name, pairs }) => ({
      name,
      points: pairs.map((share, i) => [i + 1, share] as const),
    })),
  }
}
