/**
 * Pages that a guest rewrites in every epoch stay unarmed: on a real guest, by the counters in `status`; its copy is equal all the
 * same, also when the area rests, is written again, and another one follows it. Who watches the working set is told of them.
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
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { Qmp } from '../../src/qemu/qmp.ts'
import { hotPageCosts } from '../../src/replication/hot-page-costs.ts'
import { automaticPace } from '../../src/replication/pace.ts'
import { Hosts, protect, startVictim, until } from '../support/hosts.ts'
import { subpage } from '../support/subpage.ts'

const name = 'web'
const areaPages = 1024
const hosts = new Hosts()
let from: EphemeralAgent
let to: EphemeralAgent
let console: Console

beforeAll(async () => {
  ;[from, to] = await Promise.all([hosts.add('from'), hosts.add('to')])
  console = (await startVictim(from, name, ['victim_mib=1'])).console
})
afterAll(() => hosts[Symbol.asyncDispose]())

/** Rewrites the area several times in each epoch, until it is killed. */
async function rewrite(): Promise<void> {
  const at = readConsole(console).length
  const mib = (areaPages * 4096) / 2 ** 20
  await typeLine(console, `run workset mib=${mib} mode=write period_ms=20 >/dev/ttyS0 & echo started`)
  await untilConsole(console, at, (text) => /^workset ready/m.exec(text) ?? undefined, 60_000)
}

test('an area that a guest rewrites stays unarmed: faults are saved, and the copy is equal', async () => {
  await rewrite()
  await protect(from, name, to, { speculate: 'off', epochMs: 50 })
  const { hotPages } = await until(
    from,
    name,
    (status) => (status.hotPages?.faultsSaved ?? 0) > 20 * areaPages,
  )
  expect(hotPages!.now).toBeGreaterThan(0.9 * areaPages)
  // What was compared in vain cost a quarter of what the faults would have, at most: where faults are dear more is compared.
  const { faultNs, compareNs } = hotPageCosts()!
  expect(hotPages!.comparisons * compareNs).toBeLessThan((hotPages!.faultsSaved * faultNs) / 4)
  expect(await from.client.verify(name)).toMatchObject({ equal: true })
  const { out } = await subpage(['status', name, '--state', join(hosts.directory, 'from')])
  expect(out).toMatch(/hot pages +[1-9]\d* not armed, [1-9]\d* faults saved/)
  expect(out).toMatch(/costs the guest +\d+ % of time in pauses, \d+ % in faults; what it sends waits [1-9]/)
  const { cost, pauseUs } = (await from.client.guest(name)).epochs!
  expect(cost!.pauses).toBeGreaterThan(pauseUs.p50 / 1000 / 50 / 10)
  expect(cost!.pauses).toBeLessThan(1)
  // On average it waits for half of an epoch and more.
  expect(cost!.outputWaitMs).toBeGreaterThan(25)
  expect(cost!.faults).toBeGreaterThan(0)
  expect(cost!.faults).toBeLessThan(0.5)
})

test('a pause is as long as QEMU says that the guest stood still', async () => {
  const qmp = await Qmp.connect(guestFiles(from.stateDirectory, name).observerQmp)
  const observed: number[] = []
  let stoppedUs: number | undefined
  qmp.on('event', ({ event, timestamp: { seconds, microseconds } }) => {
    const us = seconds * 1e6 + microseconds
    if (event === 'STOP') stoppedUs = us
    if (event === 'RESUME' && stoppedUs !== undefined) observed.push(us - stoppedUs)
  })
  const { last } = await from.client.guest(name)
  const said = new Set<number>()
  await until(from, name, (status) => {
    // One that was under way is seen in part.
    if (status.last!.epoch > last!.epoch + 1) said.add(status.last!.pauseUs)
    return said.size >= 10
  })
  await expect.poll(() => [...said].filter((us) => !observed.includes(us))).toEqual([])
  qmp.close()
})

test('whoever watches the working set hears of pages that no fault tells of', async () => {
  const settings = { intervalMs: 1000, subIntervals: 1, budget: 1 }
  for await (const sample of from.client.watchMemory(name, settings))
    if (sample.written) {
      expect(sample.written.pages).toBeGreaterThanOrEqual(areaPages)
      break
    }
})

test('when it rests it is armed again, at the cost of a few comparisons', async () => {
  const before = (await from.client.guest(name)).hotPages!
  await typeLine(console, 'run killall workset')
  const { hotPages } = await until(
    from,
    name,
    (status) => (status.hotPages?.now ?? areaPages) < areaPages / 2,
    150_000,
  )
  expect(hotPages!.comparisons).toBeGreaterThan(before.comparisons)
  expect(hotPages!.comparisons - before.comparisons).toBeLessThan(16 * areaPages)
  await rewrite()
  await until(from, name, (status) => (status.hotPages?.now ?? 0) > 0.9 * areaPages)
  expect(await from.client.verify(name)).toMatchObject({ equal: true })
  await from.client.unprotect(name)
})

test('what a pause has to capture of many pages, two threads share; the copy is equal', async () => {
  const at = readConsole(console).length
  await typeLine(
    console,
    'run killall workset; workset mib=48 mode=write period_ms=40 >/dev/ttyS0 & echo started',
  )
  await untilConsole(console, at, (text) => /^workset ready/m.exec(text) ?? undefined, 60_000)
  await protect(from, name, to, { speculate: 'off', epochMs: 100 })
  await until(from, name, ({ epochs }) => (epochs?.sharedCaptures ?? 0) >= 3)
  expect(await from.client.verify(name)).toMatchObject({ equal: true })
  await typeLine(console, 'run killall workset')
  await from.client.unprotect(name)
})

test('the pace follows what protecting may cost', async () => {
  // Less than pauses would take with the longest epoch that an automatic pace has by itself.
  await protect(from, name, to, { ...automaticPace, pauseShareMax: 0.02 })
  const { epochs } = await until(
    from,
    name,
    ({ epochs }) => (epochs?.checkpoints ?? 0) >= 8 && epochs!.cost!.pauses + epochs!.cost!.faults < 0.024,
  )
  expect(epochs!.gapUs.p50).toBeGreaterThan(automaticPace.epochMs * 1000)
  await from.client.unprotect(name)
})

test('the pace follows what clients may wait, and status says what they do', async () => {
  // So long that epochs last longer for it than they would by themselves.
  const latencyMs = 150
  await protect(from, name, to, { ...automaticPace, latencyMs })
  const { epochs, ...status } = await until(
    from,
    name,
    ({ epochs }) =>
      (epochs?.checkpoints ?? 0) >= 8 && Math.abs(epochs!.cost!.outputWaitMs! - latencyMs) < latencyMs / 5,
  )
  expect(status).toMatchObject({ latencyMs, pauseShareMax: automaticPace.pauseShareMax })
  expect(epochs!.gapUs.p50).toBeGreaterThan(1.5 * automaticPace.epochMs * 1000)
  const { out } = await subpage(['status', name, '--state', join(hosts.directory, 'from')])
  expect(out).toMatch(/costs the guest .*; what it sends waits \d+\.\d ms \(goal 150 ms\)/)
  await from.client.unprotect(name)
})

test('without a full copy to compare with, or with a tracker that names every page, every page is armed', async () => {
  for (const settings of [{ shadow: 'hash' as const }, { tracker: 'compare' as const }]) {
    await protect(from, name, to, { ...settings, epochMs: 50 })
    const status = await until(from, name, ({ epochs }) => (epochs?.checkpoints ?? 0) >= 5)
    expect(status.hotPages).toBeNull()
    await from.client.unprotect(name)
  }
})

test('the guest is whole after all of it', async () => {
  expect(await askVictim(console)).toBe(true)
  expect(victimDamage(readConsole(console))).toBeUndefined()
})
