/**
 * Pictures of the dashboard for the documents, in docs/pictures: two hosts with guests, one of which is dense, and a failover in the middle;
 * in light and dark, on a desk and on a telephone. All is real: agents, guests, Debian's Chromium. `npm run pictures` needs
 * scripts/build-guest.sh and takes two minutes; look at what it makes.
 */
import { mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import type { EphemeralAgent } from '../src/agent/ephemeral-agent.ts'
import { packageRoot } from '../src/package-root.ts'
import { Hosts, idle, protect, startVictim, until } from '../test/support/hosts.ts'
import { subpage } from '../test/support/subpage.ts'

const pictures = join(packageRoot, 'docs/pictures')
const bytesMax = 150 * 1024
const desk = { viewport: { width: 1280, height: 800 } }
const telephone = { viewport: { width: 390, height: 844 } }
const name = 'web'

async function open(browser: Browser, agent: EphemeralAgent, options: BrowserContextOptions): Promise<Page> {
  const page = await (await browser.newContext({ reducedMotion: 'reduce', ...options })).newPage()
  const { out } = await subpage(['dashboard', '--print', '--state', agent.stateDirectory])
  await page.goto(out.trim())
  return page
}

async function take(page: Page, of: string, fullPage = false): Promise<void> {
  const path = join(pictures, `${of}.png`)
  await page.screenshot({ path, fullPage })
  const bytes = statSync(path).size
  if (bytes > bytesMax) throw new Error(`${path} has ${bytes} bytes: more than a document should carry`)
  console.log(`${path}: ${(bytes / 1024).toFixed(0)} KiB`)
}

/** The page has so many points of its plots that there are lines to be seen. */
async function watched(page: Page, ms: number): Promise<void> {
  await page.waitForTimeout(ms)
}

const memory = (page: Page) => page.getByRole('region', { name: 'Memory map' })

async function memoryPicture(
  browser: Browser,
  agent: EphemeralAgent,
  of: string,
  options: BrowserContextOptions,
) {
  const page = await open(browser, agent, options)
  // On a telephone the page begins with all guests.
  await page.locator('nav a', { hasText: name }).first().click()
  const section = memory(page)
  await section.scrollIntoViewIfNeeded()
  await section.locator('.legend li', { has: page.getByText('compressed', { exact: true }) }).waitFor()
  await section.evaluate('(section) => section.scrollIntoView({ block: "start" })')
  await page.mouse.wheel(0, -70)
  await take(page, of)
  await page.context().close()
}

async function main(): Promise<void> {
  mkdirSync(pictures, { recursive: true })
  await using hosts = new Hosts()
  const [alpha, beta] = await Promise.all(['alpha', 'beta'].map((host) => hosts.add(host)))
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--no-first-run'],
  })
  try {
    await startVictim(alpha!, name)
    for (const other of ['build-runner', 'mail', 'wiki']) await alpha!.client.run({ name: other, ...idle })
    await protect(alpha!, name, beta!)
    await protect(alpha!, 'mail', beta!)
    await protect(alpha!, 'wiki', beta!)
    await alpha!.client.densityOn(name, { recentMs: 1_000, coldMs: 4_000, budget: 0.2 })

    const light = await open(browser, alpha!, { colorScheme: 'light', ...desk })
    const watcher = await open(browser, beta!, { colorScheme: 'dark', ...desk })
    await light.locator('nav a', { hasText: name }).first().click()
    await watcher.locator('nav a', { hasText: name }).first().click()
    await watched(light, 60_000)
    await take(light, 'dashboard')
    await light.setViewportSize(telephone.viewport)
    await light.keyboard.press('Escape')
    await light.getByRole('link', { name: /mail/ }).waitFor()
    await take(light, 'dashboard-telephone')
    await light.context().close()
    await memoryPicture(browser, alpha!, 'memory-map', { colorScheme: 'light', ...desk })
    await memoryPicture(browser, alpha!, 'memory-map-telephone', { colorScheme: 'dark', ...telephone })

    const { pid } = await alpha!.client.guest(name)
    process.kill(pid!, 'SIGKILL')
    await until(beta!, name, ({ role, state }) => role === 'Primary' && state === 'Protected')
    await watched(watcher, 30_000)
    await take(watcher, 'failover')
  } finally {
    await browser.close()
  }
}

await main()
