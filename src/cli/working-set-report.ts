/** The page that `subpage wss --html` writes: the working set over time, its percentiles, reads and writes, ages, heat. */
import { pageBytes } from '../memory/page.ts'
import type { Axis, Chart } from '../report/chart.ts'
import type { Report, Section } from '../report/page.ts'
import { formatBytes, formatTime } from '../units.ts'
import type { Sample } from '../workingset/sample.ts'
import { percentileStep, type Summary } from '../workingset/summary.ts'

const heatColumnsMax = 360
const bytesAxis = (label: string): Axis => ({ label, unit: 'bytes' })

export interface WorkingSetPage {
  /** "vm:web", "pid:4711", a file's name. */
  target: string
  /** The answer in plain words. */
  lead: string
  /** What the figures do not say by themselves, one sentence each. */
  notes: readonly string[]
  summary: Summary
  /** At least one. */
  samples: readonly Sample[]
}

export function workingSetReport({ target, lead, notes, summary, samples }: WorkingSetPage): Report {
  const { givenBytes, used, recommendedBytes, costShare, intervals, spanMs } = summary
  return {
    title: `The working set of ${target}`,
    lead: `${lead}.`,
    facts: [
      { name: 'it has', value: formatBytes(givenBytes) },
      {
        name: 'it uses',
        value: formatBytes(used.bytes),
        meaning: `± ${formatBytes(used.plusMinusBytes)}, ${used.stable ? 'stable' : 'not stable yet'}`,
      },
      { name: 'would do', value: formatBytes(recommendedBytes), meaning: 'with headroom' },
      { name: 'cost', value: `${(100 * costShare).toFixed(2)} %`, meaning: 'of its time, by being watched' },
    ],
    sections: [overTime(summary, samples, notes), reads(summary), ages(summary), heat(samples)].filter(
      (section) => section !== undefined,
    ),
    source: `${target}, ${intervals} intervals in ${formatTime(spanMs)}, until ${new Date(samples.at(-1)!.atMs).toISOString()}`,
  }
}

const secondsOf = (samples: readonly Sample[]) => {
  const first = samples[0]!
  return (sample: Sample) => (sample.atMs - first.atMs + first.windowMs) / 1000
}

function overTime(summary: Summary, samples: readonly Sample[], notes: readonly string[]): Section {
  const seconds = secondsOf(samples)
  const line = (pages: (sample: Sample) => number) =>
    samples.map((sample) => [seconds(sample), pages(sample) * pageBytes] as const)
  const series = [
    { name: 'used in the interval', points: line(({ dist }) => dist.pages) },
    { name: 'estimate, upper end', points: line(({ estimate }) => estimate.pages + estimate.plusMinus) },
    {
      name: 'estimate, lower end',
      points: line(({ estimate }) => Math.max(0, estimate.pages - estimate.plusMinus)),
    },
    { name: 'written in the interval', points: line(({ written }) => written?.pages ?? Number.NaN) },
  ]
  return {
    title: 'Over time',
    text: notes.join(' '),
    charts: [
      {
        kind: 'line',
        style: 'line',
        name: 'over-time',
        title: 'Memory in use',
        meaning: `Each point is what was used within one interval of ${formatTime(samples[0]!.windowMs)}; the estimate is what a stable working set has, with its error bar of 95 %.`,
        x: { label: 'time', unit: 'seconds' },
        y: bytesAxis('memory'),
        series: series.filter(({ points }) => points.some(([, y]) => Number.isFinite(y))),
      },
      {
        kind: 'line',
        style: 'step',
        name: 'percentiles',
        title: 'Percentiles of the intervals',
        meaning: 'In so many of all intervals the memory in use was no larger.',
        x: { label: 'intervals', unit: 'share', from: 0, to: 1 },
        y: bytesAxis('memory'),
        series: [
          {
            name: 'used',
            points: summary.percentileBytes.map((bytes, i) => [(i * percentileStep) / 100, bytes] as const),
          },
        ],
      },
    ],
  }
}

function reads({ readOnlyBytes, writtenBytes }: Summary): Section | undefined {
  if (readOnlyBytes === null || writtenBytes === null) return undefined
  return {
    title: 'Read and written',
    charts: [
      {
        kind: 'bars',
        layout: 'stacked',
        name: 'read-and-written',
        title: 'What is done to the memory in use',
        meaning: 'Of the last interval: memory that was written, and memory that was only read.',
        value: bytesAxis('memory'),
        series: ['written', 'only read'],
        rows: [{ name: 'in use', values: [writtenBytes, readOnlyBytes] }],
      },
    ],
  }
}

function ages({ idleBytes }: Summary): Section | undefined {
  if (idleBytes.every(({ bytes }) => bytes === 0)) return undefined
  return {
    title: 'Idle memory',
    charts: [
      {
        kind: 'bars',
        layout: 'grouped',
        name: 'idle-ages',
        title: 'For how long memory has been idle',
        meaning:
          'Memory by the time since its last access, at the end; what has not been watched yet is in none.',
        value: bytesAxis('memory'),
        series: ['memory'],
        rows: idleBytes.map(({ atLeastMs, bytes }) => ({
          name: atLeastMs === 0 ? 'in use' : `${formatTime(atLeastMs)} or more`,
          values: [bytes],
        })),
      },
    ],
  }
}

function heat(samples: readonly Sample[]): Section {
  const last = samples.at(-1)!
  const rows = last.heat.length
  const columns = Math.min(heatColumnsMax, samples.length)
  const cells = new Float64Array(rows * columns)
  const counts = new Uint32Array(rows * columns)
  samples.forEach(({ heat }, i) => {
    const column = Math.floor((i * columns) / samples.length)
    heat.forEach((percent, row) => {
      if (percent < 0) return
      cells[row * columns + column]! += percent / 100
      counts[row * columns + column]!++
    })
  })
  const chart: Chart = {
    kind: 'heat',
    name: 'heat',
    title: 'Where and when memory is used',
    meaning:
      'Each cell is a stretch of memory in a stretch of time: the darker, the larger the share of its pages that was accessed.',
    x: { label: 'time', unit: 'seconds', from: 0, to: secondsOf(samples)(last) },
    y: { label: 'memory', unit: 'bytes', from: 0, to: last.ramPages * pageBytes },
    value: { label: 'accessed', unit: 'share' },
    columns,
    rows,
    cells: cells.map((total, i) => total / Math.max(1, counts[i]!)),
  }
  return { title: 'Heat', charts: [chart] }
}
