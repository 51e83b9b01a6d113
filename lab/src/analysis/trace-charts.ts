/** The plots of a trace, each with a sentence that says how to read it. */
import { type CodecName, codecNames } from 'subpage/delta/codec'
import { lineBytes, pageBytes } from 'subpage/memory/page'
import type { Axis, Bars, HeatMap, Histogram, LineChart, Series } from 'subpage/report/chart'
import { formatValue } from 'subpage/report/scale'
import { bins, cumulative, thinned } from '../report/statistics.ts'
import { amplification, type EpochFigures, type LengthFigures, type TraceSummary } from './summary.ts'

const hasTime = (summary: TraceSummary) => summary.header.epochUs > 0
/** A series of images has an order, but no time. */
const timeAxis = (summary: TraceSummary): Axis =>
  hasTime(summary) ? { label: 'time', unit: 'seconds', from: 0 } : { label: 'image', unit: 'count', from: 0 }
const timeOf = (summary: TraceSummary, epoch: EpochFigures, index: number) =>
  hasTime(summary) ? epoch.startUs / 1e6 : index + 1

/** With a gap wherever time was lost. */
function overTime(summary: TraceSummary, name: string, value: (epoch: EpochFigures) => number): Series {
  const points = summary.epochs.flatMap((epoch, i): [number, number][] => {
    const at = timeOf(summary, epoch, i)
    return epoch.afterLostTime
      ? [
          [at, Number.NaN],
          [at, value(epoch)],
        ]
      : [[at, value(epoch)]]
  })
  return { name, points: thinned(points) }
}

const perSecond = (summary: TraceSummary, { lengthUs }: EpochFigures) =>
  hasTime(summary) ? 1e6 / Math.max(1, lengthUs) : 1

export function amplificationOverTime(summary: TraceSummary): LineChart {
  return {
    kind: 'line',
    name: 'amplification-over-time',
    title: 'Amplification over time',
    meaning:
      'For each byte in changed lines, so many bytes are copied when whole dirty pages are sent. 1 means that pages change as a whole, 64 that a single line of each changes; it is more where pages were written and did not change.',
    style: 'line',
    x: timeAxis(summary),
    y: { label: 'amplification', unit: 'ratio' },
    series: [overTime(summary, 'amplification', amplification)],
    marks: [{ axis: 'y', at: 10, label: '10×' }],
  }
}

export const amplifications = (summary: TraceSummary) =>
  summary.epochs.map(amplification).filter(Number.isFinite)

export function amplificationDistribution(summary: TraceSummary): LineChart {
  return {
    kind: 'line',
    name: 'amplification-distribution',
    title: 'Distribution of the amplification',
    meaning:
      'The share of epochs whose amplification is at most the value below. Epochs in which nothing changed are left out.',
    style: 'step',
    x: { label: 'amplification', unit: 'ratio', from: 0 },
    y: { label: 'share of epochs', unit: 'share', from: 0, to: 1 },
    series: [cumulative('epochs', amplifications(summary))],
    marks: [{ axis: 'x', at: 10, label: '10×' }],
  }
}

export function linesPerPage({ pagesByLines }: TraceSummary): Histogram {
  return {
    kind: 'histogram',
    name: 'lines-per-page',
    title: 'Changed lines per dirty page',
    meaning:
      'A page of 4,096 bytes has 64 lines of 64 bytes. Pages on the left changed in a few places and gain most from sending lines; pages at 0 were written without a change; pages at 64 changed everywhere.',
    x: { label: 'changed lines of a page', unit: 'count', from: 0, to: 65 },
    y: { label: 'dirty pages', unit: 'count' },
    bins: pagesByLines.map((count, lines) => ({ from: lines, to: lines + 1, count })),
  }
}

export function writtenAgainstChanged(summary: TraceSummary): Bars | undefined {
  const { totals, pagesByLines } = summary
  if (totals.writtenLines === undefined) return undefined
  const silent = Math.max(0, totals.writtenLines - totals.changedLines)
  return {
    kind: 'bars',
    name: 'written-against-changed',
    title: 'Written against changed lines',
    meaning:
      'A store that writes the value that is there already is silent: a tracker of writes sends its line, a comparison of contents does not. Pages here are dirty pages with no change at all, next to those with one.',
    layout: 'stacked',
    value: { label: 'share', unit: 'share', from: 0, to: 1 },
    series: ['changed', 'written, not changed'],
    rows: [
      {
        name: 'lines',
        values: [
          totals.changedLines / Math.max(1, totals.changedLines + silent),
          silent / Math.max(1, totals.changedLines + silent),
        ],
      },
      {
        name: 'pages',
        values: [
          1 - pagesByLines[0]! / Math.max(1, totals.dirtyPages),
          pagesByLines[0]! / Math.max(1, totals.dirtyPages),
        ],
      },
    ],
  }
}

export function dirtyRate(summary: TraceSummary): LineChart {
  const rate = hasTime(summary) ? 'bytes per second' : 'bytes per image'
  return {
    kind: 'line',
    name: 'dirty-rate',
    title: 'How fast memory is written',
    meaning:
      'The upper line is what whole dirty pages would take from a network, the lower ones what changed in them. The axis is logarithmic: each step is a multiple.',
    style: 'line',
    x: timeAxis(summary),
    y: { label: rate, unit: 'bytes', scale: 'log' },
    series: [
      overTime(summary, 'dirty pages', (epoch) => epoch.dirtyPages * pageBytes * perSecond(summary, epoch)),
      overTime(
        summary,
        'changed lines',
        (epoch) => epoch.changedLines * lineBytes * perSecond(summary, epoch),
      ),
      overTime(summary, 'changed bytes', (epoch) => epoch.changedBytes * perSecond(summary, epoch)),
    ],
  }
}

export function dirtyPagesPerEpoch({ epochs }: TraceSummary): Histogram {
  return {
    kind: 'histogram',
    name: 'dirty-pages-per-epoch',
    title: 'Dirty pages per epoch',
    meaning: 'How many epochs had so many dirty pages. A long tail to the right means bursts.',
    x: { label: 'dirty pages of an epoch', unit: 'count' },
    y: { label: 'epochs', unit: 'count' },
    bins: bins(
      epochs.map(({ dirtyPages }) => dirtyPages),
      40,
    ),
  }
}

export function heatMap(summary: TraceSummary): HeatMap {
  const { heat, header } = summary
  const process = header.target.kind === 'pid' || header.target.kind === 'command'
  return {
    kind: 'heat',
    name: 'heat-map',
    title: 'Where memory changes, and when',
    meaning: process
      ? 'Each column is a moment, each row a part of the memory of the process: its writable areas one above the other, in the order in which they appeared. The darker a cell, the more lines changed there.'
      : 'Each column is a moment, each row a part of the memory. Horizontal stripes are places that are written again and again, slanted ones are sweeps through memory. The darker a cell, the more lines changed there.',
    x: hasTime(summary)
      ? { label: 'time', unit: 'seconds', from: 0, to: Math.max(1, summary.end.lengthUs) / 1e6 }
      : { label: 'image', unit: 'count', from: 0, to: Math.max(1, summary.end.epochCount) },
    y: { label: process ? 'memory of the process' : 'memory', unit: 'bytes', from: 0, to: heat.bytes },
    value: { label: 'changed lines', unit: 'count' },
    columns: heat.columns,
    rows: heat.rows,
    cells: heat.cells,
  }
}

const codecWords: Record<CodecName, string> = {
  page: 'page: dirty pages whole',
  line: 'line: changed lines whole',
  'xor-rle': 'xor-rle: runs of bytes',
  masked: 'masked: changed bytes',
}

export function bytesByCodec({ totals }: TraceSummary): Bars {
  const measured = totals.codecsExact
  return {
    kind: 'bars',
    name: 'bytes-by-codec',
    title: 'What each way of sending would take',
    meaning: measured
      ? 'All epochs together, measured: each delta was made from the recorded content.'
      : 'All epochs together. This trace has no content: page and line follow from which lines changed (an upper bound: pages that became all zeros cost less); xor-rle and masked are estimates from the number of changed bytes. Record with content to measure them.',
    layout: 'grouped',
    value: { label: 'bytes to send', unit: 'bytes' },
    series: ['bytes'],
    rows: codecNames.map((codec) => ({
      name: `${codecWords[codec]}${measured ? '' : codec === 'page' || codec === 'line' ? ' (at most)' : ' (estimate)'}`,
      values: [totals.codecBytes[codec]],
    })),
  }
}

export function cleanTime(summary: TraceSummary): LineChart {
  const spanSeconds = summary.totals.epochUs / 1e6
  const timed = hasTime(summary)
  return {
    kind: 'line',
    name: 'clean-time',
    title: 'How long pages stay clean after a write',
    meaning:
      'The share of writes after which the page was not written again for at least the time below. The higher the line, the more pages could be sent ahead, before their epoch ends, without sending them twice.',
    style: 'step',
    x: {
      label: timed ? 'time without another write' : 'images without another change',
      unit: timed ? 'seconds' : 'count',
      from: 0,
    },
    y: { label: 'share of writes', unit: 'share', from: 0, to: 1 },
    series: [
      {
        name: 'still clean',
        points: thinned([
          [0, 1],
          ...summary.cleanSurvival.map(
            ([spans, share]) => [spans * (timed ? spanSeconds : 1), share] as const,
          ),
        ]),
      },
    ],
  }
}

/** Names an epoch length: "10 ms", or "2 images". */
export const lengthName = (summary: TraceSummary, { epochsPerSpan }: LengthFigures) =>
  hasTime(summary)
    ? formatValue((epochsPerSpan * summary.header.epochUs) / 1e6, 'seconds')
    : `${epochsPerSpan} image${epochsPerSpan === 1 ? '' : 's'}`

export function otherLengths(summary: TraceSummary): LineChart | undefined {
  const lengths = summary.lengths.filter(({ epochCount }) => epochCount > 0)
  if (!hasTime(summary) || lengths.length < 2) return undefined
  const rate = (name: string, bytes: (figures: LengthFigures) => number): Series => ({
    name,
    points: lengths.map((figures) => [
      (figures.epochsPerSpan * summary.header.epochUs) / 1e6,
      bytes(figures) / ((figures.epochUs * figures.epochCount) / 1e6),
    ]),
  })
  return {
    kind: 'line',
    name: 'other-epoch-lengths',
    title: 'What another epoch length would cost',
    meaning: `Longer epochs send less, because a page that is written many times is sent once; but they hold back what the guest sends for longer, and lose more when it dies. ${mergingWords(summary)}`,
    style: 'line',
    x: { label: 'epoch length', unit: 'seconds', scale: 'log' },
    y: { label: 'bytes per second', unit: 'bytes', scale: 'log' },
    series: [
      rate('dirty pages', ({ dirtyPages }) => dirtyPages * pageBytes),
      rate('changed lines', ({ changedLines }) => changedLines * lineBytes),
      rate('masked', ({ codecBytes }) => codecBytes.masked),
    ],
  }
}

/** How far figures for merged epochs can be trusted. */
export function mergingWords({ header }: TraceSummary): string {
  if (header.content)
    return 'All lengths come from one recording: its epochs were merged and the memory compared at their ends, so the figures are exact.'
  return 'All lengths come from one recording, by merging its epochs. Dirty pages are exact; changed lines are an upper bound, because a line that changes and changes back counts as changed; so the amplification of merged epochs is a lower bound. Record with content for exact figures.'
}
