/**
 * Sending before an epoch's end, on a real guest with the kernel's tracker: it happens, it is counted in `status`, no page
 * that goes early is lost to the standby or to whoever watches the working set, and it does not happen where it is switched off.
 */
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import {
  askVictim,
  type Console,
  readConsole,
  typeLine,
  untilConsole,
  victimDamage,
} from '../../src/qemu/demo-guest.ts'
import { againMax, type Speculate } from '../../src/replication/settled-pages.ts'
import { Hosts, protect, startVictim, until } from '../support/hosts.ts'
import { subpage } from '../support/subpage.ts'

const name = 'web'
const writtenMib = 8
const hosts = new Hosts()
let from: EphemeralAgent
let to: EphemeralAgent
let console: Console

beforeAll(async () => {
  ;[from, to] = await Promise.all([hosts.add('from'), hosts.add('to')])
  console = (await startVictim(from, name, ['victim_mib=8'])).console
  await typeLine(console, `run workset mib=${writtenMib} mode=write period_ms=200 >/dev/ttyS0 & echo started`)
  await untilConsole(console, 0, (text) => /^workset ready/m.exec(text) ?? undefined, 60_000)
})
afterAll(() => hosts[Symbol.asyncDispose]())

/** Protects, waits for enough epochs to tell, verifies. @returns the counters, the share of early pages in vain, of bytes after the pause */
async function protectedWith(speculate: Speculate) {
  await protect(from, name, to, { speculate, epochMs: 50 })
  // The first checkpoint carries what seeding left, and a predictor has to learn.
  const { epochs: early } = await until(from, name, (status) => (status.epochs?.checkpoints ?? 0) >= 12)
  const { epochs } = await until(from, name, (status) => (status.epochs?.checkpoints ?? 0) >= 42)
  expect(await from.client.verify(name)).toMatchObject({ equal: true })
  const grown = (of: (so: NonNullable<typeof epochs>) => number) => of(epochs!) - of(early!)
  return {
    epochs: epochs!,
    inVain:
      grown((so) => so.earlyPagesAgain) /
      Math.max(
        1,
        grown((so) => so.earlyPages),
      ),
    finalShare: grown((so) => so.bytes.final) / grown((so) => so.bytes.sent),
  }
}

test('always: pages go early, those in vain are counted, and the copy is equal', async () => {
  const { epochs } = await protectedWith('always')
  expect(epochs.earlyPages).toBeGreaterThan(100)
  expect(epochs.earlyPages).toBeLessThanOrEqual(epochs.dirtyPages)
  // The victim writes a few pages again and again: some are always written once more.
  expect(epochs.earlyPagesAgain).toBeGreaterThan(0)
  expect(epochs.earlyPagesAgain).toBeLessThan(epochs.earlyPages)
  // What clients wait for is less than what is sent.
  expect(epochs.bytes.final).toBeLessThan(epochs.bytes.sent)
  const { out } = await subpage(['status', name, '--state', join(hosts.directory, 'from')])
  expect(out).toMatch(/sent early +[1-9]\d* pages, \d+ % of them in vain/)
})

test('whoever watches the working set hears of the pages that went early', async () => {
  const settings = { intervalMs: 1000, subIntervals: 1, budget: 1 }
  const written: number[] = []
  for await (const sample of from.client.watchMemory(name, settings))
    if (sample.written && written.push((sample.written.pages * 4096) / 2 ** 20) === 2) break
  // All that the program writes in every interval, most of it early: not only what the harvests at the epochs' ends find.
  for (const mib of written) expect(mib).toBeGreaterThan(writtenMib)
  await from.client.unprotect(name)
})

test('auto: cold pages go early, and few of them in vain', async () => {
  const { epochs, inVain, finalShare } = await protectedWith('auto')
  expect(epochs.earlyPages).toBeGreaterThan(epochs.dirtyPages / 4)
  // Hot pages are not armed and go early with neither way, so that 'always' need not do worse: the bound is the predictor's own.
  expect(inVain).toBeLessThan(againMax)
  // What clients wait for.
  expect(finalShare).toBeLessThan(0.95)
  await from.client.unprotect(name)
})

test('off: nothing goes early', async () => {
  const { epochs } = await protectedWith('off')
  expect(epochs).toMatchObject({ earlyPages: 0, earlyPagesAgain: 0 })
  expect(epochs.bytes.final).toBe(epochs.bytes.sent)
  await from.client.unprotect(name)
})

test('a tracker that names every page sends nothing early', async () => {
  await protect(from, name, to, { speculate: 'always', tracker: 'compare', epochMs: 50 })
  const { epochs } = await until(from, name, (status) => (status.epochs?.checkpoints ?? 0) >= 5)
  expect(epochs).toMatchObject({ earlyPages: 0 })
  await from.client.unprotect(name)
})

test('the guest is whole after all of it', async () => {
  expect(await askVictim(console)).toBe(true)
  expect(victimDamage(readConsole(console))).toBeUndefined()
})
