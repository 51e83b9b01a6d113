/** The page that `report --html` makes of a recording. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser } from 'playwright-core'
import { subpage } from '../../test/support/subpage.ts'
import { desk, take } from './picture.ts'

/** Numbers that a program which every machine has puts in order. */
const numbers = 300_000
const height = 1150

export async function takeReport(browser: Browser): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'subpage-pictures-'))
  const [trace, html, file] = ['sort.trace', 'sort.html', 'numbers'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ]
  writeFileSync(file, Array.from({ length: numbers }, (_, n) => `${(n * 7_919) % numbers}\n`).join(''))
  try {
    for (const args of [
      ['record', '--epoch', '10ms', '-o', trace, '--', 'sort', '-n', '--parallel=1', file, '-o', '/dev/null'],
      ['report', trace, '--html', html],
    ]) {
      const { status, said } = await subpage(args)
      if (status !== 0) throw new Error(`subpage ${args[0]}: ${said}`)
    }
    const page = await (
      await browser.newContext({ colorScheme: 'light', viewport: { ...desk.viewport, height } })
    ).newPage()
    await page.goto(`file://${html}`)
    await take(page, 'report')
    await page.context().close()
  } finally {
    rmSync(folder, { recursive: true })
  }
}
