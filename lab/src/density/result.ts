/** The study's result as text and as a page. */
import type { Series } from 'subpage/report/chart'
import type { Report, Section } from 'subpage/report/page'
import { ascending } from '../report/statistics.ts'
import { bold, type Terminal, textTable } from '../report/terminal.ts'
import { slowdownChart } from '../slowdown-chart.ts'
import { clock, type Lifetimes, type Live, type Lived, lived } from './live.ts'
import type { Moment, Savings } from './savings.ts'
import type { DensityFindings } from './study.ts'
import { percent, tables } from './tables.ts'

function sentences({ live, accesses, standbysPerGib, notRun }: DensityFindings): string[] {
  return [
    accesses
      ? `To rebuild a patched or compressed page took ${accesses.rebuildUsP50.toFixed(1)} µs at the median; the page fault around it is in the table.`
      : '',
    live
      ? `Guests were slowed down by ${live.guests.map(({ name, slowdown, low, high }) => `${percent(slowdown)} (${name}; between ${percent(low)} and ${percent(high)} with 95 % confidence)`).join(' and ')}; the paper: below 7 %. A pause took ${(live.pauseUsP50 / 1000).toFixed(1)} ms at the median.`
      : '',
    live ? lifetimeSentence(live) : '',
    `${standbysPerGib} such homogeneous guests fit in 1 GiB.`,
    ...notRun.map((what) => `Not run: ${what}.`),
  ].filter(Boolean)
}

function lifetimeSentence({ lifetimes: { any } }: Live): string {
  const all = any.came.length + any.still.length
  return all === 0
    ? ''
    : `${all} pages went away; ${percent(any.still.length / all)} of them were still away at the end.`
}

export function text(findings: DensityFindings, terminal: Terminal): string {
  const shown = tables(findings).map(
    (table) => `${bold(table.title, terminal)}\n${textTable(table, terminal)}`,
  )
  return [...shown, sentences(findings).join('\n')].join('\n\n')
}

export function report(findings: DensityFindings): Report {
  const { savings, moments, live, accel } = findings
  const [homogeneous, mixed] = [savings[0]!, savings.at(-1)!]
  return {
    title: 'Density: what guests could do without',
    lead: sentences(findings).join(' '),
    facts: [
      { name: 'homogeneous', value: percent(homogeneous.packing), meaning: 'of resident memory saved' },
      { name: 'mixed', value: percent(mixed.packing), meaning: 'of resident memory saved' },
      ...(live
        ? [
            {
              name: 'slowdown',
              value: percent(live.slowdown),
              meaning: 'of the guest that suffers most',
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
      ...(moments.length > 1 ? [overTime(moments)] : []),
      ...(live ? [slowdownSection(live), lifetimeSection(live)] : []),
    ],
    source: `${savings.length} groups of guests, ${accel}; clock: recent ${clock.recentMs} ms, cold ${clock.coldMs} ms`,
  }
}

function overTime(moments: readonly Moment[]): Section {
  const series = (name: string, of: (savings: Savings) => number) => ({
    name,
    points: moments.map(({ atS, savings }) => [atS, of(savings)] as const),
  })
  return {
    title: 'Savings over time',
    charts: [
      {
        kind: 'line',
        style: 'line',
        name: 'over-time',
        title: 'Saved while the guests work, by technique',
        meaning: 'Each line adds a technique to those below it.',
        x: { label: 'time', unit: 'seconds' },
        y: { label: 'of resident memory', unit: 'share', from: 0, to: 1 },
        series: [
          series('sharing', ({ sharing }) => sharing),
          series('+ patching', ({ patching }) => patching),
          series('+ compression', ({ packing }) => packing),
        ],
      },
    ],
  }
}

function slowdownSection({ guests }: Live): Section {
  return {
    title: 'Slowdown',
    charts: [
      slowdownChart(
        'How much less work a guest did in a window in which it was watched and pages left it than in the one beside it; the scatter is that of the host, and of the guest’s work.',
        guests,
      ),
    ],
  }
}

const livedTitles: Record<Lived, string> = {
  patched: 'patched',
  packed: 'compressed',
  any: 'all, however held',
}

function lifetimeSection({ lifetimes }: Live): Section {
  return {
    title: 'How long pages stay away',
    text: 'In the paper half of all patched or compressed pages stay untouched for 10 s.',
    charts: [
      {
        kind: 'line',
        style: 'step',
        name: 'lifetimes',
        title: 'Stored pages that a guest has asked for, by how long they were away',
        meaning:
          'The share of stored pages that came back within so many seconds, from when they were first seen patched or compressed; of all pages, from when they left. A page that was still away when the measurement ended counts for as long as it was seen (Kaplan-Meier).',
        x: { label: 'away', unit: 'seconds' },
        y: { label: 'pages that came back', unit: 'share', from: 0 },
        series: lived
          .filter((kind) => lifetimes[kind].came.length + lifetimes[kind].still.length > 0)
          .map((kind) => ({ name: livedTitles[kind], points: cameBack(lifetimes[kind]) })),
      },
    ],
  }
}

/** The Kaplan-Meier estimate of the share that has come back: `still` were watched until then and had not. */
export function cameBack({ came, still }: Lifetimes, pointsMax = 400): Series['points'] {
  const [back, away] = [ascending(came), ascending(still)]
  const points: [number, number][] = [[0, 0]]
  let [left, ended] = [1, 0]
  for (const [index, atS] of back.entries()) {
    while (ended < away.length && away[ended]! < atS) ended++
    left *= 1 - 1 / (back.length - index + away.length - ended)
    if (back[index + 1] !== atS) points.push([atS, 1 - left])
  }
  const step = Math.max(1, Math.ceil(points.length / pointsMax))
  const last = Math.max(back.at(-1) ?? 0, away.at(-1) ?? 0)
  return [...points.filter((_, i) => i % step === 0 || i === points.length - 1), [last, 1 - left]]
}
