/** Charts as SVG. Colours and fonts come from the page's style sheet (style.ts), so one drawing serves light and dark. */
import { drawBars } from './bars.ts'
import type { Axis, Chart, Histogram, LineChart } from './chart.ts'
import { drawHeatMap } from './heat-map.ts'
import { element, type Markup, short } from './markup.ts'
import { type Area, axes, hint, legend, marks, seriesClass, svg, textWidth, width } from './plot.ts'
import { formatValue, type Scale, scaleOf } from './scale.ts'

const plotHeight = 230
const hintColumnsMax = 120

export function drawChart(chart: Chart): Markup {
  switch (chart.kind) {
    case 'line':
      return drawLines(chart)
    case 'histogram':
      return drawHistogram(chart)
    case 'bars':
      return drawBars(chart)
    case 'heat':
      return drawHeatMap(chart)
  }
}

/** @param legendHeight what `legend` takes above it */
function plotArea(left: number, legendHeight: number): Area {
  const top = 30 + (legendHeight > 0 ? legendHeight + 4 : 0)
  return { left, top, width: width - left - 28, height: plotHeight }
}

const leftOf = (yScale: Scale) => Math.max(44, ...yScale.ticks.map(({ label }) => textWidth(label) + 16))

function drawLines(chart: LineChart): Markup {
  const all = chart.series.flatMap(({ points }) => points)
  const markValues = (axis: 'x' | 'y') => (chart.marks ?? []).filter((m) => m.axis === axis).map((m) => m.at)
  const xScale = scaleOf(
    chart.x,
    all.map(([x]) => x),
    8,
    false,
  )
  const yScale = scaleOf(chart.y, [...all.map(([, y]) => y), ...markValues('y')], 5)
  const left = leftOf(yScale)
  const names = legend(
    left,
    16,
    chart.series.map(({ name }) => name),
  )
  const area = plotArea(left, names.height)
  const bottom = area.top + area.height
  const at = ([x, y]: readonly [number, number]) =>
    [area.left + clamp(xScale.place(x)) * area.width, bottom - clamp(yScale.place(y)) * area.height] as const
  return svg(
    bottom + 44,
    chart.title,
    ...names.drawn,
    ...axes(area, chart.x, xScale, chart.y, yScale),
    ...chart.series.flatMap(({ points }, i) => drawSeries(chart, points.map(at), i, bottom)),
    ...marks(area, chart.marks ?? [], xScale, yScale),
    ...hintColumns(chart, area, xScale),
  )
}

type Place = readonly [x: number, y: number]

function drawSeries(chart: LineChart, places: readonly Place[], index: number, bottom: number): Markup[] {
  const colour = seriesClass(index)
  if (chart.style === 'dots')
    return places
      .filter(([, y]) => !Number.isNaN(y))
      .map(([cx, cy]) => element('circle', { cx, cy, r: 3, class: `fill ${colour}` }))
  return unbroken(places).flatMap((part) => {
    const line = part.map(([x, y], i) => {
      const before = part[i - 1]
      if (!before) return `M${short(x)} ${short(y)}`
      return chart.style === 'step' ? `H${short(x)}V${short(y)}` : `L${short(x)} ${short(y)}`
    })
    const [first, last] = [part[0]!, part.at(-1)!]
    const path = element('path', { d: line.join(''), class: `line ${colour}` })
    // A lone value is a line of no length.
    if (part.length === 1)
      return [element('circle', { cx: first[0], cy: first[1], r: 3, class: `fill ${colour}` })]
    if (chart.style !== 'area') return [path]
    const filled = `${line.join('')}L${short(last[0])} ${short(bottom)}L${short(first[0])} ${short(bottom)}Z`
    return [element('path', { d: filled, class: `area ${colour}` }), path]
  })
}

/** Parts between gaps. */
function unbroken(places: readonly Place[]): Place[][] {
  const parts: Place[][] = [[]]
  for (const place of places)
    if (Number.isNaN(place[1])) parts.push([])
    else parts.at(-1)!.push(place)
  return parts.filter((part) => part.length > 0)
}

/** Unseen columns that say the values below the pointer. */
function hintColumns(chart: LineChart, area: Area, xScale: Scale): Markup[] {
  const xs = [...new Set(chart.series.flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => a - b)
  if (xs.length < 2) return []
  const every = Math.ceil(xs.length / hintColumnsMax)
  const chosen = xs.filter((_, i) => i % every === 0)
  const places = chosen.map((x) => area.left + clamp(xScale.place(x)) * area.width)
  return chosen.map((x, i) => {
    const from = i === 0 ? area.left : (places[i - 1]! + places[i]!) / 2
    const to = i === places.length - 1 ? area.left + area.width : (places[i]! + places[i + 1]!) / 2
    const values = chart.series.flatMap(({ name, points }) => {
      const y = valueAt(points, x)
      return y === undefined ? [] : [`${name}: ${formatValue(y, chart.y.unit)}`]
    })
    return element(
      'rect',
      { x: from, y: area.top, width: Math.max(0.5, to - from), height: area.height, class: 'hint' },
      hint([`${chart.x.label} ${formatValue(x, chart.x.unit)}`, ...values].join('\n')),
    )
  })
}

/** The latest value at or before x. */
function valueAt(points: LineChart['series'][number]['points'], x: number): number | undefined {
  let [low, high] = [0, points.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (points[middle]![0] <= x) low = middle + 1
    else high = middle
  }
  return points[low - 1]?.[1]
}

function drawHistogram(chart: Histogram): Markup {
  const xScale = scaleOf(
    rangeOf(chart),
    chart.bins.flatMap(({ from, to }) => [from, to]),
    8,
    false,
  )
  const yScale = scaleOf(
    chart.y,
    chart.bins.map(({ count }) => count),
    5,
  )
  const area = plotArea(leftOf(yScale), 0)
  const bottom = area.top + area.height
  return svg(
    bottom + 44,
    chart.title,
    ...axes(area, chart.x, xScale, chart.y, yScale),
    ...chart.bins.map(({ from, to, count }) => {
      const x = area.left + clamp(xScale.place(from)) * area.width
      const right = area.left + clamp(xScale.place(to)) * area.width
      const height = clamp(yScale.place(count)) * area.height
      return element(
        'rect',
        { x: x + 0.5, y: bottom - height, width: Math.max(1, right - x - 1), height, class: 'fill s1' },
        hint(`${binName(chart, from, to)}: ${formatValue(count, chart.y.unit)}`),
      )
    }),
    ...marks(area, chart.marks ?? [], xScale, yScale),
  )
}

function binName(chart: Histogram, from: number, to: number): string {
  const [low, high] = [formatValue(from, chart.x.unit), formatValue(to, chart.x.unit)]
  return low === high ? `${chart.x.label} ${low}` : `${chart.x.label} ${low} to ${high}`
}

/** A single bin has no width of its own: give it room on both sides. */
function rangeOf(chart: Histogram): Axis {
  const [first, last] = [chart.bins[0], chart.bins.at(-1)]
  if (!first || !last || chart.x.from !== undefined || chart.x.to !== undefined) return chart.x
  if (first.from !== last.to) return { ...chart.x, from: first.from, to: last.to }
  return chart.x.scale === 'log'
    ? { ...chart.x, from: first.from / 2, to: first.from * 2 }
    : { ...chart.x, from: first.from - 0.5, to: first.from + 0.5 }
}

/** Values may lie beyond axes that were given; they are drawn at the border. */
const clamp = (place: number) => (Number.isNaN(place) ? Number.NaN : Math.min(1, Math.max(0, place)))
