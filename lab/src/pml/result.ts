/** The result of the study of Page Modification Logging, for people: text and page. */

import type { Bars } from 'subpage/report/chart'
import type { Report, Table } from 'subpage/report/page'
import { formatBytes } from 'subpage/units'
import { type LogEntries, logEntries } from '../plugin/layout.ts'
import { bold, type Terminal, textTable } from '../report/terminal.ts'
import { ramBytes } from './lab.ts'
import { armMs, type Counted as Events, type Overhead } from './measure.ts'
import type { Inputs } from './model.ts'

export interface Counted extends Events {
  /** T as a share of the guest's time, by the size of the log. */
  loggingShare: Record<LogEntries, number>
  /** Write protection with the fault of this host, as a guest under TCG meets it; and with the exit that KVM adds. */
  protectionShare: number
  protectionShareKvm: number
}

export interface Result {
  inputs: Inputs
  inputSources: Record<keyof Inputs, string>
  /** Of the first write to a protected page, measured on this host; 0 where it cannot be tried. */
  faultNs: number
  counted: Counted[]
  overheads: Overhead[]
  headline: {
    workloads: number
    loggingShareMax: number | null
    protectionShareMax: number | null
    slowdown: Record<string, number>
  }
}

const percent = (share: number) => `${(100 * share).toFixed(Math.abs(share) < 0.01 ? 3 : 1)} %`
const rate = (value: number) => (value < 10 ? value.toFixed(1) : value.toFixed(0))

function eventsTable({ counted }: Result): Table {
  return {
    name: 'log-full',
    title: 'Log-full events per second (N), by the size of the log in entries',
    heading: ['workload', 'pages logged/s', ...logEntries.map(String)],
    numbers: [1, 2, 3, 4, 5, 6, 7],
    rows: counted.map(({ name, seconds, logged, full }) => [
      name,
      rate(logged / seconds),
      ...logEntries.map((entries) => rate(full[entries] / seconds)),
    ]),
  }
}

function sharesTable({ counted }: Result): Table {
  return {
    name: 'shares',
    title: 'Share of the guest’s time',
    heading: ['workload', ...logEntries.map((entries) => `PML ${entries}`), 'write protection', '+ exits'],
    numbers: [1, 2, 3, 4, 5, 6, 7, 8],
    rows: counted.map(({ name, loggingShare, protectionShare, protectionShareKvm }) => [
      name,
      ...logEntries.map((entries) => percent(loggingShare[entries])),
      percent(protectionShare),
      percent(protectionShareKvm),
    ]),
  }
}

function overheadTable({ overheads }: Result): Table {
  return {
    name: 'trackers',
    title: 'What each tracker costs a guest under TCG',
    heading: ['tracker', 'slowdown', 'from', 'to', 'memory', 'of the guest’s'],
    numbers: [1, 2, 3, 4, 5],
    rows: overheads.map(({ name, slowdown, pairs, memoryBytes }) => [
      name,
      percent(slowdown),
      percent(Math.min(...pairs)),
      percent(Math.max(...pairs)),
      formatBytes(memoryBytes),
      percent(memoryBytes / ramBytes),
    ]),
  }
}

function overheadBars({ overheads }: Result): Bars {
  return {
    kind: 'bars',
    layout: 'grouped',
    name: 'tracker-slowdown',
    title: 'Work that the guest does not get done while it is tracked',
    meaning:
      'The middle one of all pairs of windows. A share below nothing is the noise of this host, and not drawn.',
    value: { label: 'share of its work', unit: 'share' },
    series: ['slowdown'],
    rows: overheads.map(({ name, slowdown }) => ({ name, values: [Math.max(0, slowdown)] })),
  }
}

const inputNames: Record<keyof Inputs, string> = {
  exitEntryNs: 'exit and entry',
  handleEntryNs: 'entry of a full log',
  logPageNs: 'logging a page',
}

function inputsTable({ inputs, inputSources, faultNs }: Result): Table {
  return {
    name: 'inputs',
    title: 'Prices',
    heading: ['what', 'ns', 'from'],
    numbers: [1],
    rows: [
      ...Object.entries(inputs).map(([name, ns]) => [
        inputNames[name as keyof Inputs],
        String(ns),
        inputSources[name as keyof Inputs],
      ]),
      [
        'write fault',
        faultNs.toFixed(0),
        'measured on this host: first writes to 512 pages of shared memory',
      ],
    ],
  }
}

function lead({ headline, counted }: Result): string {
  const { loggingShareMax, protectionShareMax } = headline
  if (loggingShareMax === null || protectionShareMax === null)
    return 'Only the costs of trackers were measured.'
  return `In ${counted.length} workloads a log of 512 entries would cost at most ${percent(loggingShareMax)} of the guest’s time, write protection ${percent(protectionShareMax)}, when pages are armed every ${armMs} ms. The share of logging rests on assumed prices.`
}

export function text(result: Result, terminal: Terminal): string {
  const tables = [eventsTable, sharesTable, overheadTable]
    .map((make) => make(result))
    .filter(({ rows }) => rows.length > 0)
  return [
    bold('Page Modification Logging: T = T_PTW + N × (T_x + T_e + T_h)', terminal),
    ...tables.flatMap((table) => ['', table.title, '', textTable(table, terminal)]),
    '',
    lead(result),
    ...inputsTable(result).rows.map(([name, ns, from]) => `${name}: ${ns} ns, ${from}`),
  ].join('\n')
}

export function report(result: Result): Report {
  const { headline, counted, faultNs } = result
  return {
    title: 'What logging written pages in hardware would cost',
    lead: lead(result),
    facts: [
      {
        name: 'PML, 512 entries',
        value: headline.loggingShareMax === null ? '–' : percent(headline.loggingShareMax),
        meaning: 'of the guest’s time, in the worst workload',
      },
      {
        name: 'write protection',
        value: headline.protectionShareMax === null ? '–' : percent(headline.protectionShareMax),
        meaning: 'of the guest’s time, in the worst workload',
      },
      { name: 'write fault', value: `${faultNs.toFixed(0)} ns`, meaning: 'measured on this host' },
    ],
    sections: [
      {
        title: 'How often a log is full',
        text: `A model of the hardware inside QEMU logs a page when a processor sets its dirty bit; each vCPU has its log. Pages were armed again every ${armMs} ms, which empties the logs. Every size is followed on the same accesses. It is the most that N can be: a hypervisor that empties logs whenever a guest exits for another reason, as KVM does, meets fewer full ones.`,
        charts: [
          {
            kind: 'bars',
            name: 'log-full-rate',
            title: 'Log-full events per second',
            meaning: 'How often the guest would be interrupted for its log to be emptied: N of the formula.',
            layout: 'grouped',
            value: { label: 'events per second', unit: 'count' },
            series: logEntries.map((entries) => `${entries} entries`),
            rows: counted.map(({ name, seconds, full }) => ({
              name,
              values: logEntries.map((entries) => full[entries] / seconds),
            })),
          },
        ],
        tables: [eventsTable(result)],
      },
      {
        title: 'What that costs',
        text: 'Logging by the formula, with the prices below. Write protection: each logged page would have been a fault, of the price that was measured on this host; a guest on KVM leaves and enters besides.',
        tables: [sharesTable(result), inputsTable(result)],
      },
      {
        title: 'What subpage’s trackers cost',
        text: 'A guest that works without end, in windows with the tracker and without; what counts is the work done in a second of its processor. userfault and compare: the same guest. lines, pml, prl: beside a guest without the plugin, one running at a time. A model of hardware in software costs far more than the hardware would.',
        charts: result.overheads.length > 0 ? [overheadBars(result)] : [],
        tables: [overheadTable(result)],
      },
    ],
    source: `guests with ${formatBytes(ramBytes)} and one processor under tcg`,
  }
}
