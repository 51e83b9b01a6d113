/** The result of the study of synchronisation, for people: text and page. */

import type { Bars } from 'subpage/report/chart'
import type { Report, Section, Table } from 'subpage/report/page'
import { formatBytes } from 'subpage/units'
import { median } from '../report/statistics.ts'
import { bold, type Terminal, textTable } from '../report/terminal.ts'
import { blockSizes } from './changed-blocks.ts'
import { type Headline, type Judgement, reduction, wasted } from './headline.ts'
import type { Cell } from './measure.ts'
import { linkBytesPerUs } from './replayed-pair.ts'
import type { SlaveCell } from './slave/measure.ts'
import { slaveMethod, slaveTable } from './slave/result.ts'
import { allTogether, techniques, wholePages } from './technique.ts'

export interface Result {
  set: string
  /** What was recorded, and where. */
  from: string
  epochLengths: readonly number[]
  cells: Cell[]
  /** With an active slave; empty when recordings were taken. */
  slave: SlaveCell[]
  missing: { name: string; why: string }[]
  judgement: Judgement
  headline: Headline
}

const times = (ratio: number) => (Number.isFinite(ratio) ? `${ratio.toFixed(ratio < 10 ? 2 : 1)}x` : '–')
const percent = (share: number) => `${(100 * share).toFixed(1)} %`
const us = (value: number) => `${value.toFixed(0)} µs`

/** A row per workload and epoch length. */
function reductionTable(cells: readonly Cell[], bytes: 'totalBytes' | 'finalBytes', title: string): Table {
  const names = Object.keys(cells[0]?.costs ?? {}).filter((name) => name !== wholePages)
  return {
    name: bytes === 'totalBytes' ? 'reductions' : 'reductions-at-the-end',
    title,
    heading: ['workload', 'epoch', 'whole pages', ...names],
    numbers: [...Array(names.length + 2).keys()].map((i) => i + 1),
    rows: cells.map((cell) => [
      cell.workload,
      `${cell.epochMs} ms`,
      formatBytes(cell.costs[wholePages]![bytes] / cell.epochs),
      ...names.map((name) => times(reduction(cell, name, bytes))),
    ]),
  }
}

function workTable(cells: readonly Cell[]): Table {
  return {
    name: 'work',
    title: `Each epoch under "${allTogether}": pause and processor time, beside whole pages`,
    heading: [
      ...['workload', 'epoch', 'pages', 'in the pause', 'sent early in vain'],
      ...['captured in the pause', 'primary', 'standby', 'primary, whole pages', 'standby, whole pages'],
    ],
    numbers: [1, 2, 3, 4, 5, 6, 7, 8, 9],
    rows: cells.map(({ workload, epochMs, epochs, costs }) => {
      const [all, whole] = [costs[allTogether]!, costs[wholePages]!]
      return [
        workload,
        `${epochMs} ms`,
        (all.pages / epochs).toFixed(0),
        (all.finalPages / epochs).toFixed(0),
        percent(wasted(all)),
        us(all.pauseUs / epochs),
        us(all.primaryUs / epochs),
        us(all.standbyUs / epochs),
        us(whole.primaryUs / epochs),
        us(whole.standbyUs / epochs),
      ]
    }),
  }
}

/** Medians over the cells, beside what is published. */
function papersTable({ cells, slave, headline }: Result): Table {
  const over = (value: (cell: Cell) => number) => times(median(cells.map(value)))
  const has = (name: string) => techniques.some((one) => one.name === name) && cells[0]?.costs[name]
  return {
    name: 'papers',
    title: 'Beside the papers (medians)',
    heading: ['what', 'here', 'published'],
    numbers: [1],
    rows: [
      ['changed lines in place of pages', times(headline.reductionFineGrained), 'up to 7x (Lu, Chiueh)'],
      ['speculation, at the epoch’s end', times(headline.reductionSpeculation), 'up to 15x (Lu, Chiueh)'],
      [
        'sharing and compression, as FGBI',
        over((cell) => reduction(cell, '+ compression')),
        'downtime −77 % against LLM (FGBI)',
      ],
      [
        'XOR-RLE beyond lines',
        over(({ costs }) => costs.lines!.totalBytes / costs['xor-rle']!.totalBytes),
        '1.8x (SoCC 2022)',
      ],
      ['masked beyond lines', over(({ costs }) => costs.lines!.totalBytes / costs.masked!.totalBytes), '–'],
      ...(has('dictionary')
        ? [
            [
              'a dictionary of lines beyond masked',
              over(({ costs }) => costs.masked!.totalBytes / costs.dictionary!.totalBytes),
              'some more than 2x beyond compressors (HotStorage 2024)',
            ],
          ]
        : []),
      ...(slave.length > 0
        ? [
            ['an active slave, whole pages', times(headline.reductionSlavePages!), 'up to 5x (Lu, Chiueh)'],
            [
              'an active slave beyond masked, dictionary and zstd',
              times(headline.reductionSlaveBeyond!),
              '–',
            ],
          ]
        : []),
      ['all together', times(headline.reductionAll), '–'],
    ],
  }
}

function predictorTable(cells: readonly Cell[]): Table {
  return {
    name: 'predictor',
    title: 'Sent early: as predicted, always, never',
    heading: [
      ...['workload', 'epoch', 'final, never', 'final, predicted', 'final, always'],
      ...['in vain, predicted', 'in vain, always'],
    ],
    numbers: [1, 2, 3, 4, 5, 6],
    rows: cells.map(({ workload, epochMs, epochs, costs }) => {
      const [never, auto, always] = ['+ compression', allTogether, 'all, early always'].map(
        (name) => costs[name]!,
      )
      return [
        workload,
        `${epochMs} ms`,
        ...[never, auto, always].map((cost) => formatBytes(cost!.finalBytes / epochs)),
        percent(wasted(auto!)),
        percent(wasted(always!)),
      ]
    }),
  }
}

function lead({ headline, judgement, missing }: Result): string {
  return [
    `Over ${headline.workloads} workloads all techniques together send 1/${headline.reductionAll.toFixed(1)} of the bytes of the dirty pages (goal: 1/10); of what was sent ${percent(headline.wastedBySpeculation)} was sent early in vain.`,
    judgement.worst <= judgement.worstGoal
      ? `Nothing that is added ever sent more than ${judgement.worst.toFixed(3)} of plain masked.`
      : `Against the goal, ${judgement.worstWhere} sent ${judgement.worst.toFixed(3)} of plain masked.`,
    ...(missing.length > 0
      ? [`Not measured: ${missing.map(({ name, why }) => `${name} (${why})`).join('; ')}.`]
      : []),
  ].join(' ')
}

const method =
  'Recorded guests are replayed through the code of protect, and after each epoch the restored image is compared byte by byte. Bytes are with frames and without the state of devices; a page that is all zeros counts three bytes among whole pages, too.'

export function text(result: Result, terminal: Terminal): string {
  const { cells, slave } = result
  const shown = [
    reductionTable(cells, 'totalBytes', 'Bytes of an epoch as whole pages, and how many times fewer'),
    reductionTable(cells, 'finalBytes', 'The same for what is sent in or after the pause'),
    predictorTable(cells),
    workTable(cells),
    ...(slave.length > 0 ? [slaveTable(slave)] : []),
    papersTable(result),
  ]
  return [
    bold('Sending less', terminal),
    ...shown.flatMap((table) => ['', bold(table.title, terminal), textTable(table, terminal)]),
    '',
    lead(result),
    method,
    ...(slave.length > 0 ? [slaveMethod] : []),
  ].join('\n')
}

function bars(cells: readonly Cell[], group: 'ladder' | 'alone', epochMs: number): Bars {
  const names = techniques
    .filter((one) => one.group === group || one.name === wholePages)
    .map(({ name }) => name)
    .filter((name) => cells[0]?.costs[name])
  return {
    kind: 'bars',
    layout: 'grouped',
    name: `${group}-${epochMs}`,
    title:
      group === 'ladder'
        ? `One thing more each time, epochs of ${epochMs} ms`
        : `Each alone, epochs of ${epochMs} ms`,
    meaning: 'Bytes that one epoch takes on the link, on a logarithmic scale: shorter is better.',
    value: { label: 'bytes an epoch', unit: 'bytes', scale: 'log' },
    series: names,
    rows: cells
      .filter((cell) => cell.epochMs === epochMs)
      .map(({ workload, costs, epochs }) => ({
        name: workload,
        values: names.map((name) => costs[name]!.totalBytes / epochs),
      })),
  }
}

function blocksSection(cells: readonly Cell[], workloads: readonly string[]): Section {
  const [shortest] = [...new Set(cells.map(({ epochMs }) => epochMs))]
  return {
    title: 'How fine',
    text: 'Changed blocks sent whole, by their size. A block of 4096 bytes is a page that really changed.',
    charts: [
      {
        kind: 'line',
        style: 'line',
        name: 'block-size',
        title: `Reduction by block size, epochs of ${shortest} ms`,
        meaning: 'How many times fewer bytes than whole pages when only changed blocks of this size go.',
        x: { label: 'block', unit: 'bytes', scale: 'log' },
        y: { label: 'reduction', unit: 'ratio', scale: 'log' },
        series: workloads.map((name) => {
          const cell = cells.find(({ workload, epochMs }) => workload === name && epochMs === shortest)!
          const whole = cell.costs[wholePages]!.totalBytes
          return { name, points: blockSizes.map((size) => [size, whole / cell.blockBytes[size]!] as const) }
        }),
        marks: [{ axis: 'y', at: 7, label: 'Lu, Chiueh: up to 7x' }],
      },
    ],
  }
}

export function report(result: Result): Report {
  const { cells, headline } = result
  const workloads = [...new Set(cells.map(({ workload }) => workload))]
  return {
    title: 'Sending less: what each technique saves',
    lead: lead(result),
    facts: [
      { name: 'all together', value: times(headline.reductionAll), meaning: 'fewer bytes; goal: 10x' },
      { name: 'changed lines', value: times(headline.reductionFineGrained), meaning: 'published: up to 7x' },
      {
        name: 'speculation at the end',
        value: times(headline.reductionSpeculation),
        meaning: 'of whole pages; published: up to 15x',
      },
      { name: 'early in vain', value: percent(headline.wastedBySpeculation), meaning: 'limit: 10 %' },
    ],
    sections: [
      {
        title: 'In total',
        text: method,
        charts: result.epochLengths.flatMap((epochMs) => [
          bars(cells, 'ladder', epochMs),
          bars(cells, 'alone', epochMs),
        ]),
        tables: [
          reductionTable(cells, 'totalBytes', 'How many times fewer bytes'),
          reductionTable(cells, 'finalBytes', 'How many times fewer bytes in or after the pause'),
          papersTable(result),
        ],
      },
      blocksSection(cells, workloads),
      {
        title: 'Sent early',
        text: 'What is sent before the pause need not be sent in it, but a page that is written again is sent again: those bytes were in vain.',
        tables: [predictorTable(cells)],
      },
      ...(result.slave.length > 0
        ? [{ title: 'With an active slave', text: slaveMethod, tables: [slaveTable(result.slave)] }]
        : []),
      {
        title: 'Work',
        text: `Processor time of this machine under whatever else it did. Compression "auto" was told of a link of ${linkBytesPerUs * 8} Mbit/s.`,
        tables: [workTable(cells)],
      },
    ],
    source: `${result.from}, set ${result.set}`,
  }
}
