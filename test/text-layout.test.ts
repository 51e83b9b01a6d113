/** Text within a width: no word is broken, nothing is lost, and columns stay columns. */
import { describe, expect, test } from 'vitest'
import { cellsOf, columnsOf, fill, layTable, wrapText } from '../src/text-layout.ts'
import { formatBytes } from '../src/units.ts'

const words = (text: string) => text.split(/\s+/).filter((word) => word !== '' && word !== '\\')

describe('text', () => {
  const long = 'host a protects it to b: first all its memory, then what changes, checkpoint by checkpoint'

  test.each([40, 41, 57, 80])('of %i columns breaks between words', (columns) => {
    const text = `• ${long}\nshort\n    ${long}`
    const lines = wrapText(text, columns).split('\n')
    for (const line of lines) expect(cellsOf(line)).toBeLessThanOrEqual(columns)
    expect(words(lines.join(' '))).toEqual(words(text))
    expect(lines.filter((line) => line !== 'short' && !/^( {2}|•)/.test(line))).toEqual([])
  })

  test('that fits stays, with its spaces', () => {
    expect(wrapText('a   b\n\n  c', 40)).toBe('a   b\n\n  c')
    expect(wrapText(long, Number.POSITIVE_INFINITY)).toBe(long)
  })

  test('a command goes on as a shell takes it', () => {
    const command = '  subpage run web --ram 1G --net bridge=br0 -- -smp 2 -kernel /images/vmlinuz'
    const lines = wrapText(command, 40).split('\n')
    expect(lines.slice(0, -1).every((line) => line.endsWith(' \\'))).toBe(true)
    expect(words(lines.join(' '))).toEqual(words(command))
  })

  test('a word that is too long stays whole; colours take no place', () => {
    expect(fill(`see ${'/x'.repeat(40)} there`, 40)).toEqual(['see', '/x'.repeat(40), 'there'])
    expect(cellsOf('\x1b[31mred\x1b[0m')).toBe(3)
  })

  test('a pipe has no width unless COLUMNS says so', () => {
    expect(columnsOf({}, {})).toBe(Number.POSITIVE_INFINITY)
    expect(columnsOf({}, { COLUMNS: '72' })).toBe(72)
    expect(columnsOf({ isTTY: true, columns: 100 }, {})).toBe(100)
    expect(columnsOf({ isTTY: true, columns: 10 }, {})).toBe(40)
  })
})

describe('tables', () => {
  const rows = [
    ['name', 'how much of it there is', 'reason'],
    ['web', '106 KiB', 'the standby is lost, and the arbiter does not answer'],
    ['mail', '2 GiB', ''],
  ]
  const within = (columns: number, table = rows) => {
    const { head, body } = layTable(table, columns)
    const lines = [...head, ...body]
    for (const line of lines) expect(cellsOf(line)).toBeLessThanOrEqual(columns)
    expect(words(lines.join(' ')).sort()).toEqual(
      expect.arrayContaining(words(table.slice(1).flat().join(' '))),
    )
    return lines
  }

  test('are as they are where there is room', () => {
    expect(layTable(rows, 200).body[1]).toBe('mail  2 GiB')
  })

  test('break headings and texts, not values', () => {
    const lines = within(40)
    expect(lines.some((line) => line.includes('106 KiB'))).toBe(true)
    expect(lines.length).toBeGreaterThan(3)
  })

  test('become blocks where there are too many columns', () => {
    const many = [
      Array.from({ length: 12 }, (_, i) => `heading${i}`),
      Array.from({ length: 12 }, (_, i) => `${i}00 MiB`),
    ]
    expect(within(60, many)).toContain('heading11  1100 MiB')
  })
})

test('sizes have two digits or three, whatever they come from', () => {
  for (const bytes of [0, 1, 166.333_333_333, 1023.4, 1023.6, 1024, 1500.5, 2 ** 20 - 1, 5e12])
    expect(formatBytes(bytes)).toMatch(/^\d{1,4}(\.\d)? (B|[KMGT]iB)$/)
  expect(formatBytes(166.333_333_333_333_34)).toBe('166 B')
})
