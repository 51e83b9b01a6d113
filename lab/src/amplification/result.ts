/** The result of the study of amplification, for people: text and page. */
import { hostname, release as kernelRelease } from 'node:os'
import type { Report, Table } from 'subpage/report/page'
import { counted, formatBytes } from 'subpage/units'
import { bold, type Terminal, textTable } from '../report/terminal.ts'
import {
  amplificationBars,
  at,
  chosenLength,
  distribution,
  gainBars,
  length,
  lengthsOf,
  paperShare,
  paperWorkloads,
  paperXorRleGain,
  percent,
  type Result,
} from './charts.ts'
import { lateMin } from './measure.ts'
import type { Lengths, Measured } from './study.ts'

function times(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–'
  return value < 100 ? `${value.toPrecision(3)}×` : `${Math.round(value).toLocaleString('en')}×`
}
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
      ...lengths.map((epochMs) => factorAt(one, epochMs)),
      times(at(one, 10)?.writtenAmplification),
      one.memoryBytes > 0 ? formatBytes(one.memoryBytes) : '–',
      noteOf(one),
    ]),
  }
}

/** Of the epochs of one length: more of them late, and the row says so. */
const lateShareMax = 0.1
const areLate = ({ lateCount, count }: Lengths) => lateCount > lateShareMax * count
const lateMeaning = `* More than a tenth of these epochs were late, that is, took more than ${lateMin} times their length: to hold a program takes its time, the more so on a busy host. The note has their mean length.`

function factorAt(one: Measured, epochMs: number): string {
  const of = at(one, epochMs)
  return `${times(of?.amplification)}${of && areLate(of) ? '*' : ''}`
}

function noteOf({ inGuest, missing, differing, endedEarly, lengths }: Measured): string {
  if (missing !== undefined) return missing
  const idle = lengths.some(
    ({ cpuUs, ranUs, epochMs }) => epochMs === 1000 && ranUs > 0 && cpuUs < 0.02 * ranUs,
  )
  const silent = lengths.some(
    ({ changedPages, dirtyPages, epochMs }) => epochMs === 10 && changedPages < 0.1 * dirtyPages,
  )
  return [
    inGuest ? 'in a guest' : '',
    endedEarly ? endedEarlyNote(lengths) : '',
    idle ? 'mostly idle' : '',
    silent ? 'nearly all that it writes was there already' : '',
    lateNote(lengths.filter(areLate)),
    ...differing,
  ]
    .filter(Boolean)
    .join('; ')
}

function endedEarlyNote(lengths: readonly Lengths[]): string {
  const without = lengths.filter(({ count }) => count === 0).map(({ epochMs }) => length(epochMs))
  return without.length > 0 ? `ended before an epoch of ${without.join(', ')}` : 'ended early'
}

function lateNote(late: readonly Lengths[]): string {
  const means = late.map(
    ({ epochMs, ranUs, count }) =>
      `${length(epochMs)} took ${Number((ranUs / count / 1000).toPrecision(2))} ms`,
  )
  return means.length > 0 ? `late: ${means.join(', ')}` : ''
}

function gainTable(result: Result): Table {
  const epochMs = chosenLength(result)
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
    ...(chosen.workloads < paperWorkloads / 2
      ? [`Of ${counted(chosen.workloads, 'workload')} a share says little: the paper has ${paperWorkloads}.`]
      : []),
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
    ...(result.measured.some(({ lengths }) => lengths.some(areLate)) ? [lateMeaning] : []),
  ].join('\n')
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
        text: `${definition} ${lateMeaning}`,
        charts: [amplificationBars(result)],
        tables: [amplificationTable(result)],
      },
      {
        title: 'How many workloads gain how much',
        charts: [distribution(result)],
        tables: [headlineTable(result)],
      },
      {
        title: 'What encoding saves further',
        text: 'Each codec ran on the epochs; nothing is estimated. Gains are against sending changed lines whole, and for the dictionary against masked. Means over workloads are geometric.',
        charts: [gainBars(result)],
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
