/**
 * Golden outputs of `subpage report` for test/analysis/small.trace, which is read as it was committed: a release that no
 * longer reads it, or says something else about it, fails here. After a wanted change: `npx vitest run golden -u`.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { csvFiles } from 'subpage/report/csv'
import { htmlPage } from 'subpage/report/page'
import { afterAll, describe, expect, test } from 'vitest'
import { summarize } from '../../src/analysis/summary.ts'
import { traceJson, traceReport } from '../../src/analysis/trace-report.ts'
import { traceText } from '../../src/analysis/trace-text.ts'
import { readTrace } from '../../src/trace.ts'
import { makeTrace, small } from './made-trace.ts'

const folder = mkdtempSync(join(tmpdir(), 'subpage-golden-'))
afterAll(() => rmSync(folder, { recursive: true }))

const committed = join(import.meta.dirname, 'small.trace')
// Only where it was taken away, to make it anew.
if (!existsSync(committed)) makeTrace({ ...small, path: committed, content: true, written: true })

/** Its path is of this machine. */
const shown = { ...summarize(readTrace(committed)), path: 'small.trace' }

test('the committed trace is what the program makes', () => {
  const path = join(folder, 'small.trace')
  makeTrace({ ...small, path, content: true, written: true })
  expect([...readTrace(path).epochs()]).toEqual([...readTrace(committed).epochs()])
})

describe('golden', () => {
  test('text, 80 columns', async () => {
    await expect(`${traceText(shown, { columns: 80, color: false })}\n`).toMatchFileSnapshot(
      'golden/small.txt',
    )
  })

  test('JSON', async () => {
    await expect(`${JSON.stringify(traceJson(shown), null, 2)}\n`).toMatchFileSnapshot(
      'golden/small.json.txt',
    )
  })

  test('another epoch length', async () => {
    const longer = { ...summarize(readTrace(committed), { epochUs: 50_000 }), path: 'small.trace' }
    await expect(`${traceText(longer, { columns: 60, color: false })}\n`).toMatchFileSnapshot(
      'golden/small-50ms.txt',
    )
  })

  test('CSV', async () => {
    const files = [...csvFiles(traceReport(shown))].map(([name, text]) => `== ${name}\n${text}`)
    await expect(files.join('\n').replaceAll('\r\n', '\n')).toMatchFileSnapshot('golden/small.csv.txt')
  })
})

test('the page explains each plot, and the names of areas cannot break out of it', () => {
  const page = htmlPage(traceReport(shown))
  expect(page.match(/<figure/g)!.length).toBeGreaterThanOrEqual(9)
  expect(page.match(/<figure[^>]*><h3>[^<]+<\/h3><p class="meaning">[^<]{40,}/g)).toHaveLength(
    page.match(/<figure/g)!.length,
  )
  expect(page).toContain('high &lt;b&gt;')
  expect(page).not.toMatch(/NaN|undefined|Infinity/)
})

test('a trace in which nothing was written says so', () => {
  const path = join(folder, 'idle.trace')
  makeTrace({ pages: 4, epochs: 3, path, content: true, written: true, program: () => undefined })
  const idle = summarize(readTrace(path))
  expect(traceText(idle, { columns: 80, color: false })).toContain('Nothing was written in 3 epochs')
  expect(htmlPage(traceReport(idle))).not.toMatch(/NaN|undefined|Infinity/)
  expect(JSON.parse(JSON.stringify(traceJson(idle))).amplification).toBeNull()
})

test('colour changes nothing but colour', () => {
  const painted = traceText(shown, { columns: 80, color: true })
  // biome-ignore lint/suspicious/noControlCharactersInRegex: it is what colours are made of
  expect(painted.replace(/\x1b\[\d+m/g, '')).toBe(traceText(shown, { columns: 80, color: false }))
})
