/** The result of the study of amplification, for people: text and page. */
import { hostname, release as kernelRelease } from 'node:os'
import { formatBytes } from '../../units.ts'
import type { Bars } from '../report/chart.ts'
import type { Report, Section, Table } from '../report/page.ts'
import { bold, type Terminal, textTable } from '../report/terminal.ts'
import type { Headline, Lengths, Measured } from './study.ts'

export interface Result {
  measured: Measured[]
  headline: Headline[]
}

const paperShare = 0.35
const paperXorRleGain = 1.8

const times = (value: number | null | undefined) =>
  value === null || value === undefined || !Number.isFinite(value)
    ? '–'
    : `${value.toPrecision(3).replace(/\.?0+$/, '')}×`
const percent = (share: number) => (Number.isFinite(share) ? `${Math.round(100 * share)} %` : '–')
const length = (ms: number) => (ms >= 1000 ? `${ms / 1000} s` : `${ms} ms`)

const lengthsOf = ({ headline }: Result) => headline.map(({ epochMs }) => epochMs)
const at = ({ lengths }: Measured, epochMs: number): Lengths | undefined =>
  lengths.find((one) => one.epochMs === epochMs)

function amplificationTable(result: Result): Table {
  const lengths = lengthsOf(result)
  return {
    name: 'amplification',
    title: 'Amplification by workload and length of the epoch',
    heading: ['workload', 'kind', ...lengths.map(length), 'with silent, 10 ms', 'memory', 'note'],
    numbers: [...lengths.map((_, i) => 2 + i), 2 + lengths.length, 3 + lengths.length],
    rows: result.measured.map((one) => [
      one.name,
      one.kind,
      ...lengths.map((epochMs) => times(at(one, epochMs)?.amplification)),
      times(at(one, 10)?.writtenAmplification),
      one.memoryBytes > 0 ? formatBytes(one.memoryBytes) : '–',
      noteOf(one),
    ]),
  }
}

/** Of the epochs of one length: more of them late, and the row says so. */
const lateShareMax = 0.1

function noteOf({ inGuest, missing, differing, endedEarly, lengths }: Measured): string {
  if (missing !== undefined) return missing
  const idle = lengths.some(
    ({ cpuUs, ranUs, epochMs }) => epochMs === 1000 && ranUs > 0 && cpuUs < 0.02 * ranUs,
  )
  return [
    inGuest ? 'in a guest' : '',
    endedEarly ? endedEarlyNote(lengths) : '',
    idle ? 'mostly idle' : '',
    ...lengths.filter(({ lateCount, count }) => lateCount > lateShareMax * count).map(lateNote),
    ...differing,
  ]
    .filter(Boolean)
    .join('; ')
}

function endedEarlyNote(lengths: readonly Lengths[]): string {
  const without = lengths.filter(({ count }) => count === 0).map(({ epochMs }) => length(epochMs))
  return without.length > 0 ? `ended before an epoch of ${without.join(', ')}` : 'ended early'
}

const lateNote = ({ epochMs, count, lateCount, ranUs }: Lengths) =>
  `${lateCount} of ${count} epochs of ${length(epochMs)} were late, mean ${(ranUs / count / 1000).toPrecision(2)} ms`

function gainTable(result: Result): Table {
  const epochMs = lengthsOf(result).includes(10) ? 10 : lengthsOf(result)[0]!
  return {
    name: 'gains',
    title: `What encoding saves beyond whole changed lines, epochs of ${length(epochMs)}`,
    heading: [
      'workload',
      'changed lines an epoch',
      'xor-rle',
      'masked',
      '+ dictionary',
      '+ dictionary, zstd',
    ],
    numbers: [1, 2, 3, 4, 5],
    rows: result.measured
      .filter(({ missing }) => missing === undefined)
      .map((one) => {
        const of = at(one, epochMs)
        return [
          one.name,
          of && of.count > 0 ? String(Math.round(of.changedLines / of.count)) : '–',
          times(of?.xorRleGain),
          times(of?.maskedGain),
          times(of?.dictionaryGain),
          times(of?.dictionaryZstdGain),
        ]
      }),
  }
}

function headlineTable({ headline }: Result): Table {
  return {
    name: 'headline',
    title: 'All workloads together',
    heading: ['epoch', 'workloads', 'above 10×', 'xor-rle', 'masked', 'dictionary, beyond masked'],
    numbers: [1, 2, 3, 4, 5],
    rows: headline.map((one) => [
      length(one.epochMs),
      String(one.workloads),
      percent(one.shareAbove10),
      times(one.xorRleGain),
      times(one.maskedGain),
      times(one.dictionaryGain),
    ]),
  }
}

function lead({ headline, measured }: Result): string {
  const chosen = headline.find(({ epochMs }) => epochMs === 10) ?? headline[0]!
  const without = measured.filter(({ missing }) => missing !== undefined)
  const inGuest = measured.filter(({ inGuest }) => inGuest).length
  return [
    `With epochs of ${length(chosen.epochMs)}, whole dirty pages are more than 10 times what changed in them in ${percent(chosen.shareAbove10)} of ${chosen.workloads} workloads (the paper: more than ${percent(paperShare)}).`,
    `XOR and run lengths save a further ${times(chosen.xorRleGain)} of changed lines (the paper: ${times(paperXorRleGain)}), masked ${times(chosen.maskedGain)}.`,
    ...(inGuest > 0 ? [`${inGuest} more ran in a guest, and are no part of these figures.`] : []),
    ...(without.length > 0 ? [`Without figures: ${without.map(({ name }) => name).join(', ')}.`] : []),
  ].join(' ')
}

const definition =
  'Amplification is bytes of changed pages ÷ bytes of changed lines, over all epochs of a workload: 1 when every line of a page changes, 64 when one does. Pages that were written with what they held already are left out of it and shown apart ("with silent"). The paper counts pages and lines that were written, changed or not.'

export function text(result: Result, terminal: Terminal): string {
  return [
    bold('Amplification: whole dirty pages against what changed in them', terminal),
    '',
    textTable(amplificationTable(result), terminal),
    '',
    textTable(gainTable(result), terminal),
    '',
    textTable(headlineTable(result), terminal),
    '',
    lead(result),
    definition,
  ].join('\n')
}

/** The workloads with the largest factor first. */
function bars(result: Result): Bars {
  const lengths = lengthsOf(result)
  const order = (one: Measured) => at(one, 10)?.amplification ?? at(one, lengths[0]!)?.amplification ?? 0
  return {
    kind: 'bars',
    layout: 'grouped',
    name: 'amplification-by-workload',
    title: 'Amplification by workload',
    meaning:
      'How many times more bytes the pages have in which something changed than the lines that changed. The longer an epoch, the more of a page has changed by its end.',
    value: { label: 'amplification', unit: 'ratio', from: 0, to: 64 },
    series: lengths.map(length),
    rows: [...result.measured]
      .sort((a, b) => order(b) - order(a))
      .map((one) => ({
        name: one.name,
        values: lengths.map((epochMs) => at(one, epochMs)?.amplification ?? Number.NaN),
        ...(one.missing !== undefined && { note: one.missing.slice(0, 80) }),
      })),
    marks: [{ axis: 'x', at: 10, label: '10×' }],
  }
}

function distribution(result: Result): Section {
  return {
    title: 'How many workloads gain how much',
    charts: [
      {
        kind: 'line',
        style: 'step',
        name: 'distribution',
        title: 'Workloads by amplification',
        meaning: `The share of workloads whose amplification is at least so high. The paper found more than ${percent(paperShare)} above 10×.`,
        x: { label: 'amplification', unit: 'ratio', scale: 'log', from: 1, to: 64 },
        y: { label: 'share of workloads', unit: 'share', from: 0, to: 1 },
        series: lengthsOf(result).map((epochMs) => {
          const values = result.measured
            .filter(({ inGuest }) => !inGuest)
            .flatMap((one) => at(one, epochMs)?.amplification ?? [])
            .sort((a, b) => a - b)
          return {
            name: length(epochMs),
            points: [
              [1, 1] as const,
              ...values.map((value, i) => [value, (values.length - 1 - i) / values.length] as const),
              [64, 0] as const,
            ],
          }
        }),
        marks: [
          { axis: 'x', at: 10, label: '10×' },
          { axis: 'y', at: paperShare, label: 'the paper' },
        ],
      },
    ],
    tables: [headlineTable(result)],
  }
}

export function report(result: Result): Report {
  const { measured, headline } = result
  const chosen = headline.find(({ epochMs }) => epochMs === 10) ?? headline[0]!
  return {
    title: 'Whole dirty pages against what changed in them',
    lead: lead(result),
    facts: [
      { name: 'workloads', value: String(chosen.workloads), meaning: 'with figures' },
      {
        name: 'above 10×',
        value: percent(chosen.shareAbove10),
        meaning: `the paper: more than ${percent(paperShare)}`,
      },
      {
        name: 'xor-rle',
        value: times(chosen.xorRleGain),
        meaning: `beyond changed lines; the paper: ${times(paperXorRleGain)}`,
      },
      { name: 'masked', value: times(chosen.maskedGain), meaning: 'beyond changed lines' },
      {
        name: 'dictionary',
        value: times(chosen.dictionaryGain),
        meaning: 'beyond masked, without compression',
      },
    ],
    sections: [
      {
        title: 'Amplification',
        text: definition,
        charts: [bars(result)],
        tables: [amplificationTable(result)],
      },
      distribution(result),
      {
        title: 'What encoding saves further',
        text: 'Each codec ran on the epochs; nothing is estimated. Gains are against sending changed lines whole, and for the dictionary against masked. Means over workloads are geometric.',
        tables: [gainTable(result)],
      },
      {
        title: 'The workloads',
        tables: [
          {
            name: 'workloads',
            title: 'What ran',
            heading: ['workload', 'what it does'],
            rows: measured.map(({ name, about }) => [name, about]),
          },
        ],
      },
    ],
    source: `${hostname()}, Linux ${kernelRelease()}; each epoch examined while the program stood`,
  }
}
