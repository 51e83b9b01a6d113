/** What all charts share: the area with its axes, grid, marks and legend. Lengths are in units of the drawing, 760 wide. */
import type { Axis, Mark } from './chart.ts'
import { element, escaped, type Markup } from './markup.ts'
import type { Scale } from './scale.ts'

export const width = 760

export interface Area {
  left: number
  top: number
  width: number
  height: number
}

/** Series have a fixed order of eight colours (style.ts); more are told apart by their names alone. */
export const seriesClass = (index: number) => `s${(index % 8) + 1}`

export const text = (x: number, y: number, kind: string, content: string) =>
  element('text', { x, y, class: kind }, escaped(content))

/** What a pointer that rests on an element is told; browsers do it without a script. */
export const hint = (content: string) => element('title', {}, escaped(content))

export function svg(height: number, label: string, ...children: Markup[]): Markup {
  return element(
    'svg',
    { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': label, preserveAspectRatio: 'xMidYMid' },
    children,
  )
}

/** Grid, ticks and names of both axes. */
export function axes(area: Area, x: Axis, xScale: Scale, y: Axis, yScale: Scale): Markup[] {
  const bottom = area.top + area.height
  return [
    ...yScale.ticks.flatMap(({ value, label }) => {
      const at = bottom - yScale.place(value) * area.height
      return [
        element('line', { x1: area.left, x2: area.left + area.width, y1: at, y2: at, class: 'grid' }),
        text(area.left - 8, at + 4, 'tick end', label),
      ]
    }),
    ...xTicks(area, xScale),
    text(area.left, area.top - 10, 'axis', y.label),
    text(area.left + area.width, bottom + 36, 'axis end', `${x.label} →`),
  ]
}

export function xTicks(area: Area, xScale: Scale): Markup[] {
  const bottom = area.top + area.height
  return [
    element('line', { x1: area.left, x2: area.left + area.width, y1: bottom, y2: bottom, class: 'base' }),
    ...xScale.ticks.flatMap(({ value, label }) => {
      const at = area.left + xScale.place(value) * area.width
      return [
        element('line', { x1: at, x2: at, y1: bottom, y2: bottom + 4, class: 'base' }),
        text(at, bottom + 18, 'tick middle', label),
      ]
    }),
  ]
}

/** Lines to compare with, labelled where they end, or above the area. Those outside the axes are left out. */
export function marks(
  area: Area,
  given: readonly Mark[],
  xScale: Scale,
  yScale?: Scale,
  above = false,
): Markup[] {
  const right = area.left + area.width
  const bottom = area.top + area.height
  return given.flatMap(({ axis, at, label }) => {
    const scale = axis === 'x' ? xScale : yScale
    if (!scale || at < scale.from || at > scale.to) return []
    if (axis === 'y') {
      const y = bottom - scale.place(at) * area.height
      return [
        element('line', { x1: area.left, x2: right, y1: y, y2: y, class: 'mark' }),
        text(right - 4, y - 5, 'note end', label),
      ]
    }
    const x = area.left + scale.place(at) * area.width
    const late = scale.place(at) > 0.6
    return [
      element('line', { x1: x, x2: x, y1: area.top, y2: bottom, class: 'mark' }),
      above
        ? text(x, area.top - 4, 'note middle', label)
        : text(x + (late ? -5 : 5), area.top + 12, late ? 'note end' : 'note', label),
    ]
  })
}

const legendRowHeight = 18

/** Names with their colours, from `left`, in as many rows as they need; one name alone needs none: the title says it. */
export function legend(
  left: number,
  y: number,
  names: readonly string[],
): { drawn: Markup[]; height: number } {
  if (names.length < 2) return { drawn: [], height: 0 }
  let [x, row] = [left, 0]
  const drawn = names.flatMap((name, i) => {
    const nameWidth = 15 + textWidth(name)
    if (x > left && x + nameWidth > width) [x, row] = [left, row + 1]
    const at = { x, y: y + row * legendRowHeight }
    x += nameWidth + 18
    return [
      element('rect', {
        x: at.x,
        y: at.y - 9,
        width: 10,
        height: 10,
        rx: 2,
        class: `fill ${seriesClass(i)}`,
      }),
      text(at.x + 15, at.y, 'legend', name),
    ]
  })
  return { drawn, height: (row + 1) * legendRowHeight }
}

/** About as wide as 12-unit sans-serif text: fonts differ, so this leaves a little room. */
export const textWidth = (content: string) => [...content].length * 6.6
