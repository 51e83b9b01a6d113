/** What the style sheet promises to narrow screens and to paper, where plots and navigation do not fit as they are. */
import { expect, test } from 'vitest'
import { styleSheet } from '../../src/report/style.ts'

const rule = (selector: string) =>
  styleSheet.split('\n').find((line) => line.startsWith(`${selector}{`)) ?? ''

test('the navigation wraps', () => {
  expect(rule('nav')).toContain('flex-wrap:wrap')
})

test('a plot scrolls rather than shrink until its text cannot be read', () => {
  const [, fontPx, minPx] = [
    0,
    /font:(\d+)px/.exec(rule('svg'))?.[1],
    /min-width:(\d+)px/.exec(rule('svg'))?.[1],
  ]
  expect(rule('figure')).toContain('overflow-x:auto')
  // Drawn for 840 units: what is written in it stays at 9 px or more.
  expect((Number(fontPx) * Number(minPx)) / 840).toBeGreaterThan(9)
})

test('on paper a heading stays with its plot, and nothing is cut off', () => {
  const print = rule('@media print')
  for (const part of ['break-after:avoid', 'break-inside:avoid', 'overflow:visible', 'min-width:0'])
    expect(print).toContain(part)
})

/** CIE L*a*b* of an sRGB colour, in which distances are about those that people see. */
function seen(colour: string): [number, number, number] {
  const linear = (at: number) => {
    const part = Number.parseInt(colour.slice(at, at + 2), 16) / 255
    return part > 0.04045 ? ((part + 0.055) / 1.055) ** 2.4 : part / 12.92
  }
  const [r, g, b] = [linear(1), linear(3), linear(5)]
  const root = (t: number) => (t > 0.008856 ? Math.cbrt(t) : 7.787 * t + 16 / 116)
  const x = root((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.95047)
  const y = root(0.2126 * r + 0.7152 * g + 0.0722 * b)
  const z = root((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.08883)
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)]
}

test('the colours of the first four lines of a plot are four, in light and in dark', () => {
  const colours = [...styleSheet.matchAll(/--s([1-4]):(#[\da-f]{6})/g)].map(([, , colour]) => colour!)
  const themes = [colours.slice(0, 4), colours.slice(4, 8)]
  for (const theme of themes) {
    expect(new Set(theme).size).toBe(4)
    for (const [i, one] of theme.entries())
      for (const other of theme.slice(i + 1)) {
        const [a, b] = [seen(one), seen(other)]
        const apart = Math.hypot(...a.map((part, axis) => part - b[axis]!))
        expect(apart, `${one} and ${other}`).toBeGreaterThan(45)
      }
  }
})
