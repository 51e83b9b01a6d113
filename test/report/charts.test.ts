/** The chart makers: what is drawn lies where it should, names cannot break out, and figures come through unchanged. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inflateSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { bins, cumulative, median, percentile, thinned } from '../../lab/src/report/statistics.ts'
import { type Chart, chartRows, type LineChart } from '../../src/report/chart.ts'
import { csv } from '../../src/report/csv.ts'
import { htmlPage } from '../../src/report/page.ts'
import { alphaPng } from '../../src/report/png.ts'
import { formatValue, scaleOf } from '../../src/report/scale.ts'
import { drawChart } from '../../src/report/svg.ts'
import { writeReport } from '../../src/report/write.ts'
import { gallery } from './gallery.ts'

const line = (points: [number, number][], more: Partial<LineChart> = {}): LineChart => ({
  kind: 'line',
  name: 'x',
  title: 'X',
  meaning: '',
  style: 'line',
  x: { label: 'time', unit: 'seconds' },
  y: { label: 'pages', unit: 'count' },
  series: [{ name: 'pages', points }],
  ...more,
})

describe('scales', () => {
  const labels = (...args: Parameters<typeof scaleOf>) => scaleOf(...args).ticks.map(({ label }) => label)

  test('ticks are round, share a unit, and end above the data', () => {
    expect(labels({ label: '', unit: 'count' }, [3, 97], 5)).toEqual(['0', '20', '40', '60', '80', '100'])
    expect(labels({ label: '', unit: 'seconds' }, [0.0004, 0.0021], 3)).toEqual([
      '0 ms',
      '1 ms',
      '2 ms',
      '3 ms',
    ])
    expect(labels({ label: '', unit: 'share', to: 1 }, [0.2], 4)).toEqual(['0 %', '50 %', '100 %'])
    expect(labels({ label: '', unit: 'bytes' }, [3e6], 4)).toEqual(['0', '1 MiB', '2 MiB', '3 MiB'])
    expect(labels({ label: '', unit: 'count', scale: 'log' }, [1, 4000], 8)).toEqual([
      '1',
      '10',
      '100',
      '1000',
      '10 k',
    ])
  })

  test('places are between 0 and 1 at the ends; nothing, one value and zero have a scale too', () => {
    const scale = scaleOf({ label: '', unit: 'count' }, [0, 80], 4)
    expect([scale.place(0), scale.place(40), scale.place(80)]).toEqual([0, 0.5, 1])
    for (const values of [[], [0], [5], [Number.NaN, Number.POSITIVE_INFINITY]])
      for (const kind of ['linear', 'log'] as const) {
        const { from, to, ticks } = scaleOf({ label: '', unit: 'count', scale: kind }, values, 5)
        expect(to).toBeGreaterThan(from)
        expect(ticks.length).toBeGreaterThan(0)
      }
  })

  test('values are written with their unit', () => {
    expect(formatValue(0.0123, 'seconds')).toBe('12.3 ms')
    expect(formatValue(1536, 'bytes')).toBe('1.5 KiB')
    expect(formatValue(0.3456, 'share')).toBe('34.6 %')
    expect(formatValue(11.44, 'ratio')).toBe('11.4×')
    expect(formatValue(1_234_567, 'count')).toBe('1.2 M')
    expect(formatValue(Number.NaN, 'count')).toBe('–')
  })
})

describe('statistics', () => {
  test('percentiles are values that occurred', () => {
    const sorted = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    expect([0, 0.05, 0.5, 0.95, 1].map((share) => percentile(sorted, share))).toEqual([1, 1, 5, 10, 10])
    expect(median([4, 1, 3, 2])).toBe(2.5)
    expect(() => percentile([], 0.5)).toThrow(TypeError)
  })

  test('bins hold every value once, on both scales', () => {
    const values = [1, 1, 2, 4, 8, 64]
    for (const scale of ['linear', 'log'] as const) {
      const found = bins(values, 6, scale)
      expect(found).toHaveLength(6)
      expect(found.reduce((total, { count }) => total + count, 0)).toBe(values.length)
      expect([found[0]!.from, found.at(-1)!.to]).toEqual([1, 64])
    }
    expect(bins(values, 6, 'log').map(({ count }) => count)).toEqual([2, 1, 1, 1, 0, 1])
    expect(bins([7, 7], 9)).toEqual([{ from: 7, to: 7, count: 2 }])
    expect(() => bins([0, 1], 2, 'log')).toThrow(TypeError)
  })

  test('a cumulative series rises to 1; thinning keeps peaks', () => {
    const { points } = cumulative('x', [5, 1, 1, 3], 400)
    expect(points).toEqual([
      [1, 0.5],
      [3, 0.75],
      [5, 1],
    ])
    const many = Array.from({ length: 5000 }, (_, i) => [i, i === 3333 ? 99 : 1] as const)
    const fewer = thinned(many, 100)
    expect(fewer).toHaveLength(100)
    expect(fewer.some(([x, y]) => x === 3333 && y === 99)).toBe(true)
  })
})

describe('drawings', () => {
  test('of bars beside each other on a logarithmic axis a smaller one is shorter, however small the largest of others is', () => {
    const drawn = drawChart({
      ...{ kind: 'bars', name: 'x', title: 'X', meaning: '', layout: 'grouped', series: ['a', 'b', 'c'] },
      value: { label: 'bytes', unit: 'bytes', scale: 'log' },
      rows: [
        { name: 'large', values: [5_000_000, 70_000, 3_000] },
        { name: 'small', values: [900, 300, 40] },
      ],
    })
    const widths = [...String(drawn).matchAll(/<rect[^>]* width="([\d.]+)"[^>]*class="fill/g)]
      .map(([, w]) => Number(w))
      .slice(-6)
    expect(widths).toEqual(widths.toSorted((x, y) => y - x))
    expect(new Set(widths).size).toBe(6)
  })

  const charts = gallery.sections.flatMap(({ charts = [] }) => charts)

  test.each(charts.map((chart): [string, Chart] => [chart.name, chart]))(
    '%s: every coordinate is a number inside the drawing',
    (_, chart) => {
      const drawn = drawChart(chart)
      expect(drawn).not.toMatch(/NaN|Infinity|undefined/)
      const height = Number(/viewBox="0 0 760 ([\d.]+)"/.exec(drawn)![1])
      for (const [, axis, value] of drawn.matchAll(/ (x|y|x1|x2|y1|y2|cx|cy)="(-?[\d.]+)"/g)) {
        expect(Number(value)).toBeGreaterThanOrEqual(0)
        expect(Number(value)).toBeLessThanOrEqual(axis!.includes('x') ? 760 : height)
      }
    },
  )

  test('a line goes through its points: higher is nearer to the top, later further right', () => {
    const path = /class="line s1"/.exec(drawChart(line([]))) // nothing to draw
    expect(path).toBeNull()
    const drawn = drawChart(
      line([
        [0, 0],
        [1, 100],
      ]),
    )
    const [, x0, y0, x1, y1] = /d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"/.exec(drawn)!.map(Number)
    expect([y0, y1]).toEqual([260, 30])
    expect(x1! - x0!).toBeGreaterThan(600)
  })

  test('a gap breaks a line; a value alone is a dot', () => {
    const drawn = drawChart(
      line([
        [0, 1],
        [1, 2],
        [2, Number.NaN],
        [3, 4],
      ]),
    )
    expect(drawn.match(/class="line s1"/g)).toHaveLength(1)
    expect(drawn.match(/<circle/g)).toHaveLength(1)
  })

  test('the heat map is a picture of as many pixels as cells, dark where there is most, clear where nothing is', () => {
    const picture = alphaPng(3, 2, Uint8Array.of(0, 10, 255, 1, 2, 3))
    expect(picture.readUInt32BE(16)).toBe(3)
    expect(picture.readUInt32BE(20)).toBe(2)
    const at = picture.indexOf('IDAT')
    const raw = inflateSync(picture.subarray(at + 4, at + 4 + picture.readUInt32BE(at - 4)))
    expect([...raw]).toEqual([0, 255, 0, 255, 10, 255, 255, 0, 255, 1, 255, 2, 255, 3])
  })
})

describe('pages', () => {
  const hostile = '<script>alert(1)</script>"\'&\u202e'

  test('names from recordings are text, wherever they come', () => {
    const chart = {
      ...line([[0, 1]]),
      title: hostile,
      meaning: hostile,
      series: [{ name: hostile, points: [] }],
    }
    const page = htmlPage({
      title: hostile,
      lead: hostile,
      facts: [{ name: hostile, value: hostile, meaning: hostile }],
      sections: [
        {
          title: hostile,
          text: hostile,
          charts: [chart],
          tables: [{ name: 't', title: hostile, heading: [hostile], rows: [[hostile]] }],
        },
      ],
      source: hostile,
    })
    expect(page).not.toMatch(/<script|\u202e/)
    expect(page).toContain('&lt;script&gt;')
  })

  test('nothing outside the page is named, and nothing runs', () => {
    const page = htmlPage(gallery)
    expect(page).not.toMatch(/https?:|<script|<link|@import| on\w+=/)
    expect(page.match(/<figure/g)).toHaveLength(7)
    // Well-formed below the head: another program than ours parses it.
    const body = page.slice(page.indexOf('<body>'), page.indexOf('</html>'))
    expect(() =>
      execFileSync(
        'python3',
        ['-c', 'import sys,xml.dom.minidom as m;m.parseString(sys.stdin.buffer.read())'],
        {
          input: body,
          stdio: ['pipe', 'ignore', 'pipe'],
        },
      ),
    ).not.toThrow()
  })
})

describe('CSV', () => {
  test('quotes what needs it, keeps numbers, and gives a spreadsheet no formula', () => {
    expect(
      csv([
        ['a,b', 'say "x"', 1.5],
        ['=1+1', '-3', Number.NaN],
      ]),
    ).toBe('"a,b","say ""x""",1.5\r\n\'=1+1,-3,\r\n')
  })

  test('a file for each chart and table, with its figures', () => {
    const folder = mkdtempSync(join(tmpdir(), 'subpage-csv-'))
    try {
      writeReport(gallery, { csv: join(folder, 'new'), replace: false })
      expect(readdirSync(join(folder, 'new'))).toHaveLength(8)
      const rows = readFileSync(join(folder, 'new/by-codec.csv'), 'utf8').split('\r\n')
      expect(rows[1]).toBe('page,9000000,1000000,200000')
      expect(rows[3]).toContain('zpaq (missing: apt-get install zpaq)')
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  test('the rows of a heat map are its cells that hold something', () => {
    const heat = gallery.sections[0]!.charts!.find(({ kind }) => kind === 'heat')!
    const [heading, first] = chartRows(heat)
    expect(heading).toEqual(['time [s]', 'guest memory [B]', 'changed lines'])
    expect(first).toEqual([0, 0, 100])
  })
})
