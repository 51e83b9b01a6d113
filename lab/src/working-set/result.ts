/** The result of the study of working sets, for people: text and page. */

import type { Report, Section, Table } from 'subpage/report/page'
import { formatBytes } from 'subpage/units'
import { mean, sum } from '../report/statistics.ts'
import { bold, type Terminal, textTable } from '../report/terminal.ts'
import { slowdownChart } from '../slowdown-chart.ts'
import type { Logged } from './logged.ts'
import type { Judged, Measured } from './measure.ts'
import type { Slowdown } from './slowdown.ts'
import type { Headline } from './study.ts'
import { access, sampling, ways } from './ways.ts'

export interface Result {
  accel: string
  ramPages: number
  baselinePages: number
  intervals: number
  rounds: number
  measured: Measured[]
  slowdown: Slowdown | null
  logged: Logged[]
  headline: Headline
}

const size = (pages: number) => formatBytes(pages * 4096)
const percent = (share: number | null) => (share === null ? '–' : `${(100 * share).toFixed(1)} %`)

const byWay = ({ ways: judged }: Measured, name: string): Judged => judged[name]!
const error = (measured: Measured, name: string) => mean(byWay(measured, name).errors)

function table({ measured }: Result): Table {
  return {
    name: 'cases',
    title: 'Estimates against the truth',
    heading: [
      'case',
      'truth',
      'estimate',
      '±',
      'covers',
      'error',
      'sampling',
      'written only',
      'watched',
      'cost',
    ],
    numbers: [1, 2, 3, 4, 5, 6, 7, 8, 9],
    rows: measured.map((one) => {
      const { pages, plusMinusPages, covered, errors } = byWay(one, access.name)
      return [
        one.name,
        size(one.truthPages),
        size(pages),
        size(plusMinusPages),
        `${covered}/${errors.length}`,
        percent(mean(errors)),
        percent(error(one, sampling.name)),
        percent(one.writtenError),
        percent(one.watchedShare),
        `${(100 * one.costShare).toFixed(2)} %`,
      ]
    }),
  }
}

function loggedTable({ logged }: Result): Table {
  return {
    name: 'logged',
    title: 'Beside the exact record of every access',
    heading: ['case', 'accessed', 'subpage wss', 'PRL', 'PML', 'held'],
    numbers: [1, 2, 3, 4, 5],
    rows: logged.map(({ name, exactPages, access, prl, pml }) => [
      name,
      size(exactPages),
      percent(access.error),
      percent(prl.error),
      percent(pml.error),
      access.covered ? 'yes' : 'no',
    ]),
  }
}

const loggedMeaning =
  "In a second guest QEMU's plugin notes every load and store, which is the truth, and what the models of page reference logging (PRL) and page modification logging (PML) log; all of them and subpage wss look at the same intervals. The guest is slower then, so that it uses less in an interval."

function lead({ headline, measured, slowdown }: Result): string {
  const worse = measured.filter((one) => error(one, access.name) > error(one, sampling.name)).length
  const covered = sum(measured.map((one) => byWay(one, access.name).covered))
  const estimates = sum(measured.map((one) => byWay(one, access.name).errors.length))
  return [
    `In ${headline.cases} cases the estimate is off by ${percent(headline.errorP50)} in the median and ${percent(headline.errorP95)} at the 95th percentile, sampling by ${percent(headline.samplingErrorP50)}`,
    worse === 0 ? '; it is nearer than sampling in every case. ' : `; sampling was nearer in ${worse}. `,
    `The error bar held the truth in ${covered} of ${estimates} estimates. `,
    slowdown
      ? `Watching made a busy guest ${percent(slowdown.slowdown)} slower (between ${percent(slowdown.low)} and ${percent(slowdown.high)}).`
      : '',
  ].join('')
}

const truths =
  'The truth: synthetic programs say how many pages they touch, and what the guest touches beside is added; of real programs, the accessed bits of the page tables at the end of each interval.'

export function text(result: Result, terminal: Terminal): string {
  return [
    bold('Working sets: estimates against the truth', terminal),
    '',
    textTable(table(result), terminal),
    '',
    textTable(loggedTable(result), terminal),
    '',
    lead(result),
    `Beside its memory a synthetic program and its guest use ${size(result.baselinePages)} in an interval; that is part of the truth. Errors are shares of the truth.`,
    truths,
    `The second table: ${loggedMeaning}`,
  ].join('\n')
}

export function report(result: Result): Report {
  const { headline, measured, slowdown } = result
  return {
    title: 'How much memory a guest works with: estimates against the truth',
    lead: lead(result),
    facts: [
      { name: 'median error', value: percent(headline.errorP50), meaning: 'goal: 5 %' },
      { name: '95th percentile', value: percent(headline.errorP95), meaning: 'goal: 10 %' },
      {
        name: 'sampling, median',
        value: percent(headline.samplingErrorP50),
        meaning: '100 pages at random an interval',
      },
      {
        name: 'slowdown',
        value: percent(headline.slowdown),
        meaning: 'of a guest that never rests; goal: 1 %',
      },
    ],
    sections: [
      {
        title: 'Errors',
        text: `Programs run in a guest; each way watches as many intervals as the others, one after the other. ${truths}`,
        charts: [
          {
            kind: 'bars',
            name: 'errors',
            title: 'Error of each way, by case',
            meaning:
              'How far off each estimate is, as a share of the truth. "written only" is what a log of written pages (PML) can see: it misses what is only read.',
            layout: 'grouped',
            value: { label: 'error', unit: 'share' },
            series: [...ways.map(({ title }) => title), 'written only'],
            rows: measured.map((one) => ({
              name: one.name,
              values: [...ways.map(({ name }) => error(one, name)), one.writtenError ?? Number.NaN],
            })),
          },
        ],
        tables: [table(result)],
      },
      { title: 'Beside every access', text: loggedMeaning, tables: [loggedTable(result)] },
      ...(slowdown ? [slowdownSection(slowdown)] : []),
    ],
    source: `a guest with ${size(result.ramPages)} under ${result.accel}, ${result.rounds} rounds of ${result.intervals} intervals of 1 s a case`,
  }
}

function slowdownSection(slowdown: Slowdown): Section {
  return {
    title: 'Slowdown',
    text: `Processor time for a page that a busy guest touches, watched against unwatched, in ${slowdown.pairs.length} pairs of windows; their mean counts, and lies between ${percent(slowdown.low)} and ${percent(slowdown.high)} with 95 % confidence. By its own account watching cost ${(100 * slowdown.costShare).toFixed(2)} % of the time.`,
    charts: [
      slowdownChart(
        'How much more processor time a page took while somebody watched; the scatter is that of the host.',
        [{ name: 'slowdown', pairs: slowdown.pairs }],
      ),
    ],
  }
}
