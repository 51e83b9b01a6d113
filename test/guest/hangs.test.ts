/**
 * What hangs is detected, has a state of its own, keeps nobody else waiting, and goes on by itself. If it is protected, its
 * standby takes over. Guests without an operating system: it is about their processes.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { openSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { exitStatus } from '../../src/errors.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { hangTimes } from '../../src/qemu/hang-watch.ts'
import { fateOf, identify } from '../../src/qemu/process.ts'
import { endHost, Hosts, idle, killHost, protect, until } from '../support/hosts.ts'
import { subpage } from '../support/subpage.ts'

const hosts = new Hosts()
const stateOf = (host: string) => join(hosts.directory, host)
let a: EphemeralAgent
let b: EphemeralAgent

beforeAll(async () => {
  a = await hosts.add('a')
  b = await hosts.add('b')
  for (const name of ['alone', 'wanted', 'other', 'third']) await a.client.run({ ...idle, name })
})
afterAll(() => hosts[Symbol.asyncDispose]())

const pidOf = async (agent: EphemeralAgent, name: string) => (await agent.client.guest(name)).pid!
const hung = (agent: EphemeralAgent, name: string) => until(agent, name, ({ state }) => state === 'Hung')
const texts = async (agent: EphemeralAgent) =>
  (await agent.client.recentEvents()).map(({ guest, text }) => `${guest} ${text}`)

async function restart(host: string, agent: EphemeralAgent): Promise<EphemeralAgent> {
  await killHost(agent)
  return await hosts.add(host)
}

test('a QEMU that hangs: one that is protected is taken over, a standby is replaced, one that is alone is never ended', async () => {
  for (const name of ['wanted', 'other']) await protect(a, name, b)
  const [alone, wanted] = [await pidOf(a, 'alone'), await pidOf(a, 'wanted')]
  const waiting = await pidOf(b, 'other')
  const process_ = identify(wanted)!
  const stoppedAt = Date.now()
  for (const pid of [alone, wanted, waiting]) process.kill(pid, 'SIGSTOP')
  const { reason, role } = await hung(a, 'alone')
  const seenAt = Date.now()
  expect(role).toBe('Alone')
  expect(reason).toMatch(new RegExp(`^QEMU \\(process ${alone}\\) gives no answer since 20`))
  const since = Date.parse(/since (\S+):/.exec(reason)![1]!)
  // When it began, and not when it was noticed.
  expect(since).toBeGreaterThan(stoppedAt - hangTimes.askMs - 2_000)
  expect(since).toBeLessThan(seenAt - hangTimes.hungMs + hangTimes.tickMs)
  // Nobody else has to wait.
  expect(await a.client.guest('third')).toMatchObject({ state: 'Running' })
  await expect(protect(a, 'alone', b)).rejects.toMatchObject({ code: 'GUEST_HUNG' })
  await expect(a.client.unprotect('alone')).rejects.toMatchObject({ code: 'GUEST_HUNG' })
  expect(await subpage(['status', 'alone', '--state', stateOf('a')])).toMatchObject({
    status: exitStatus.degraded,
    out: expect.stringMatching(/Hung: QEMU/),
  })
  expect((await subpage(['status', '--state', stateOf('a')])).status).toBe(exitStatus.degraded)

  const taken = await until(b, 'wanted', ({ takeover }) => takeover !== null)
  expect(taken.takeover?.reason).toMatch(/its QEMU gave no answer for 10 s and was ended/)
  expect(fateOf(process_)).toBe('gone')
  await until(b, 'wanted', ({ role, state }) => role === 'Primary' && state === 'Protected')
  // A standby that could not take over is replaced.
  await until(
    b,
    'other',
    ({ role, state, pid }) => role === 'Standby' && state === 'Protected' && pid !== waiting,
  )
  expect(await a.client.guest('other')).toMatchObject({ role: 'Primary', state: 'Protected' })
  expect(await a.client.guest('alone')).toMatchObject({ state: 'Hung', pid: alone })
  process.kill(alone, 'SIGCONT')
  await until(a, 'alone', ({ state }) => state === 'Running')
  expect((await subpage(['status', 'alone', '--state', stateOf('a')])).status).toBe(exitStatus.notProtected)
  expect((await texts(a)).join('\n')).toMatch(/^wanted hangs: QEMU/m)
  expect((await texts(b)).join('\n')).toMatch(/^other hangs: QEMU/m)
  expect((await texts(a)).join('\n')).toMatch(
    /^alone hangs: QEMU [\s\S]*^alone answers again, after \d+\.\d s$/m,
  )
})

test('an agent ends beside guests that hang; the next one finds all others at once, and those when they go on', async () => {
  const pids = [await pidOf(a, 'alone'), await pidOf(a, 'other')]
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  await endHost(a, 'SIGTERM')
  expect(a.process.exitCode).toBe(0)
  a = await hosts.add('a')
  expect(await a.client.guest('third')).toMatchObject({ state: 'Running' })
  expect(await a.client.guest('alone')).toMatchObject({
    state: 'Hung',
    pid: pids[0],
    reason: expect.stringMatching(/gives no answer on its control socket since this supervisor began/),
  })
  // The standby that this agent is asked for does not wait for it either.
  await until(a, 'wanted', ({ role, state }) => role === 'Standby' && state === 'Protected')
  expect((await subpage(['status', 'alone', '--state', stateOf('a')])).status).toBe(exitStatus.degraded)
  await expect(a.client.verify('alone')).rejects.toMatchObject({ code: 'GUEST_HUNG' })
  await expect(a.client.run({ ...idle, name: 'alone' })).rejects.toMatchObject({ code: 'GUEST_EXISTS' })
  // Agents that were killed stand in its queue.
  for (let n = 0; n < 2; n++) a = await restart('a', a)
  for (const pid of pids) process.kill(pid, 'SIGCONT')
  expect(await until(a, 'alone', ({ state }) => state === 'Running')).toMatchObject({ pid: pids[0] })
  expect(await until(a, 'other', ({ state }) => state === 'Protected')).toMatchObject({ pid: pids[1] })
})

/** Stops the keeper in the moment in which it holds the pause of a guest. */
const stopInPause = `
  const { openSync, readSync } = require('node:fs')
  const [lease, pid] = process.argv.slice(1)
  const fd = openSync(lease, 'r'), word = Buffer.alloc(8)
  const locked = () => (readSync(fd, word, 0, 8, 0), word.readBigUInt64LE() === 2n ** 64n - 2n)
  for (const until = Date.now() + 4_000; Date.now() < until; ) {
    if (!locked()) continue
    process.kill(Number(pid), 'SIGSTOP')
    if (locked()) process.exit(0)
    process.kill(Number(pid), 'SIGCONT')
  }
  process.exit(1)`

test('a keeper that hangs while a guest stands still for it is ended: the guest runs on, and the next keeper has its pages', async () => {
  const files = guestFiles(stateOf('a'), 'third')
  const lease = openSync(files.lease, 'r')
  const word = () => {
    const bytes = Buffer.alloc(8)
    readSync(lease, bytes, 0, 8, 0)
    return bytes.readBigUInt64LE()
  }
  const full = { recentMs: 0, coldMs: 0, budget: 1, trustDomain: 'd' }
  let keeper = 0
  for (let stopped = false; !stopped; ) {
    await a.client.densityOn('third', { ...full, recentMs: 3_600_000, coldMs: 3_600_000 })
    keeper = (await a.client.density()).keeper!.pid
    await a.client.densityOff('third')
    // A keeper without guests ends by itself, and the next one is another.
    await a.client.densityOn('third', full)
    keeper = (await a.client.density()).keeper!.pid
    const stopper = spawn(process.execPath, ['-e', stopInPause, files.lease, String(keeper)])
    const [status] = await once(stopper, 'exit')
    stopped = status === 0
    if (!stopped) await a.client.densityOff('third')
  }
  const identity = identify(keeper)!
  expect(readFileSync(`/proc/${keeper}/stat`, 'latin1')).toMatch(/\) T /)
  // The other guests of this host are not held up by it.
  expect(await a.client.guest('alone')).toMatchObject({ state: 'Running' })
  await expect.poll(() => fateOf(identity), { timeout: 30_000 }).toBe('gone')
  await expect.poll(word, { timeout: 10_000 }).toBe(0n)
  await expect
    .poll(async () => (await texts(a)).join('\n'), { timeout: 20_000 })
    .toMatch(
      /the keeper of dense memory hung and was ended \(it kept a guest paused for 5 s\); a new one is started/,
    )
  await expect.poll(async () => (await a.client.density()).keeper?.pid, { timeout: 20_000 }).not.toBe(keeper)
  await a.client.densityOff('third')
  expect(await a.client.guest('third')).toMatchObject({ state: 'Running' })
})
