/**
 * A real guest whose agent stands still in the middle of a pause: the guard inside QEMU breaks the pause, and more pages are
 * behind than a pause should take up. They go while the guest runs, the state says so, and the protection is whole again.
 */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import {
  askVictim,
  type Console,
  consoleLength,
  readConsole,
  typeLine,
  untilConsole,
  victimDamage,
} from '../../src/qemu/demo-guest.ts'
import { pauseLimits } from '../../src/replication/pause-limits.ts'
import { Hosts, protect, startVictim, supervisorPid, until } from '../support/hosts.ts'

const name = 'burst'
const burstMib = 64
const hosts = new Hosts()
let from: EphemeralAgent
let to: EphemeralAgent
let console: Console

beforeAll(async () => {
  // At the twelfth pause the supervisor stops, with what it has harvested in its hands.
  const faults = { SUBPAGE_FAULT: 'after-harvest:12=stop' }
  ;[from, to] = await Promise.all([hosts.add('from', faults), hosts.add('to')])
  console = (await startVictim(from, name, ['victim_mib=8'])).console
  supervisor = await supervisorPid(from, name)
})
afterAll(() => hosts[Symbol.asyncDispose]())

let supervisor: number
const supervisorState = () => readFileSync(`/proc/${supervisor}/stat`, 'utf8').split(') ')[1]?.[0]

test('a pause that is broken with much to capture: seeded again while the guest runs, and whole', async () => {
  expect((burstMib * 2 ** 20) / 4096).toBeGreaterThan(pauseLimits.wholePages)
  await typeLine(console, `run workset mib=${burstMib} mode=write period_ms=200 >/dev/ttyS0 & echo started`)
  await untilConsole(console, 0, (text) => /^workset ready/m.exec(text) ?? undefined, 60_000)
  const events: string[] = []
  void (async () => {
    for await (const { text } of from.client.events()) events.push(text)
  })().catch(() => undefined) // The agent is ended by the test.
  // An epoch in which all of it is written; a standby that waits for longer than the supervisor stands still.
  await protect(from, name, to, { epochMs: 400, suspicionMs: 20_000, speculate: 'off' })
  await expect.poll(supervisorState, { timeout: 60_000 }).toBe('T')
  // The guard lets the guest run: it says so.
  const length = consoleLength(console)
  await untilConsole(console, length, (text) => /^workset periods=/m.exec(text) ?? undefined, 30_000)
  process.kill(supervisor, 'SIGCONT')

  await expect.poll(() => events.join('\n'), { timeout: 30_000 }).toMatch(/Seeding: more pages are behind/)
  const { epochs } = await until(
    from,
    name,
    ({ state, epochs }) => state === 'Protected' && (epochs?.checkpoints ?? 0) > 12,
  )
  expect(epochs).toMatchObject({ failed: 1 })
  expect(await from.client.verify(name)).toMatchObject({ equal: true })
  await until(to, name, ({ state }) => state === 'Protected')

  expect(await askVictim(console)).toBe(true)
  expect(victimDamage(readConsole(console))).toBeUndefined()
}, 120_000)
