/** A trace explained: the page, the JSON and the terminal text of `subpage report`. */
import { codecNames } from 'subpage/delta/codec'
import { lineBytes, pageBytes } from 'subpage/memory/page'
import type { Chart } from 'subpage/report/chart'
import type { Report, Table } from 'subpage/report/page'
import { formatValue } from 'subpage/report/scale'
import { counted, formatBytes } from 'subpage/units'
import { ascending, percentile } from '../report/statistics.ts'
import { amplification, type LengthFigures, type TraceSummary } from './summary.ts'
import {
  amplificationDistribution,
  amplificationOverTime,
  amplifications,
  bytesByCodec,
  cleanTime,
  dirtyPagesPerEpoch,
  dirtyRate,
  heatMap,
  lengthName,
  linesPerPage,
  mergingWords,
  otherLengths,
  writtenAgainstChanged,
} from './trace-charts.ts'

export function traceReport(summary: TraceSummary): Report {
  const { header, totals } = summary
  return {
    title: `What ${targetWords(summary)} ${summary.header.target.kind === 'images' ? 'do to their' : 'does to its'} memory`,
    lead: leadWords(summary),
    facts: facts(summary),
    sections: [
      {
        title: 'Amplification',
        text: 'Memory is tracked by pages of 4,096 bytes: a page is dirty when one byte of it was written. Most of a dirty page has usually not changed.',
        charts: [amplificationOverTime(summary), amplificationDistribution(summary), linesPerPage(summary)],
      },
      {
        title: 'Writes',
        charts: present([writtenAgainstChanged(summary), dirtyRate(summary), dirtyPagesPerEpoch(summary)]),
        tables: countersTable(summary),
      },
      { title: 'Where', charts: [heatMap(summary)], tables: [areasTable(summary)] },
      {
        title: 'What would be sent',
        text: 'Four ways to bring the same changes to another host.',
        charts: [bytesByCodec(summary)],
        tables: [codecsTable(summary)],
      },
      {
        title: 'Other epoch lengths',
        text: mergingWords(summary),
        charts: present([otherLengths(summary)]),
        tables: [lengthsTable(summary)],
      },
      { title: 'Sending ahead', charts: [cleanTime(summary)] },
      { title: 'The recording', tables: [recordingTable(summary)] },
    ],
    source: `${summary.path}, recorded ${header.startedAt} on ${header.host.name}, ${counted(totals.epochCount, 'epoch')}`,
  }
}

const present = (charts: (Chart | undefined)[]) => charts.filter((chart) => chart !== undefined)

const kindWords = { vm: 'the guest', pid: 'process', command: 'the command', images: 'the images' } as const
const targetWords = ({ header: { target } }: TraceSummary) => `${kindWords[target.kind]} ${target.name}`

const cutWords = ({ end: { cause } }: Pick<TraceSummary, 'end'>) =>
  cause === 'cut-short'
    ? ' The recording was cut short: the recorder was killed, or the copy is not whole. These are its whole epochs.'
    : ''

export function leadWords(summary: TraceSummary): string {
  const { totals, end, gaps, header } = summary
  if (totals.dirtyPages === 0)
    return `Nothing was written in ${counted(totals.epochCount, 'epoch')}, as far as the tracker ${header.tracker} sees.${cutWords(summary)}`
  const factor = amplification(totals)
  const bound = totals.exact ? '' : 'at least '
  const first = Number.isNaN(factor)
    ? `${formatBytes(totals.dirtyPages * pageBytes)} of pages were dirty, and nothing in them changed.`
    : `Sending whole dirty pages would copy ${bound}${formatValue(factor, 'ratio').replace('×', '')} times what changed in them: ${formatBytes(totals.dirtyPages * pageBytes)} of pages for ${formatBytes(totals.changedLines * lineBytes)} of changed lines, in ${counted(totals.epochCount, 'epoch')}.`
  const cause = end.cause === 'target-ended' ? ' The recording ended because its target did.' : ''
  return first + gapWords(gaps) + cause + cutWords(summary)
}

function gapWords({ late, lost, lateUs, lostUs }: TraceSummary['gaps']): string {
  const parts = [
    late > 0
      ? ` The recorder was late ${times(late)} (${formatValue(lateUs / 1e6, 'seconds')}): no page is missing, but those epochs are longer.`
      : '',
    lost > 0
      ? ` What was written is unknown for ${formatValue(lostUs / 1e6, 'seconds')}, in ${counted(lost, 'gap')}.`
      : '',
  ]
  return parts.join('')
}

const times = (count: number) => (count === 1 ? 'once' : `${count} times`)

function facts(summary: TraceSummary): Report['facts'] {
  const { totals, header, end } = summary
  const perEpoch = totals.dirtyPages / Math.max(1, totals.epochCount)
  const saved = totals.codecBytes.masked / Math.max(1, totals.codecBytes.page)
  return [
    {
      name: 'Amplification',
      value: `${totals.exact ? '' : '≥ '}${formatValue(amplification(totals), 'ratio')}`,
      meaning: 'bytes of dirty pages for each byte of changed lines',
    },
    {
      name: 'Dirty pages an epoch',
      value: formatValue(Math.round(perEpoch), 'count'),
      meaning: header.epochUs > 0 ? `epochs of ${lengthName(summary, totals)}` : 'from image to image',
    },
    {
      name: 'To send, of whole pages',
      value: formatValue(totals.dirtyPages === 0 ? Number.NaN : saved, 'share'),
      meaning: `with the codec masked${totals.codecsExact ? '' : ', estimated'}`,
    },
    {
      name: 'Silent pages',
      value: formatValue(summary.pagesByLines[0]! / Math.max(1, totals.dirtyPages), 'share'),
      meaning: 'written, but nothing changed',
    },
    ...silentLines(summary),
    {
      name: 'Recorded',
      value: header.epochUs > 0 ? formatValue(end.lengthUs / 1e6, 'seconds') : `${end.epochCount + 1} images`,
      meaning: `${formatBytes(summary.heat.bytes)} of memory, tracker ${header.tracker}`,
    },
  ]
}

/** Only a tracker of lines knows them. */
function silentLines({ totals: { writtenLines, changedLines } }: TraceSummary): Report['facts'] {
  if (writtenLines === undefined) return []
  return [
    {
      name: 'Silent lines',
      value: formatValue(1 - changedLines / Math.max(1, writtenLines), 'share'),
      meaning: `stored to, but nothing changed: of ${formatValue(writtenLines, 'count')} lines`,
    },
  ]
}

function codecsTable({ totals }: TraceSummary): Table {
  const whole = totals.codecBytes.page
  return {
    name: 'codecs',
    title: totals.codecsExact ? 'Measured' : 'page and line: at most; xor-rle and masked: estimates',
    heading: ['codec', 'bytes', 'of page', 'against line'],
    rows: codecNames.map((codec) => [
      codec,
      formatBytes(totals.codecBytes[codec]),
      formatValue(totals.codecBytes[codec] / Math.max(1, whole), 'share'),
      formatValue(totals.codecBytes.line / Math.max(1, totals.codecBytes[codec]), 'ratio'),
    ]),
    numbers: [1, 2, 3],
  }
}

export function lengthsTable(summary: TraceSummary): Table {
  return {
    name: 'epoch-lengths',
    title: summary.lengths.every(({ exact }) => exact) ? 'Exact' : '≥ and ≤: bounds, as said above',
    heading: ['epoch', 'epochs', 'dirty pages', 'changed lines', 'amplification', 'masked, per epoch'],
    rows: summary.lengths.map((figures) => {
      const each = (total: number) =>
        formatValue(Math.round(total / Math.max(1, figures.epochCount)), 'count')
      const masked = Math.round(figures.codecBytes.masked / Math.max(1, figures.epochCount))
      return [
        lengthName(summary, figures),
        String(figures.epochCount),
        each(figures.dirtyPages),
        `${figures.exact ? '' : '≤ '}${each(figures.changedLines)}`,
        `${figures.exact ? '' : '≥ '}${formatValue(amplification(figures), 'ratio')}`,
        `${figures.codecsExact ? '' : '~ '}${formatBytes(masked)}`,
      ]
    }),
    numbers: [1, 2, 3, 4, 5],
  }
}

const areasShown = 15

function areasTable({ areaTotals }: TraceSummary): Table {
  return {
    name: 'areas',
    title: 'The busiest areas',
    heading: ['area', 'size', 'dirty pages', 'changed lines', 'amplification'],
    rows: areaTotals
      .busiest()
      .slice(0, areasShown)
      .map((area) => [
        area.name,
        formatBytes(area.pages * pageBytes),
        String(area.dirtyPages),
        String(area.changedLines),
        formatValue(amplification(area), 'ratio'),
      ]),
    numbers: [1, 2, 3, 4],
  }
}

function countersTable({ counters }: TraceSummary): Table[] {
  const rows = Object.entries(counters).map(([name, value]) => [name, String(value)])
  return rows.length === 0
    ? []
    : [
        {
          name: 'counters',
          title: 'Counted by the tracker',
          heading: ['counter', 'total'],
          rows,
          numbers: [1],
        },
      ]
}

function recordingTable({ header, end, gaps, held, areas, notes }: TraceSummary): Table {
  return {
    name: 'recording',
    title: '',
    heading: ['', ''],
    rows: [
      ['target', `${header.target.kind} ${header.target.name}`],
      ['tracker', header.tracker],
      ['epoch', header.epochUs > 0 ? formatValue(header.epochUs / 1e6, 'seconds') : 'between images'],
      ['epochs', String(end.epochCount)],
      ['gaps', `${gaps.late} late, ${gaps.lost} lost`],
      ...(held
        ? [
            [
              'target held',
              `${percentOf(held.share)} of the time, ${formatValue(held.longestUs / 1e6, 'seconds')} at most`,
            ],
          ]
        : []),
      [
        'ended',
        {
          time: 'its time was over',
          interrupted: 'interrupted',
          'target-ended': 'the target ended',
          'cut-short': 'cut short: the recorder was killed, or the copy is not whole',
        }[end.cause],
      ],
      ['memory', `${formatBytes(header.memoryBytes)} at the start, ${areas.length} areas`],
      ['content', header.content ? 'recorded' : 'not recorded'],
      ['written lines', header.written ? 'recorded' : 'not recorded'],
      ['host', `${header.host.name}, Linux ${header.host.kernel}, ${header.host.cpu}`],
      ['recorded by', `subpage ${header.release}, ${header.startedAt}`],
      ...notes.map((note) => ['note', note]),
    ],
  }
}

const percentOf = (share: number) => `${(100 * share).toPrecision(2)} %`

const lengthJson = (summary: TraceSummary, figures: LengthFigures) => ({
  epochMs: (figures.epochsPerSpan * summary.header.epochUs) / 1000,
  epochs: figures.epochCount,
  dirtyPages: figures.dirtyPages,
  changedLines: figures.changedLines,
  changedBytes: figures.changedBytes,
  writtenLines: figures.writtenLines ?? null,
  amplification: orNull(amplification(figures)),
  linesExact: figures.exact,
  codecBytes: figures.codecBytes,
  codecsExact: figures.codecsExact,
})

const orNull = (value: number) => (Number.isFinite(value) ? value : null)

/** What --json prints; part of the machine contract. Sizes in bytes, times as their names say. */
export function traceJson(summary: TraceSummary) {
  const { header, end, totals } = summary
  const sorted = ascending(amplifications(summary))
  const at = (share: number) => (sorted.length === 0 ? null : percentile(sorted, share))
  return {
    file: summary.path,
    target: header.target,
    tracker: header.tracker,
    notes: summary.notes,
    startedAt: header.startedAt,
    lengthMs: end.lengthUs / 1000,
    ended: end.cause,
    gaps: summary.gaps,
    held: summary.held ?? null,
    memoryBytes: summary.heat.bytes,
    ...lengthJson(summary, totals),
    amplificationPercentiles: { p5: at(0.05), p25: at(0.25), p50: at(0.5), p75: at(0.75), p95: at(0.95) },
    silentPages: summary.pagesByLines[0],
    pagesByChangedLines: summary.pagesByLines,
    cleanAfterWrite: summary.cleanSurvival.slice(0, 100).map(([spans, share]) => ({
      ms: (spans * totals.epochUs) / 1000,
      share,
    })),
    areas: summary.areaTotals.busiest(),
    counters: summary.counters,
    epochLengths: summary.lengths.map((figures) => lengthJson(summary, figures)),
  }
}
