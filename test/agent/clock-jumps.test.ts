/**
 * No wall clock decides anything, and no two hosts have the same other clocks: both agents see a date that jumps by hours each time
 * they look, and one host has been up for days longer than the other.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { Hosts, protect, supervisorPid, until } from '../support/hosts.ts'

const jumping = `
  const Real = Date
  const jumps = [0, 5, -30, 400, -7, 1]
  let looks = 0
  const now = () => Real.now() + jumps[looks++ % jumps.length] * 3_600_000
  globalThis.Date = class extends Real {
    constructor(...given) {
      if (given.length === 0) super(now())
      else super(...given)
    }
    static now() {
      return now()
    }
  }`
const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(jumping)}` }
/** CLOCK_BOOTTIME and CLOCK_MONOTONIC of its own (time_namespaces(7)). */
const longUp = ['unshare', '--time', '--fork', '--boottime', '400000', '--monotonic', '90000']

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent
beforeAll(async () => {
  hosts = new Hosts()
  a = await hosts.add('a', env, undefined, longUp)
  b = await hosts.add('b', env)
}, 60_000)
afterAll(async () => hosts[Symbol.asyncDispose]())

test('a guest is protected, stays so, and is taken over once when its host falls silent', async () => {
  const { pid } = await a.client.run({
    ...{ name: 'timeless', ramBytes: 32 * 2 ** 20, accel: 'tcg', options: [] },
  })
  await protect(a, 'timeless', b)
  const before = (await a.client.guest('timeless')).epochs?.checkpoints ?? 0
  const later = await until(a, 'timeless', ({ epochs }) => (epochs?.checkpoints ?? 0) > before + 40)
  expect(later).toMatchObject({ role: 'Primary', generation: 1 })
  // The dates that people see do jump.
  const times = (await a.client.recentEvents()).map(({ time }) => Date.parse(time))
  expect(Math.max(...times) - Math.min(...times)).toBeGreaterThan(3_600_000)

  const all = [(await a.client.status()).pid, await supervisorPid(a, 'timeless'), pid ?? 0]
  for (const stopped of all) process.kill(stopped, 'SIGSTOP')
  try {
    await until(b, 'timeless', ({ takeover }) => takeover !== null)
  } finally {
    for (const stopped of all) process.kill(stopped, 'SIGCONT')
  }
  expect(await b.client.guest('timeless')).toMatchObject({ generation: 2 })
  // The host that stood still finds out, and keeps the standby of the other.
  await until(a, 'timeless', ({ role }) => role === 'Standby')
  await until(b, 'timeless', ({ role, state }) => role === 'Primary' && state === 'Protected')
})
