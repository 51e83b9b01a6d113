/**
 * Pictures of the dashboard for the documents, in docs/pictures: two hosts with guests, one of which is dense, and a failover in the middle;
 * in light and dark, on a desk and on a telephone. All is real: agents, guests, Debian's Chromium. `npm run pictures` needs
 * scripts/build-guest.sh and takes two minutes; look at what it makes.
 */
import { execFile } from 'node:child_process'
import { mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import type { EphemeralAgent } from '../src/agent/ephemeral-agent.ts'
import { packageRoot } from '../src/package-root.ts'
import { Hosts, idle, protect, startVictim, until } from '../test/support/hosts.ts'
import { mainFile, subpage } from '../test/support/subpage.ts'

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
  // Nothing is pointed at.
  await page.mouse.move(0, 0)
  await page.screenshot({ path, fullPage })
  const bytes = statSync(path).size
  if (bytes > bytesMax) throw new Error(`${path} has ${bytes} bytes: more than a document should carry`)
  console.log(`${path}: ${(bytes / 1024).toFixed(0)} KiB`)
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

const escaped = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

const colour = new RegExp(`${String.fromCharCode(27)}\\[([\\d;]*)m`)

/** What a terminal was told, as HTML: text, bold, and the colours that the command line uses. */
function htmlOf(told: string): string {
  const styles: Record<string, string> = {
    1: 'font-weight:700',
    2: 'opacity:.6',
    31: 'color:#ff6b64',
    32: 'color:#4cc38a',
    33: 'color:#e5a13b',
    36: 'color:#5cc8bb',
  }
  const on = new Set<string>()
  return told
    .replaceAll('\r', '')
    .split(colour)
    .map((part, index) => {
      if (index % 2 === 0) return `<span style="${[...on].join(';')}">${escaped(part)}</span>`
      for (const code of part.split(';')) {
        const style = styles[code]
        if (style === undefined) on.clear()
        else on.add(style)
      }
      return ''
    })
    .join('')
}

/** A command in a real terminal (util-linux's script), and what it has drawn there. */
async function takeTerminal(browser: Browser, command: string, of: string): Promise<void> {
  const program = `subpage() { "${process.execPath}" "${mainFile}" "$@"; }; stty cols 116; ${command} || true`
  const { stdout } = await promisify(execFile)('script', ['-qec', program, '/dev/null'], {
    env: { ...process.env, TERM: 'xterm-256color' },
  })
  const page = await (await browser.newContext({ viewport: { width: 1000, height: 100 } })).newPage()
  const text = `<span style="opacity:.6">$ ${escaped(command)}</span>\n${htmlOf(stdout)}`
  await page.setContent(
    `<body style="margin:0;background:#101217;color:#e6e8ee"><pre style="margin:0;padding:16px 20px;font:13.5px/1.5 'DejaVu Sans Mono',monospace">${text}</pre></body>`,
  )
  await take(page, of, true)
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
  } finally {
    await browser.close()
  }
}

await main()
