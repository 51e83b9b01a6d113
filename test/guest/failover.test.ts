/**
 * The promise itself, on real guests: QEMU is killed at random moments, again and again, from one host to the other
 * and back; the victim must go on each time with nothing lost and all its memory whole.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { judge } from '../../src/agent/demo.ts'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { consoleAt } from '../../src/qemu/demo-guest.ts'
import { Hosts, protect, startVictim, until } from '../support/hosts.ts'
import { seededRandom } from '../support/random.ts'

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent

beforeAll(async () => {
  hosts = new Hosts()
  a = await hosts.add('a')
  b = await hosts.add('b')
})

afterAll(async () => hosts[Symbol.asyncDispose]())

const failovers = 20

test(`${failovers} failovers in a row lose nothing`, { timeout: 400_000 }, async () => {
  const random = seededRandom()
  let { console } = await startVictim(a, 'wanderer')
  let [from, to] = [a, b]
  for (let n = 1; n <= failovers; n++) {
    await protect(from, 'wanderer', to)
    await delay(random.integer(0, 400))
    const { pid } = await from.client.guest('wanderer')
    process.kill(pid ?? 0, 'SIGKILL')
    const taken = await until(to, 'wanderer', ({ takeover }) => takeover !== null)
    const after = consoleAt(taken.console)
    const outcome = await judge(console, after, taken.takeover?.consoleBytes ?? 0)
    expect(outcome, `failover ${n}, seed ${random.seed}`).toMatchObject({
      continued: true,
      lost: 0,
      verified: true,
    })
    console = after
    ;[from, to] = [to, from]
  }
  await from.client.remove('wanderer')
})

test('the compare tracker protects as well', async () => {
  const { console, status } = await startVictim(a, 'compared')
  expect(await protect(a, 'compared', b, { tracker: 'compare', epochMs: 100 })).toMatchObject({
    tracker: 'compare',
  })
  expect(await a.client.verify('compared')).toMatchObject({ equal: true })
  process.kill(status.pid ?? 0, 'SIGKILL')
  const taken = await until(b, 'compared', ({ takeover }) => takeover !== null)
  const outcome = await judge(console, consoleAt(taken.console), taken.takeover?.consoleBytes ?? 0)
  expect(outcome).toMatchObject({ continued: true, lost: 0, verified: true })
  await b.client.remove('compared')
})

test('failover by command', async () => {
  await startVictim(a, 'commanded')
  await protect(a, 'commanded', b)
  expect(await b.client.failover('commanded')).toMatchObject({ how: 'took-over', reason: 'by command' })
  await until(b, 'commanded', ({ role, state }) => role === 'Alone' && state === 'Running')
  await b.client.remove('commanded')
  await a.client.remove('commanded')
})

test('a guest that powers itself off is not failed over', async () => {
  const { console } = await startVictim(a, 'sleeper')
  await protect(a, 'sleeper', b)
  const { typeLine } = await import('../../src/qemu/demo-guest.ts')
  await typeLine(console, 'poweroff')
  expect(await until(a, 'sleeper', ({ state }) => state === 'Ended')).toMatchObject({ pid: null })
  await expect.poll(() => b.client.guest('sleeper').catch((error) => error.code)).toBe('GUEST_UNKNOWN')
  expect((await b.client.events()).filter((e) => e.guest === 'sleeper' && e.kind === 'failover')).toEqual([])
})
