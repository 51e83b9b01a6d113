/**
 * `npm run pictures [-- NAME...]`: the pictures of the documents, in docs/pictures. All is real: agents, guests, terminals, Debian's Chromium. It
 * takes some minutes, as root; look at what it makes.
 */
import { argv } from 'node:process'
import { type Browser, chromium } from 'playwright-core'
import { takeConsole } from './console.ts'
import { takeDashboard } from './dashboard.ts'
import { takeReport } from './report.ts'

const sets: Record<string, (browser: Browser) => Promise<void>> = {
  dashboard: takeDashboard,
  report: takeReport,
  console: takeConsole,
}

const names = argv.length > 2 ? argv.slice(2) : Object.keys(sets)
const unknown = names.find((name) => !Object.hasOwn(sets, name))
if (unknown !== undefined) {
  console.error(`there are no pictures ${unknown}: choose of ${Object.keys(sets).join(', ')}`)
  process.exit(2)
}
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--no-first-run'],
})
try {
  for (const name of names) await sets[name]!(browser)
} finally {
  await browser.close()
}
