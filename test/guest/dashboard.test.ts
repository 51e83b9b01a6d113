/**
 * The dashboard in a real browser, of real agents with a real guest: a failover is watched in it. Chromium is Debian's. Pictures of
 * what it shows are left in build/pictures, for eyes.
 */
import { mkdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { packageRoot } from '../../src/package-root.ts'
import { Hosts, idle, startVictim } from '../support/hosts.ts'
import { subpage } from '../support/subpage.ts'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const pictures = join(packageRoot, 'build/pictures')
const name = 'web'
const hosts = new Hosts()
let [alpha, beta, empty]: EphemeralAgent[] = []
let browser: Browser
/** What pages complained of, refused scripts and styles included, and what they asked of others. */
const complaints: string[] = []

beforeAll(async () => {
  mkdirSync(pictures, { recursive: true })
  ;[alpha, beta, empty] = await Promise.all(['alpha', 'beta', 'empty'].map((host) => hosts.add(host)))
  await startVictim(alpha!, name)
  browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: [
      ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
      ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
    ],
  })
})
afterAll(async () => {
  await browser?.close()
  await hosts[Symbol.asyncDispose]()
})

async function address({ stateDirectory }: EphemeralAgent, ...flags: string[]): Promise<string> {
  const { out, said } = await subpage(['dashboard', '--print', '--state', stateDirectory, ...flags])
  expect(said).toBe('')
  return out.trim()
}

async function open(url: string, options: BrowserContextOptions = {}): Promise<Page> {
  const page = await (await browser.newContext(options)).newPage()
  // A guest that has just died may be asked about once more, and the browser itself notes every answer of this kind.
  page.on('console', (message) => {
    if (message.type() === 'error' && !message.location().url.endsWith('/memory-map'))
      complaints.push(message.text())
  })
  page.on('pageerror', (error) => complaints.push(error.message))
  page.on('request', (request) => {
    if (new URL(request.url()).host !== new URL(url).host) complaints.push(`asked ${request.url()}`)
  })
  await page.goto(url)
  return page
}

/** What axe-core finds, in words. Its script comes by the debugger, for the page lets in none. */
async function accessibility(page: Page): Promise<string[]> {
  // A colour on its way to another one has the contrast of neither.
  await page.evaluate('Promise.allSettled(document.getAnimations().map(({ finished }) => finished))')
  await page.evaluate(axe)
  return await page.evaluate(async () => {
    const { violations } = await (globalThis as unknown as { axe: typeof import('axe-core') }).axe.run()
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`)
  })
}

/** The page has seen so many. */
const checkpoints = (page: Page, least: number) =>
  expect
    .poll(async () =>
      // Thousands are set apart.
      Number((await page.locator('dt:text-is("Checkpoints") + dd').textContent())?.replaceAll('\u202f', '')),
    )
    .toBeGreaterThan(least)

/** Pixels of the first plot that are neither background nor grid, which have no colour. */
const drawn = (page: Page): Promise<number> =>
  page.evaluate(`(async () => {
    // What has just changed is painted with the next frame.
    for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame)
    const canvas = document.querySelector('figure canvas')
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
    let coloured = 0
    for (let at = 0; at < data.length; at += 4) {
      const colour = data.subarray(at, at + 3)
      if (data[at + 3] > 200 && Math.max(...colour) - Math.min(...colour) > 80) coloured++
    }
    return coloured
  })()`)

const picture = (page: Page, of: string) =>
  page.screenshot({ path: join(pictures, `${of}.png`), fullPage: true })

test('a guest, its plots and what can be done with it, by the keyboard, in dark and light and on a telephone', async () => {
  const page = await open(await address(alpha!), {
    colorScheme: 'light',
    viewport: { width: 1360, height: 900 },
  })
  await page.getByRole('heading', { level: 2, name }).waitFor()
  await page.getByText('Alone · Running').waitFor()
  await page.getByRole('button', { name: 'Protect' }).click()
  await page.getByLabel('The other host').fill(beta!.address)
  await page.getByRole('dialog').getByRole('button', { name: 'Protect' }).click()
  await page.getByText('is being seeded').waitFor()
  await page.getByRole('button', { name: 'Close' }).click()
  await page.getByText('Primary · Protected').waitFor()
  // Live: two looks, and a pause between them.
  const pause = page.locator('figure', { hasText: 'Pause' }).locator('dd').first()
  await expect.poll(() => pause.textContent()).toMatch(/^[\d.]+ (ms|s)$/)
  expect(await page.locator('figure canvas').count()).toBe(4)
  expect(page.url()).not.toMatch(/[0-9a-f]{64}/)
  expect(await accessibility(page)).toEqual([])

  await page.getByRole('button', { name: 'Verify' }).focus()
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: `Verify ${name}?` }).waitFor()
  expect(await page.getByRole('dialog').textContent()).toContain('is paused meanwhile')
  expect(await accessibility(page)).toEqual([])
  await picture(page, 'question')
  // Another guest wants to be looked at first, and the window changes: the question stays, and stays about this guest.
  await alpha!.client.run({ name: 'another', ...idle })
  await page.getByRole('link', { name: /another/ }).waitFor()
  await page.setViewportSize({ width: 700, height: 900 })
  await page.setViewportSize({ width: 1360, height: 900 })
  expect(await page.getByRole('dialog').textContent()).toContain(`Verify ${name}?`)
  await alpha!.client.remove('another')
  await page.getByRole('dialog').getByRole('button', { name: 'Verify' }).press('Enter')
  await page.getByText(/^Equal: all \d+ pages/).waitFor()
  await page.keyboard.press('Escape')
  await page.getByRole('dialog').waitFor({ state: 'detached' })

  await checkpoints(page, 150)
  expect(await drawn(page)).toBeGreaterThan(0)
  await picture(page, 'light')
  await page.emulateMedia({ colorScheme: 'dark' })
  expect(await drawn(page)).toBeGreaterThan(0)
  await picture(page, 'dark')
  expect(await accessibility(page)).toEqual([])
  await page.setViewportSize({ width: 390, height: 844 })
  await page.keyboard.press('Escape')
  await picture(page, 'telephone-list')
  await page.getByRole('link', { name: /web/ }).click()
  await page.getByRole('button', { name: 'All guests' }).waitFor()
  await picture(page, 'telephone')
  expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(390)
  expect(await accessibility(page)).toEqual([])
  await page.context().close()
})

test('the memory of a guest that is protected and dense: where it is, how hot, and how much it uses', async () => {
  await alpha!.client.densityOn(name, { recentMs: 200, coldMs: 400, budget: 1 })
  const page = await open(await address(alpha!), {
    colorScheme: 'light',
    viewport: { width: 1360, height: 420 },
  })
  const asked: string[] = []
  page.on('request', (request) => asked.push(new URL(request.url()).pathname))
  await page.getByRole('heading', { level: 2, name }).waitFor()
  // While it cannot be seen nobody asks for it.
  await checkpoints(page, 200)
  expect(asked.filter((path) => path.endsWith('/memory-map'))).toEqual([])
  const section = page.getByRole('region', { name: 'Memory map' })
  await section.scrollIntoViewIfNeeded()
  await expect.poll(() => asked.some((path) => path.endsWith('/memory-map'))).toBe(true)
  await page.setViewportSize({ width: 1360, height: 900 })
  const kind = (called: string) =>
    section.locator('.legend li', { has: page.getByText(called, { exact: true }) })
  for (const called of ['dirty', 'one word', 'compressed']) await kind(called).waitFor({ timeout: 60_000 })
  expect(await section.getByRole('img').getAttribute('aria-label')).toMatch(/^Memory map: .* % one word/)

  const map = await alpha!.client.memoryMap(name)
  const { ramBytes, auxBytes } = await alpha!.client.guest(name)
  const total = (of: (kind: string) => boolean) =>
    map.cells.reduce(
      (sum, cell) => sum + cell.reduce((in_, count, at) => in_ + (of(map.kinds[at]!) ? count : 0), 0),
      0,
    )
  expect(total(() => true)).toBe(map.pages)
  expect(map.pages * 4096).toBe(ramBytes + auxBytes)
  expect(map.cells.length).toBeLessThanOrEqual(1024)
  expect(total((kind) => kind === 'modified')).toBeGreaterThan(0)
  expect({ dense: map.dense, watched: map.watched }).toEqual({ dense: true, watched: true })

  // Density watches, so there is a working set; and this host knows what its standby has.
  const used = page.getByRole('region', { name: 'Working set' })
  await used.getByText(/^[\d.]+ MiB ± .* of 160 MiB used|^[\d.]+ .iB ± /).waitFor()
  await expect.poll(async () => (await alpha!.client.workingSets(name)).points.length).toBeGreaterThan(1)
  const other = page.getByRole('region', { name: 'The other side' })
  await other.getByText('waits to take over').waitFor()
  expect(await other.textContent()).toContain(`subpage dashboard --state ${beta!.stateDirectory}`)
  await page.getByRole('button', { name: 'Watch its memory' }).click()
  await page.getByRole('button', { name: 'Stop watching' }).click()

  const part = section.getByRole('slider', { name: 'Look at a part' })
  await part.focus()
  const first = await section.locator('.part').textContent()
  await page.keyboard.press('ArrowRight')
  await expect.poll(() => section.locator('.part').textContent()).not.toBe(first)
  expect(await accessibility(page)).toEqual([])
  await picture(page, 'memory-light')
  await page.emulateMedia({ colorScheme: 'dark' })
  expect(await accessibility(page)).toEqual([])
  await picture(page, 'memory-dark')
  await page.setViewportSize({ width: 390, height: 844 })
  await section.scrollIntoViewIfNeeded()
  expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(390)
  expect(await accessibility(page)).toEqual([])
  await picture(page, 'memory-telephone')
  await page.context().close()
})

test('an address lets in once; where nothing runs, the page says how to begin', async () => {
  const url = await address(empty!)
  const page = await open(url)
  await page.getByRole('heading', { name: 'No guest runs here yet' }).waitFor()
  expect(await accessibility(page)).toEqual([])
  await picture(page, 'empty')
  const before = complaints.length
  const again = await open(url)
  await again.getByText('has been used, or is too old').waitFor()
  // The browser itself notes that it was refused.
  expect(complaints.splice(before)).toEqual([expect.stringContaining('401')])
  await page.context().close()
  await again.context().close()
})

test('a failover is watched, by somebody who may only look', async () => {
  const url = await address(beta!, '--read-only')
  const page = await open(url, { colorScheme: 'dark', viewport: { width: 1360, height: 900 } })
  await page.getByText('Standby · Protected').waitFor()
  await page.getByText('read only').waitFor()
  const { pid } = await alpha!.client.guest(name)
  process.kill(pid!, 'SIGKILL')
  await page.getByText(/^(Primary|Alone) · /).waitFor()
  await page.locator('.events .failover').first().waitFor()
  await page.getByText('Taken over').waitFor()
  expect(await page.getByRole('button', { name: /Protect|Verify|Switch|Unprotect/ }).count()).toBe(0)
  // And the agent holds to it, not only the page.
  const refused = await page.evaluate(async (guest) => {
    const { sessionStorage } = globalThis as unknown as { sessionStorage: Record<string, string> }
    const { token } = JSON.parse(sessionStorage['subpage-session']!)
    const headers = { authorization: `Bearer ${token}` }
    const answers = [
      await fetch(`/v1/guests/${guest}/unprotect`, { method: 'POST', headers }),
      await fetch(`/v1/guests/${guest}/screenshot`, { headers }),
      await fetch('/v1/status', { headers }),
    ]
    return answers.map(({ status }) => status)
  }, name)
  expect(refused).toEqual([403, 403, 200])
  await page.getByText('Primary · Protected').waitFor()
  await checkpoints(page, 100)
  await picture(page, 'failover')

  // The browser itself notes both refusals.
  expect(complaints).toEqual([expect.stringContaining('403'), expect.stringContaining('403')])
  beta!.process.kill('SIGKILL')
  await page.getByText('connecting again').waitFor()
  await page
    .getByRole('alert')
    .getByText(/The agent gives no answer.* What is below is of \d\d:/)
    .waitFor()
  await picture(page, 'reconnecting')
  await page.context().close()
})
