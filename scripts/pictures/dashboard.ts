/**
 * The dashboard: two hosts with guests, one of which is dense, and a failover in the middle; in light and dark, on a desk and on a telephone.
 */
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { Hosts, idle, protect, startVictim, until } from '../../test/support/hosts.ts'
import { subpage } from '../../test/support/subpage.ts'
import { desk, take, telephone } from './picture.ts'
import { takeTerminal } from './terminal.ts'

const name = 'web'

async function open(browser: Browser, agent: EphemeralAgent, options: BrowserContextOptions): Promise<Page> {
  const page = await (await browser.newContext({ reducedMotion: 'reduce', ...options })).newPage()
  const { out } = await subpage(['dashboard', '--print', '--state', agent.stateDirectory])
  await page.goto(out.trim())
  return page
}

const pointsMsMax = 180_000
const drawnMsMax = 60_000

/** A point a second: enough checkpoints for lines that can be seen. */
async function pointsSince(page: Page, points = 45): Promise<void> {
  const stream = () => page.locator('.plot dd').first().textContent()
  const deadline = performance.now() + pointsMsMax
  for (let changes = 0, last = await stream(); changes < points; ) {
    if (performance.now() > deadline) throw new Error(`the page has seen ${changes} points and no more`)
    await page.waitForTimeout(100)
    const now = await stream()
    if (now !== last) changes++
    last = now
  }
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
  await page.evaluate('document.querySelector(".memory").scrollIntoView(); scrollBy(0, -60)')
  // The page lets no script in, so that the look goes by the debugger.
  const drawn = () =>
    page.evaluate<boolean>(`(() => {
      const canvas = document.querySelector('.wss canvas')
      return canvas?.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0)
    })()`)
  const deadline = performance.now() + drawnMsMax
  while (!(await drawn())) {
    if (performance.now() > deadline) throw new Error(`${of}: the plot of the working set is not drawn`)
    await page.waitForTimeout(100)
  }
  await take(page, of)
  await page.context().close()
}

export async function takeDashboard(browser: Browser): Promise<void> {
  await using hosts = new Hosts()
  const [alpha, beta] = await Promise.all(['alpha', 'beta'].map((host) => hosts.add(host)))
  await startVictim(alpha!, name)
  for (const other of ['build-runner', 'mail', 'wiki']) await alpha!.client.run({ name: other, ...idle })
  // Whatever else this machine does: a pair that loses itself is another picture.
  for (const one of [name, 'mail', 'wiki']) await protect(alpha!, one, beta!, { suspicionMs: 5_000 })
  await alpha!.client.densityOn(name, { recentMs: 1_000, coldMs: 4_000, budget: 0.2 })

  const light = await open(browser, alpha!, { colorScheme: 'light', ...desk })
  const watcher = await open(browser, beta!, { colorScheme: 'dark', ...desk })
  await light.locator('nav a', { hasText: name }).first().click()
  await watcher.locator('nav a', { hasText: name }).first().click()
  await pointsSince(light)
  await take(light, 'dashboard')
  await light.setViewportSize(telephone.viewport)
  await light.keyboard.press('Escape')
  await light.getByRole('link', { name: /mail/ }).waitFor()
  await take(light, 'dashboard-telephone')
  await light.context().close()
  await memoryPicture(browser, alpha!, 'memory-map', { colorScheme: 'light', ...desk })
  await memoryPicture(browser, alpha!, 'memory-map-telephone', { colorScheme: 'dark', ...telephone })

  await until(alpha!, name, ({ state }) => state === 'Protected')
  // It exits with another status when a guest has no standby.
  await takeTerminal(browser, `subpage status --state ${alpha!.stateDirectory}`, 'status')

  const { pid } = await alpha!.client.guest(name)
  process.kill(pid!, 'SIGKILL')
  await until(beta!, name, ({ role, state }) => role === 'Primary' && state === 'Protected')
  await pointsSince(watcher)
  await take(watcher, 'failover')
}
