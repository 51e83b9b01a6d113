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
