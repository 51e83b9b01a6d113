/**
 * The working set of a real guest: near what its program is known to use; beside a protection without taking a written page
 * from it; shared by all who ask; and gone from the guest when nobody asks any more.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { askVictim, type Console, typeLine, untilConsole, victimDamage } from '../../src/qemu/demo-guest.ts'
import type { Sample } from '../../src/workingset/sample.ts'
import { Hosts, protect, startVictim } from '../support/hosts.ts'
import { subpage } from '../support/subpage.ts'

const hosts = new Hosts()
let first: EphemeralAgent
let second: EphemeralAgent
let console: Console
/** Long enough that all memory can be watched where a fault is dear and others compute beside. */
const settings = { intervalMs: 1_000, subIntervals: 1, budget: 1 }

beforeAll(async () => {
  ;[first, second] = await Promise.all([hosts.add('first'), hosts.add('second')])
  console = (await startVictim(first, 'web', ['victim_mib=8', 'victim_verify_ms=100000'])).console
})
afterAll(() => hosts[Symbol.asyncDispose]())

async function watch(count: number, wanted = settings): Promise<Sample[]> {
  const samples: Sample[] = []
  for await (const sample of first.client.watchMemory('web', wanted))
    if (samples.push(sample) === count) break
  return samples
}

/** The first sample whose estimate has come to rest. */
async function steady(): Promise<Sample> {
  for await (const sample of first.client.watchMemory('web', settings))
    if (sample.estimate.stable) return sample
  throw new Error('it is not watched any more')
}

const mib = (pages: number) => (pages * 4096) / 2 ** 20

test('finds the working set of a program whose working set is known, on top of what the guest uses anyway', async () => {
  await watch(3)
  const before = (await watch(3)).at(-1)!
  await typeLine(console, 'run workset mib=40 mode=read >/dev/ttyS0 & echo started')
  await untilConsole(console, 0, (text) => /^workset ready mib=40/m.exec(text) ?? undefined, 60_000)
  await watch(2)
  const after = await steady()
  expect(mib(after.dist.pages - before.dist.pages)).toBeGreaterThan(36)
  expect(mib(after.dist.pages - before.dist.pages)).toBeLessThan(44)
  expect(after.watchedPages).toBe(after.ramPages)
  expect(after.dist.plusMinus).toBe(0)
  // It only reads: what is written is what was written before.
  expect(Math.abs(mib((after.written?.pages ?? 0) - (before.written?.pages ?? 0)))).toBeLessThan(6)
  expect(after.heat.filter((percent) => percent === 100).length).toBeGreaterThan(5)
})

test('a part of the memory is enough, and costs a part of the time', async () => {
  const whole = (await watch(3)).at(-1)!
  // At first all of it, until it is known what that costs; a guest that gets no processor costs nothing for a moment.
  const samples = await watch(8, { ...settings, budget: 0.001 })
  const last = samples.findLast(({ watchedPages, ramPages }) => watchedPages < ramPages)
  expect(last, 'all of it was watched all the time').toBeDefined()
  expect(last!.costShare).toBeLessThan(whole.costShare / 3)
  const { pages, plusMinus } = last!.dist
  expect(plusMinus).toBeGreaterThan(0)
  // The fewer are watched, the less is known, which it says.
  expect(Math.abs(mib(pages - whole.dist.pages))).toBeLessThan(10 + 3 * mib(plusMinus))
})

test('beside a protection: nothing is lost, and what is written is known from it', async () => {
  const during = watch(8)
  await protect(first, 'web', second)
  // Beside checkpoints the program takes longer to come round.
  const samples = await watch(3)
  expect(mib(samples.at(-1)!.dist.pages)).toBeGreaterThan(40)
  expect(mib(samples.at(-1)!.written!.pages)).toBeGreaterThan(1)
  expect(await first.client.verify('web')).toMatchObject({ equal: true })
  await during
  expect(await first.client.verify('web')).toMatchObject({ equal: true })
  expect(victimDamage(readFileSync(console.log, 'latin1'))).toBeUndefined()
  expect(await askVictim(console)).toBe(true)
})

test('the command says it in plain words, and what is wrong', async () => {
  const state = ['--state', join(hosts.directory, 'first')]
  const [text, json] = await Promise.all([
    subpage(['wss', 'vm:web', ...state, '--for', '1s', '--interval', '250ms', '--footprint', '40M']),
    subpage(['wss', 'web', ...state, '--for', '1s', '--interval', '250ms', '--json']),
  ])
  expect(text.out).toMatch(/^160 MiB given, \d+ ± [\d.]+ MiB used over the last \d+ m?s; .*\n/)
  expect(text.out).toContain('p100')
  expect([json.status, json.said]).toEqual([0, ''])
  const found = JSON.parse(json.out)
  expect(found.percentileBytes).toHaveLength(21)
  expect(found.samples.length).toBeGreaterThan(1)
  const unknown = await subpage(['wss', 'nobody', ...state, '--json'])
  expect(unknown).toMatchObject({ status: 10, said: expect.stringContaining('GUEST_UNKNOWN') })
  const standby = await subpage(['wss', 'web', '--state', join(hosts.directory, 'second'), '--json'])
  expect(standby).toMatchObject({ status: 10, said: expect.stringContaining('standby') })
  const bad = await subpage(['wss', 'web', ...state, '--budget', '0'])
  expect(bad.status).toBe(2)
})
