/** Horizontal bars: a row per category, its parts stacked or beside each other, its total written at the end. */
import type { Bars } from './chart.ts'
import { element, type Markup } from './markup.ts'
import { type Area, hint, legend, marks, seriesClass, svg, text, textWidth, width, xTicks } from './plot.ts'
import { formatValue, type Scale, scaleOf } from './scale.ts'

const nameWidthMax = 220
const valueWidth = 64

export function drawBars(chart: Bars): Markup {
  const stacked = chart.layout === 'stacked'
  const barHeight = stacked || chart.series.length === 1 ? 16 : Math.max(5, 22 / chart.series.length)
  const rowHeight = (stacked ? barHeight : barHeight * chart.series.length) + 10
  const finite = (values: readonly number[]) => values.filter(Number.isFinite)
  const totals = chart.rows.map(({ values }) =>
    stacked ? finite(values).reduce((a, b) => a + b, 0) : Math.max(0, ...finite(values)),
  )
  const markValues = (chart.marks ?? []).map(({ at }) => at)
  // Beside each other they all have their ends on the axis, which may begin above 0.
  const ends = stacked ? totals : chart.rows.flatMap(({ values }) => finite(values))
  const scale = scaleOf(chart.value, [...ends, ...markValues], 6)
  const left = Math.min(nameWidthMax, Math.max(60, ...chart.rows.map(({ name }) => textWidth(name) + 22)))
  const names = legend(left, 16, chart.series)
  const top = 16 + names.height + (chart.marks ? 6 : 0)
  const area: Area = { left, top, width: width - left - valueWidth, height: rowHeight * chart.rows.length }
  const bottom = top + area.height
  return svg(
    bottom + 44,
    chart.title,
    ...names.drawn,
    ...scale.ticks.map(({ value }) => {
      const x = left + scale.place(value) * area.width
      return element('line', { x1: x, x2: x, y1: top, y2: bottom, class: 'grid' })
    }),
    ...xTicks(area, scale),
    text(left + area.width, bottom + 36, 'axis end', `${chart.value.label} →`),
    ...chart.rows.flatMap((row, i) => {
      const y = top + i * rowHeight + 5
      const middle = y + (rowHeight - 10) / 2 + 4
      const name = text(left - 8, middle, 'tick end', shortened(row.name))
      if (row.note !== undefined) return [name, text(left + 6, middle, 'note', row.note)]
      const drawn = stacked
        ? stack(chart, row.values, scale, area, y, barHeight)
        : group(chart, row.values, scale, area, y, barHeight)
      const end = left + clamp(scale.place(totals[i]!)) * area.width
      const label = formatValue(totals[i]!, chart.value.unit)
      return [
        name,
        ...drawn,
        ...(stacked || chart.series.length === 1 ? [text(end + 6, middle, 'value', label)] : []),
      ]
    }),
    ...marks(area, chart.marks ?? [], scale, undefined, true),
  )
}

function stack(chart: Bars, values: readonly number[], scale: Scale, area: Area, y: number, height: number) {
  let before = 0
  return values.flatMap((value, i) => {
    if (!(value > 0)) return []
    const x = area.left + clamp(scale.place(before)) * area.width
    before += value
    const right = area.left + clamp(scale.place(before)) * area.width
    return [bar(chart, i, value, { x, y, width: right - x, height })]
  })
}

function group(chart: Bars, values: readonly number[], scale: Scale, area: Area, y: number, height: number) {
  return values.flatMap((value, i) => {
    if (!Number.isFinite(value)) return []
    const length = clamp(scale.place(value)) * area.width
    return [bar(chart, i, value, { x: area.left, y: y + i * height, width: length, height: height - 1 })]
  })
}

type Box = { x: number; y: number; width: number; height: number }

/** A gap of the page's own colour keeps neighbours apart. */
const bar = (chart: Bars, index: number, value: number, box: Box) =>
  element(
    'rect',
    { ...box, width: Math.max(0.5, box.width - 1), class: `fill ${seriesClass(index)}` },
    hint(`${chart.series[index]}: ${formatValue(value, chart.value.unit)}`),
  )

function shortened(name: string): string {
  const most = Math.floor((nameWidthMax - 14) / 6.6)
  return [...name].length <= most ? name : `${[...name].slice(0, most - 1).join('')}…`
}

const clamp = (place: number) => Math.min(1, Math.max(0, place))
