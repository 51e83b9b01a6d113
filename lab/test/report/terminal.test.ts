/** Reports on a terminal: exact text for given widths; colour only where it is wanted. */

import { cellsOf } from 'subpage/text-layout'
import { describe, expect, test } from 'vitest'
import {
  percentileBars,
  plainTerminal,
  sparkline,
  terminalOf,
  textBar,
  textTable,
} from '../../src/report/terminal.ts'

test('a table whose rows have not as many cells as the heading is refused', () => {
  const table = { heading: ['what', 'how much'], rows: [['one', '1'], ['two']] }
  expect(() => textTable(table, plainTerminal)).toThrow('1 cells under 2 headings: two')
})

describe('the terminal', () => {
  test('has colour only when it is one and nobody said NO_COLOR', () => {
    const tty = { isTTY: true, columns: 120 }
    expect(terminalOf(tty, {})).toEqual({ columns: 120, color: true })
    expect(terminalOf(tty, { NO_COLOR: '1' }).color).toBe(false)
    expect(terminalOf(tty, { NO_COLOR: '' }).color).toBe(true)
    expect(terminalOf(tty, { TERM: 'dumb' }).color).toBe(false)
    expect(terminalOf({}, {})).toEqual({ columns: 80, color: false })
    expect(terminalOf({}, { COLUMNS: '5' }).columns).toBe(40)
  })
})

test('tables align numbers right and count wide signs twice', () => {
  expect(
    textTable(
      {
        heading: ['name', 'n'],
        rows: [
          ['漢字', '1'],
          ['a', '1234'],
        ],
        numbers: [1],
      },
      plainTerminal,
    ),
  ).toBe('name     n\n漢字     1\na     1234')
  expect(cellsOf('漢e\u0301')).toBe(3)
})

test('percentiles with bars', () => {
  const values = Array.from({ length: 100 }, (_, i) => i + 1)
  expect(
    percentileBars(values, (value) => `${value} p`, { columns: 40, color: false }, [0, 0.25, 0.5, 1]),
  ).toBe(
    [
      '    0 %       1 p |▎                  |',
      '   25 %      25 p |████▊              |',
      '   50 %      50 p |█████████▌         |',
      '  100 %     100 p |███████████████████|',
    ].join('\n'),
  )
  expect(percentileBars([], String, plainTerminal)).toBe('  (nothing)')
  expect(percentileBars([0, 0], String, plainTerminal)).not.toContain('█')
  expect(percentileBars([1], String, { columns: 80, color: true })).toContain('\x1b[34m')
})

test('every line fits the width that was given', () => {
  for (const columns of [40, 80, 200])
    for (const row of percentileBars([1, 1e12], (v) => `${v} bytes`, { columns, color: false }).split('\n'))
      expect(cellsOf(row)).toBeLessThanOrEqual(columns)
})

test('bars to an eighth, sparklines keep peaks', () => {
  expect([0, 0.5, 0.53, 1, 7].map((share) => textBar(share, 4))).toEqual(['', '██', '██▏', '████', '████'])
  expect(sparkline([0, 1, 2, 4], 10)).toBe('▁▃▅█')
  expect(sparkline([1, 9, 1, 1, Number.NaN, Number.NaN], 3)).toBe('█▁ ')
  expect(sparkline([0, 0], 2)).toBe('▁▁')
})
