/** The working set for people: the recommendation in plain words, then percentiles, idle ages and a heat map. */

import { pageBytes } from '../memory/page.ts'
import { formatBytes, formatTime } from '../units.ts'
import type { Sample } from '../workingset/sample.ts'
import { percentileStep, type Summary } from '../workingset/summary.ts'
import { table } from './output.ts'

const barColumns = 40
const shades = ' .:-=+*#%@'

/** What was watched: a guest, a process, or a recording. */
export type TargetKind = 'vm' | 'pid' | 'trace'

export function summaryText(summary: Summary, samples: readonly Sample[], kind: TargetKind): string {
  return [
    recommendation(summary, kind),
    '',
    ...notesOn(summary, kind),
    '',
    percentiles(summary),
    '',
    ...(summary.idleBytes.length > 0 ? [idleAges(summary), ''] : []),
    heatMap(samples),
  ].join('\n')
}

/** "512 MiB given, 180 ± 12 MiB used over the last 10 s; 224 MiB would do". */
export function recommendation(summary: Summary, kind: TargetKind): string {
  const { givenBytes, used, recommendedBytes } = summary
  const amount = plusMinus(used.bytes, used.plusMinusBytes)
  const given = formatBytes(givenBytes)
  if (kind === 'trace')
    return `${given} recorded, ${amount} written within an interval, over the last ${formatTime(used.spanMs)}`
  const verdict =
    recommendedBytes < givenBytes
      ? `${formatBytes(recommendedBytes)} would do`
      : 'it needs what it has, or more'
  return `${given} ${kind === 'vm' ? 'given' : 'resident'}, ${amount} used over the last ${formatTime(used.spanMs)}; ${verdict}`
}

/** What the figures do not say by themselves. */
export function notesOn(summary: Summary, kind: TargetKind): string[] {
  const { used, writtenBytes, readOnlyBytes, phaseChanges, costShare, footprintBytes, intervals } = summary
  const stable = used.stable
    ? `Stable for the last intervals (${intervals} in all, ${phaseChanges} changes of phase).`
    : `Not stable yet: watch longer (${intervals} intervals, ${phaseChanges} changes of phase).`
  if (kind === 'trace')
    return [stable, 'A recording holds what was written: memory that was only read is not counted.']
  const cost = `Cost: ${(100 * costShare).toFixed(2)} % of its time.`
  if (kind === 'pid')
    return [
      stable,
      'By the accessed bits of its page tables: memory used without rest may be missed, as much as a TLB holds; reads and writes are not told apart.',
      ...(summary.largeBytes > 0
        ? [
            `${formatBytes(summary.largeBytes)} are in transparent huge pages, of which the processor tells only that something in them was used: the figure is between one page and all of each.`,
          ]
        : []),
      ...(summary.hugetlbBytes > 0
        ? [
            `${formatBytes(summary.hugetlbBytes)} are hugetlb memory, of whose use the kernel tells nothing: the figure is between none and all of it.`,
          ]
        : []),
      cost,
    ]
  return [
    stable,
    writtenBytes === null
      ? 'Written: not known (a protection began or ended meanwhile).'
      : `Written ${formatBytes(writtenBytes)}, only read ${formatBytes(readOnlyBytes ?? 0)}, in the last interval.`,
    `Kernel of the guest: ${formatBytes(footprintBytes)} counted on top.`,
    cost,
  ]
}

function percentiles({ percentileBytes }: Summary): string {
  const most = Math.max(...percentileBytes, 1)
  const rows = percentileBytes.map((bytes, i) => [
    `p${i * percentileStep}`,
    formatBytes(bytes),
    bar(bytes / most),
  ])
  return table([['OF INTERVALS', 'USED', ''], ...rows])
}

function idleAges({ idleBytes }: Summary): string {
  const most = Math.max(...idleBytes.map(({ bytes }) => bytes), 1)
  const rows = idleBytes.map(({ atLeastMs, bytes }) => [
    atLeastMs === 0 ? 'in use' : `${formatTime(atLeastMs)} or more`,
    formatBytes(bytes),
    bar(bytes / most),
  ])
  return table([['IDLE FOR', 'MEMORY', ''], ...rows])
}

/** Memory from top to bottom, time from left to right. */
function heatMap(samples: readonly Sample[]): string {
  const columns = samples.slice(-72)
  const rows = columns[0]?.heat.length ?? 0
  const lines: string[] = []
  for (let row = 0; row < rows; row += 4) {
    const cells = columns.map(({ heat }) => {
      const known = heat.slice(row, row + 4).filter((percent) => percent >= 0)
      if (known.length === 0) return '?'
      const mean = known.reduce((sum, percent) => sum + percent, 0) / known.length
      return shades[Math.min(shades.length - 1, Math.ceil((mean * (shades.length - 1)) / 100))]
    })
    lines.push(cells.join(''))
  }
  const height = (columns[0]?.ramPages ?? 0) * pageBytes
  return `heat map: a line is ${formatBytes((height * 4) / rows)} of memory, a column an interval; @ all in use, blank nothing\n${lines.join('\n')}`
}

export const lineHead = 'USED              WRITTEN   STABLE  PHASES  COST     WATCHED'

export function lineText(sample: Sample): string {
  const { dist, written, estimate, phaseChanges, costShare, watchedPages, ramPages } = sample
  return [
    plusMinus(dist.pages * pageBytes, dist.plusMinus * pageBytes).padEnd(16),
    (written ? formatBytes(written.pages * pageBytes) : '-').padEnd(8),
    (estimate.stable ? 'yes' : 'no').padEnd(6),
    String(phaseChanges).padEnd(6),
    `${(100 * costShare).toFixed(2)} %`.padEnd(7),
    `${((100 * watchedPages) / ramPages).toFixed(0)} %`,
  ].join('  ')
}

const bar = (share: number) => '█'.repeat(Math.round(share * barColumns))
/** Whole numbers, but small ones with a digit. */
/** In MiB, unless it is so little that it would be none. */
function plusMinus(bytes: number, either: number): string {
  return Math.max(bytes, either) < 2 ** 20
    ? `${formatBytes(bytes)} ± ${formatBytes(either)}`
    : `${mib(bytes)} ± ${mib(either)} MiB`
}

const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(bytes < 9.95 * 2 ** 20 ? 1 : 0)
