/** Sizes and times, as people write and read them. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { formatBytes, formatUs, parseMs, parseSize } from '../../src/cli/sizes.ts'

const refused = expect.objectContaining({ code: 'BAD_ARGUMENT' })

test.each([
  ['512', 512 * 2 ** 20],
  ['512M', 512 * 2 ** 20],
  ['512m', 512 * 2 ** 20],
  ['512MiB', 512 * 2 ** 20],
  ['512 MB', 512 * 2 ** 20],
  [' 2G ', 2 * 2 ** 30],
  ['1.5G', 1.5 * 2 ** 30],
  ['4K', 4096],
  ['1T', 2 ** 40],
])('the size "%s" is %i', (text, bytes) => {
  expect(parseSize(text)).toBe(bytes)
})

test.each([
  '',
  '0',
  '-1',
  '-1M',
  '1e3',
  '1,5G',
  'M',
  '1P',
  '1 G B',
  '0x10',
  'NaN',
  'Infinity',
  '1.0000001K',
  '1G 1M',
])('"%s" is no size', (text) => {
  expect(() => parseSize(text)).toThrow(refused)
})

test.each([
  ['25', 25],
  ['25ms', 25],
  ['25 ms', 25],
  ['1s', 1000],
  ['1.5s', 1500],
  ['0.5ms', 0.5],
  ['5min', 300_000],
  ['1h', 3_600_000],
])('the time "%s" is %f ms', (text, ms) => {
  expect(parseMs(text)).toBe(ms)
})

test.each(['', '0', '0s', '-1ms', '1m', '1d', '1us', '1constructor', 'ms', '1,5s', '1e3', 'Infinity'])(
  '"%s" is no time',
  (text) => {
    expect(() => parseMs(text)).toThrow(refused)
  },
)

test('any text is a size and a time, or refused', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      for (const parse of [parseSize, parseMs])
        try {
          expect(parse(text)).toBeGreaterThan(0)
        } catch (error) {
          expect(error).toEqual(refused)
        }
    }),
  )
})

test.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1024, '1.0 KiB'],
  [10 * 1024, '10 KiB'],
  [1024 * 1024 - 1, '1.0 MiB'],
  [160 * 2 ** 20, '160 MiB'],
  [1.5 * 2 ** 30, '1.5 GiB'],
  [2 ** 50, '1024 TiB'],
])('%i bytes are written %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text)
})

test.each([
  [0, '0 µs'],
  [999, '999 µs'],
  [999.9, '1.0 ms'],
  [1500, '1.5 ms'],
  [25_000, '25 ms'],
  [999_999, '1.0 s'],
  [1_500_000, '1.5 s'],
])('%f µs are written %s', (us, text) => {
  expect(formatUs(us)).toBe(text)
})

test('no number is written with more digits than its unit has', () => {
  fc.assert(
    fc.property(fc.nat(2 ** 53 - 1), (n) => {
      const [value = '', unit] = formatBytes(n).split(' ')
      if (unit !== 'TiB') expect(Number(value)).toBeLessThan(1024)
      expect(formatUs(n)).toMatch(/^(\d{1,3} µs|\d\.\d ms|\d{1,3} ms|\d+\.\d s)$/)
    }),
  )
})
