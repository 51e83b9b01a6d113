/** The study's result as text and as a page. */
import type { Report, Section, Table } from '../report/page.ts'
import { cumulative } from '../report/statistics.ts'
import { bold, type Terminal, textTable } from '../report/terminal.ts'
import { clock, type Live } from './live.ts'
import type { DensityFindings } from './study.ts'

const percent = (share: number) => `${(100 * share).toFixed(1)} %`
const us = (ns: number) => `${(ns / 1000).toFixed(1)} µs`

/** Of patches and of packed pages, which are rebuilt; from reading the fault to its answer. */
export function rebuildUsP50(live: Live | undefined): number | null {
  const rebuilt = (live?.pagers ?? []).flatMap(({ served }) => [served.patched, served.packed])
  const total = rebuilt.reduce((sum, { pages }) => sum + pages, 0)
  if (total === 0) return null
  return rebuilt.reduce((sum, { pages, us: times }) => sum + pages * (times?.p50 ?? 0), 0) / total
}

function tables({ savings, sweep, live }: DensityFindings): Table[] {
  return [
    {
      name: 'savings',
      title: 'Saved, one technique after the other',
      heading: [
        'group',
        'pages',
        'zero',
        'sharing',
        '+ patching',
        '+ compression',
        'without zero pages',
        'mean patch',
      ],
      numbers: [1, 2, 3, 4, 5, 6, 7],
      rows: [
        ...savings.map((found) => [
          `${found.group} (${found.guests.join(', ')})`,
          String(found.pages),
          percent(found.zeroPages / found.pages),
          percent(found.sharing),
          percent(found.patching),
          percent(found.packing),
          percent(found.packingWithoutZero),
          `${Math.round(found.meanPatchBytes)} bytes`,
        ]),
        ['Difference Engine, homogeneous', '', '', '', '', '90 %', '', ''],
        ['Difference Engine, mixed', '', '', '', '', '65 %', '', ''],
        ['Difference Engine, Table 1', '393120', '', '50 %', '77 %', '', '', '1070 bytes'],
      ],
    },
    {
      name: 'costs',
      title: 'Costs of each operation on a page, on this machine in this run',
      heading: ['group', 'share', 'patch', 'compress'],
      numbers: [1, 2, 3],
      rows: [
        ...savings.map(({ group, costNs }) => [
          group,
          us(costNs.share),
          us(costNs.patch),
          us(costNs.compress),
        ]),
      ],
    },
    {
      name: 'sweep',
      title: 'Detectors of similar pages, (k,s),c',
      heading: ['detector', 'patched', 'mean patch', 'saved so far', 'cost a page'],
      numbers: [1, 2, 3, 4],
      rows: sweep.map((point) => [
        point.shape,
        String(point.patchedPages),
        `${Math.round(point.meanPatchBytes)} bytes`,
        percent(point.saved),
        us(point.patchNs),
      ]),
    },
    {
      name: 'rebuild',
      title: 'Accesses to pages that were away: from reading the fault to its answer',
      heading: ['guest', 'kind', 'pages', 'p50 µs', 'p99 µs'],
      numbers: [2, 3, 4],
      rows: (live?.pagers ?? []).flatMap(({ name, served }) =>
        Object.entries(served)
          .filter(([, { pages }]) => pages > 0)
          .map(([kind, { pages, us: times }]) => [
            name,
            kind,
            String(pages),
            (times?.p50 ?? 0).toFixed(1),
            (times?.p99 ?? 0).toFixed(1),
          ]),
      ),
    },
  ].filter(({ rows }) => rows.length > 0)
}

function sentences({ live, standbysPerGib, notRun }: DensityFindings): string[] {
  return [
    live
      ? `A guest that writes all the time was slowed down by ${percent(live.slowdown)} (median of ${live.pairs} pairs; the paper: below 7 %), its pauses took ${(live.pauseUsP50 / 1000).toFixed(1)} ms at the median.`
      : '',
    live ? lifetimes(live) : '',
    `${standbysPerGib} such homogeneous guests fit in 1 GiB.`,
    ...notRun.map((what) => `Not run: ${what}.`),
  ].filter(Boolean)
}

function lifetimes({ lifetimesS, stillAwayS }: Live): string {
  const all = lifetimesS.length + stillAwayS.length
  if (all === 0) return ''
  return `${all} pages went away; ${percent(stillAwayS.length / all)} of them were still away at the end.`
}

export function text(findings: DensityFindings, terminal: Terminal): string {
  const shown = tables(findings).map(
    (table) => `${bold(table.title, terminal)}\n${textTable(table, terminal)}`,
  )
  return [...shown, sentences(findings).join('\n')].join('\n\n')
}

export function report(findings: DensityFindings): Report {
  const { savings, live, accel } = findings
  const [homogeneous, mixed] = savings
  return {
    title: 'Density: what guests could do without',
    lead: sentences(findings).join(' '),
    facts: [
      { name: 'homogeneous', value: percent(homogeneous!.packing), meaning: 'of resident memory saved' },
      { name: 'mixed', value: percent(mixed!.packing), meaning: 'of resident memory saved' },
      ...(live
        ? [
            {
              name: 'slowdown',
              value: percent(live.slowdown),
              meaning: 'of a guest that writes all the time',
            },
          ]
        : []),
    ],
    sections: [
      {
        title: 'Savings',
        text: 'All memory that the guests hold counts, zero pages too, as in the paper; one column leaves those out.',
        charts: [
          {
            kind: 'bars',
            name: 'techniques',
            title: 'Saved by technique',
            meaning: 'Each bar adds what a technique saves to what those before it have saved.',
            layout: 'stacked',
            value: { label: 'of resident memory', unit: 'share', from: 0, to: 1 },
            series: ['sharing', 'patching', 'compression'],
            rows: savings.map(({ group, sharing, patching, packing }) => ({
              name: group,
              values: [sharing, patching - sharing, packing - patching],
            })),
          },
        ],
        tables: tables(findings),
      },
      ...(live ? [lifetimeSection(live)] : []),
    ],
    source: `${savings.length} groups of guests, ${accel}; clock: recent ${clock.recentMs} ms, cold ${clock.coldMs} ms`,
  }
}

function lifetimeSection(live: Live): Section {
  return {
    title: 'How long pages stay away',
    charts: [
      {
        kind: 'line',
        style: 'step',
        name: 'lifetimes',
        title: 'Pages that came back, by how long they were away',
        meaning: 'The share of pages that came back within so many seconds, among those that came back.',
        x: { label: 'away', unit: 'seconds' },
        y: { label: 'pages that came back', unit: 'share', from: 0, to: 1 },
        series: [cumulative('came back', live.lifetimesS)],
      },
    ],
  }
}
