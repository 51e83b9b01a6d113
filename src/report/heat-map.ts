/**
 * Heat maps: a grid as a small picture inside the SVG. The picture is a mask for one colour of the page, so the same
 * picture is dark on light paper and light on dark; what holds nothing shows the paper itself.
 */
import type { HeatMap } from './chart.ts'
import { element, type Markup } from './markup.ts'
import { type Area, axes, svg, text, textWidth, width } from './plot.ts'
import { alphaPng } from './png.ts'
import { formatValue, scaleOf } from './scale.ts'

const plotHeight = 300
const opacityMin = 0.16

export function drawHeatMap(chart: HeatMap): Markup {
  const xScale = scaleOf(chart.x, [], 8, false)
  const yScale = scaleOf(chart.y, [], 6, false)
  const left = Math.max(44, ...yScale.ticks.map(({ label }) => textWidth(label) + 16))
  const area: Area = { left, top: 30, width: width - left - 28, height: plotHeight }
  let largest = 0
  for (const value of chart.cells) if (value > largest) largest = value
  const picture = alphaPng(chart.columns, chart.rows, opacities(chart, largest)).toString('base64')
  const box = { x: area.left, y: area.top, width: area.width, height: area.height }
  const mask = `mask-${chart.name}`
  return svg(
    area.top + area.height + 44,
    chart.title,
    element(
      'mask',
      { id: mask, 'mask-type': 'alpha', style: 'mask-type:alpha' },
      element('image', {
        ...box,
        href: `data:image/png;base64,${picture}`,
        preserveAspectRatio: 'none',
        style: 'image-rendering:pixelated',
      }),
    ),
    ...axes(area, chart.x, xScale, chart.y, yScale),
    element('rect', { ...box, class: 'heat', mask: `url(#${mask})` }),
    ...scaleBar(chart, largest),
  )
}

/** A byte per cell, from the top row down. Small values stay visible: the root spreads them, and nothing is below a sixth. */
function opacities(chart: HeatMap, largest: number): Uint8Array {
  const bytes = new Uint8Array(chart.columns * chart.rows)
  for (let row = 0; row < chart.rows; row++)
    for (let column = 0; column < chart.columns; column++) {
      const value = chart.cells[(chart.rows - 1 - row) * chart.columns + column]!
      if (value > 0) bytes[row * chart.columns + column] = Math.round(255 * opacity(value, largest))
    }
  return bytes
}

const opacity = (value: number, largest: number) =>
  opacityMin + (1 - opacityMin) * Math.sqrt(largest > 0 ? value / largest : 0)

/** What the shades mean. */
function scaleBar(chart: HeatMap, largest: number): Markup[] {
  const steps = 5
  const swatch = 26
  const from = width - 28 - steps * swatch
  const smallest = largest / steps ** 2
  return [
    text(from - 8, 15, 'tick end', `${chart.value.label}: ${formatValue(smallest, chart.value.unit)}`),
    ...Array.from({ length: steps }, (_, i) =>
      element('rect', {
        x: from + i * swatch,
        y: 5,
        width: swatch,
        height: 12,
        class: 'heat',
        opacity: opacity((largest * (i + 1) ** 2) / steps ** 2, largest),
      }),
    ),
    text(width - 24, 15, 'tick', formatValue(largest, chart.value.unit)),
  ]
}
