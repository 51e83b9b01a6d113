/**
 * What a chart says, as data: the same value becomes SVG (svg.ts), a table of figures below it, and a CSV file (csv.ts).
 * A chart carries its own explanation, because whoever reads a page may never have seen the project.
 */

/**
 * How figures are written. `share` is a fraction of 1, shown in per cent; `seconds` chooses µs, ms or s; `ratio` is shown
 * with ×.
 */
export type Unit = 'count' | 'bytes' | 'seconds' | 'ratio' | 'share'

export interface Axis {
  /** What is measured, without its unit: "time", "dirty pages". */
  label: string
  unit: Unit
  /** Linear when left out. A logarithmic axis shows positive values only; others lie at its lower end. */
  scale?: 'linear' | 'log'
  /** Where the axis begins and ends; from the data when left out (a linear value axis includes 0). */
  from?: number
  to?: number
}

interface Described {
  /** Lower case with hyphens, one per page: anchor and file name. */
  name: string
  title: string
  /** One or two sentences for someone who has never seen this: how to read it, what it means. */
  meaning: string
}

export interface Series {
  name: string
  /** Ascending in x. A y of NaN is a gap. */
  points: readonly (readonly [x: number, y: number])[]
}

/** A line that the eye compares with, such as a goal or a published figure. */
export interface Mark {
  axis: 'x' | 'y'
  at: number
  label: string
}

/** Values over time or over another quantity. `area` fills one below; `step` holds a value until the next. */
export interface LineChart extends Described {
  kind: 'line'
  style: 'line' | 'area' | 'step' | 'dots'
  x: Axis
  y: Axis
  series: readonly Series[]
  marks?: readonly Mark[]
}

/** How often values lie in each of several ranges that follow each other. */
export interface Histogram extends Described {
  kind: 'histogram'
  x: Axis
  y: Axis
  bins: readonly { from: number; to: number; count: number }[]
  marks?: readonly Mark[]
}

/** A row per category: parts of a whole, or values beside each other. */
export interface Bars extends Described {
  kind: 'bars'
  layout: 'stacked' | 'grouped'
  value: Axis
  series: readonly string[]
  /** A value per series; NaN where there is none, and `note` says why. */
  rows: readonly { name: string; values: readonly number[]; note?: string }[]
  marks?: readonly Mark[]
}

/** A value for each cell of a grid. `cells` is by row from the lowest y, `columns` values each; 0 is nothing. */
export interface HeatMap extends Described {
  kind: 'heat'
  x: Axis & { from: number; to: number }
  y: Axis & { from: number; to: number }
  value: Axis
  columns: number
  rows: number
  cells: Float64Array
}

export type Chart = LineChart | Histogram | Bars | HeatMap

/** The figures of a chart: a heading and rows, raw numbers in base units (bytes, seconds, fractions). */
export function chartRows(chart: Chart): (string | number)[][] {
  switch (chart.kind) {
    case 'line':
      return [
        ['series', named(chart.x), named(chart.y)],
        ...chart.series.flatMap(({ name, points }) => points.map(([x, y]) => [name, x, y])),
      ]
    case 'histogram':
      return [
        [`${named(chart.x)} from`, `${named(chart.x)} to`, named(chart.y)],
        ...chart.bins.map(({ from, to, count }) => [from, to, count]),
      ]
    case 'bars':
      return [
        ['', ...chart.series.map((name) => `${name} (${named(chart.value)})`)],
        ...chart.rows.map(({ name, values, note }) => [
          note === undefined ? name : `${name} (${note})`,
          ...chart.series.map((_, i) => values[i] ?? Number.NaN),
        ]),
      ]
    case 'heat':
      return [[named(chart.x), named(chart.y), named(chart.value)], ...heatRows(chart)]
  }
}

/** Only the cells that hold something. */
function* heatRows(chart: HeatMap): Generator<number[]> {
  for (let row = 0; row < chart.rows; row++)
    for (let column = 0; column < chart.columns; column++) {
      const value = chart.cells[row * chart.columns + column]!
      const x = chart.x.from + ((chart.x.to - chart.x.from) * column) / chart.columns
      const y = chart.y.from + ((chart.y.to - chart.y.from) * row) / chart.rows
      if (value !== 0) yield [x, y, value]
    }
}

const baseUnits: Record<Unit, string> = { count: '', bytes: ' [B]', seconds: ' [s]', ratio: '', share: '' }
const named = (axis: Axis) => `${axis.label}${baseUnits[axis.unit]}`
