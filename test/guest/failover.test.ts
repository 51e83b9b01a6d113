/**
 * The promise itself, on real guests: QEMU is killed at random moments, again and again, from one host to the other
 * and back; the victim must go on each time with nothing lost and all its memory whole.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { judge } from '../../src/agent/demo.ts'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { consoleAt, typeLine } from '../../src/qemu/demo-guest.ts'
import { Hosts, protect, ramBytes, startVictim, until } from '../support/hosts.ts'
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
    // After a failover the protection begins by itself the other way round.
    if (n === 1) await protect(from, 'wanderer', to)
    else await until(from, 'wanderer', ({ state }) => state === 'Protected')
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

test('a shadow that is a cache protects, and so do hashes', async () => {
  let { console, status } = await startVictim(a, 'frugal')
  const ends = async (from: EphemeralAgent, to: EphemeralAgent) => {
    expect(await from.client.verify('frugal')).toMatchObject({ equal: true })
    await until(from, 'frugal', ({ epochs }) => (epochs?.checkpoints ?? 0) > 20)
    process.kill(status.pid ?? 0, 'SIGKILL')
    const taken = await until(to, 'frugal', ({ takeover }) => takeover !== null)
    const after = consoleAt(taken.console)
    const outcome = await judge(console, after, taken.takeover?.consoleBytes ?? 0)
    expect(outcome).toMatchObject({ continued: true, lost: 0, verified: true })
    console = after
    // Protection the other way round begins with the same settings.
    status = await until(to, 'frugal', ({ state }) => state === 'Protected')
  }
  const cache = { shadow: { cacheBytes: 16 * 2 ** 20 } }
  expect((await protect(a, 'frugal', b, cache)).memory).toMatchObject({ shadow: 'cache' })
  await ends(a, b)
  expect(status.memory).toMatchObject({ shadow: 'cache' })
  expect(status.memory?.shadowBytes).toBeLessThan(18 * 2 ** 20)
  await b.client.unprotect('frugal')
  expect((await protect(b, 'frugal', a, { shadow: 'hash', grainBytes: 256 })).memory).toMatchObject({
    shadow: 'hash',
    shadowBytes: ramBytes / 16,
  })
  await ends(b, a)
  expect(status.memory).toMatchObject({ shadow: 'hash', shadowBytes: ramBytes / 16 })
  await a.client.remove('frugal')
})

test('failover by command', async () => {
  await startVictim(a, 'commanded')
  await protect(a, 'commanded', b)
  expect(await b.client.failover('commanded')).toMatchObject({ how: 'took-over', reason: 'by command' })
  // The arbiter has granted it, so the copy on host a has been ended, and a is the standby now.
  await until(a, 'commanded', ({ role, state }) => role === 'Standby' && state === 'Protected')
  await b.client.remove('commanded')
  await expect.poll(() => a.client.guest('commanded').catch((error) => error.code)).toBe('GUEST_UNKNOWN')
})

test('a switchover loses nothing and repeats nothing', async () => {
  const { console } = await startVictim(a, 'moved')
  await protect(a, 'moved', b)
  await a.client.switchover('moved')
  const taken = await until(b, 'moved', ({ takeover }) => takeover !== null)
  const outcome = await judge(console, consoleAt(taken.console), taken.takeover?.consoleBytes ?? 0)
  expect(outcome).toEqual({ continued: true, lost: 0, repeated: 0, verified: true })
  await until(a, 'moved', ({ role, state }) => role === 'Standby' && state === 'Protected')
  await b.client.remove('moved')
})

// QEMU may end in any step of a checkpoint, with commands on their way to it.
test('a guest that powers itself off is not failed over, whatever it interrupts', async () => {
  const random = seededRandom()
  for (let n = 1; n <= 4; n++) {
    const { console } = await startVictim(a, 'sleeper')
    await protect(a, 'sleeper', b, { epochMs: 5 })
    await delay(random.integer(0, 60))
    await typeLine(console, 'poweroff')
    expect(await until(a, 'sleeper', ({ state }) => state === 'Ended')).toMatchObject({ pid: null })
    await expect
      .poll(() => b.client.guest('sleeper').catch((error) => error.code), {
        message: `time ${n}, seed ${random.seed}`,
      })
      .toBe('GUEST_UNKNOWN')
    await a.client.remove('sleeper')
  }
  expect((await b.client.events()).filter((e) => e.guest === 'sleeper' && e.kind === 'failover')).toEqual([])
})
