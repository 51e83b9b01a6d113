/** One chart of each kind, from figures that are made here. */

import { bins, cumulative } from '../../lab/src/report/statistics.ts'
import type { Chart } from '../../src/report/chart.ts'
import type { Report } from '../../src/report/page.ts'

const waves = Array.from({ length: 300 }, (_, i) => 12 + 8 * Math.sin(i / 20) + ((i * 7919) % 13) / 4)

const charts: Chart[] = [
  {
    kind: 'line',
    name: 'over-time',
    title: 'Amplification over time',
    meaning: 'Each point is an epoch.',
    style: 'area',
    x: { label: 'time', unit: 'seconds' },
    y: { label: 'amplification', unit: 'ratio' },
    series: [
      { name: 'amplification', points: waves.map((value, i) => [i / 100, i === 120 ? Number.NaN : value]) },
    ],
    marks: [{ axis: 'y', at: 10, label: 'a factor of 10' }],
  },
  {
    kind: 'line',
    name: 'two-series',
    title: 'Dirty and changed',
    meaning: 'Two series, logarithmic.',
    style: 'line',
    x: { label: 'epoch length', unit: 'seconds', scale: 'log' },
    y: { label: 'bytes per second', unit: 'bytes', scale: 'log' },
    series: ['dirty pages', 'changed <lines>'].map((name, k) => ({
      name,
      points: [0.01, 0.02, 0.05, 0.1, 1].map((x) => [x, 2 ** 20 / (1 + k * 9) / Math.sqrt(x)]),
    })),
  },
  {
    kind: 'histogram',
    name: 'lines-per-page',
    title: 'Changed lines per dirty page',
    meaning: 'How many pages have so many changed lines.',
    x: { label: 'changed lines', unit: 'count' },
    y: { label: 'pages', unit: 'count' },
    bins: bins(waves, 32),
  },
  {
    kind: 'line',
    name: 'distribution',
    title: 'Distribution',
    meaning: 'The share of epochs at or below.',
    style: 'step',
    x: { label: 'amplification', unit: 'ratio' },
    y: { label: 'share of epochs', unit: 'share', to: 1 },
    series: [cumulative('epochs', waves)],
  },
  {
    kind: 'bars',
    name: 'by-codec',
    title: 'Bytes by codec',
    meaning: 'What each codec would send.',
    layout: 'stacked',
    value: { label: 'bytes', unit: 'bytes' },
    series: ['payload', 'headers', 'rest'],
    rows: [
      { name: 'page', values: [9e6, 1e6, 2e5] },
      { name: 'line', values: [2e6, 3e5, 1e5] },
      { name: 'zpaq', values: [], note: 'missing: apt-get install zpaq' },
    ],
  },
  {
    kind: 'bars',
    name: 'by-workload',
    title: 'Amplification by workload',
    meaning: 'At two epoch lengths.',
    layout: 'grouped',
    value: { label: 'amplification', unit: 'ratio', from: 0, to: 64 },
    series: ['10 ms', '100 ms'],
    rows: ['redis', 'sqlite & friends', 'a workload with a name that is far too long for the page'].map(
      (name, i) => ({
        name,
        values: [40 / (i + 1), 30 / (i + 1)],
      }),
    ),
    marks: [{ axis: 'x', at: 10, label: '10' }],
  },
  {
    kind: 'heat',
    name: 'where',
    title: 'Where memory changes',
    meaning: 'Address by time.',
    x: { label: 'time', unit: 'seconds', from: 0, to: 3 },
    y: { label: 'guest memory', unit: 'bytes', from: 0, to: 2 ** 28 },
    value: { label: 'changed lines', unit: 'count' },
    columns: 150,
    rows: 64,
    cells: Float64Array.from({ length: 150 * 64 }, (_, i) => {
      const [column, row] = [i % 150, Math.floor(i / 150)]
      return row < 4 ? 100 : Math.abs(row - 32 - 20 * Math.sin(column / 20)) < 3 ? 10 + column * 2 : 0
    }),
  },
]

export const gallery: Report = {
  title: 'Gallery',
  lead: 'Every kind of chart that a report can hold.',
  facts: [
    { name: 'Amplification', value: '11.4×', meaning: 'bytes of dirty pages for each byte of changed lines' },
    { name: 'Epochs', value: '300', meaning: 'of 10 ms' },
    { name: 'Memory', value: '256 MiB' },
  ],
  sections: [
    { title: 'Charts', text: 'One of each.', charts },
    {
      title: 'Tables',
      tables: [
        {
          name: 'codecs',
          title: 'Codecs',
          heading: ['codec', 'bytes'],
          rows: [
            ['page', '9.0 MiB'],
            ['<line>', '2.0 MiB'],
          ],
          numbers: [1],
        },
      ],
    },
  ],
  source: 'made up',
}
