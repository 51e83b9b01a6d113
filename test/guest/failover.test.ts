/**
 * The promise itself, on real guests: QEMU is killed at random moments, again and again, from one host to the other
 * and back; the victim must go on each time with nothing lost and all its memory whole. `npm run bench -- failover` does it more often.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { run as failoverBench } from '../../bench/failover.ts'
import { judge } from '../../src/agent/demo.ts'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import type { GuestStatus } from '../../src/agent/status.ts'
import { type Console, consoleAt, typeLine } from '../../src/qemu/demo-guest.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { Qmp } from '../../src/qemu/qmp.ts'
import { Hosts, protect, ramBytes, startVictim, until } from '../support/hosts.ts'
import { inGuest } from '../support/in-guest.ts'
import { seededRandom } from '../support/random.ts'
import { firmwareOptions, out } from '../support/tiny-guest.ts'

const name = 'wanderer'

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent
/** Where the guest runs, and the other one. Each test protects it anew. */
let from: EphemeralAgent
let to: EphemeralAgent
let console: Console

beforeAll(async () => {
  hosts = new Hosts()
  // Its firmware may be read by guests.
  const tell = join(hosts.directory, 'tell')
  writeFileSync(tell, `#!/bin/sh\nprintf '%s %s: %s\\n' "$1" "$2" "$3" >> ${heard()}\n`, { mode: 0o755 })
  const env = { SUBPAGE_IMAGES: hosts.directory, SUBPAGE_ON_EVENT: tell }
  ;[a, b] = [await hosts.add('a', env), await hosts.add('b', env)]
  ;[from, to] = [a, b]
  ;({ console } = await startVictim(from, name, [], ['-device', 'virtio-balloon-pci']))
})

afterAll(async () => hosts[Symbol.asyncDispose]())

/** What the program that both agents run for their events has written down. */
const heard = () => join(hosts.directory, 'heard')

/** The guest runs on the other host, and protection has begun the other way round. */
async function turned(): Promise<{ outcome: Awaited<ReturnType<typeof judge>>; status: GuestStatus }> {
  const taken = await until(to, name, ({ takeover }) => takeover !== null)
  const after = consoleAt(taken.console)
  const outcome = await judge(console, after, taken.takeover?.consoleBytes ?? 0)
  console = after
  ;[from, to] = [to, from]
  await until(to, name, ({ role, state }) => role === 'Standby' && state === 'Protected')
  return { outcome, status: await until(from, name, ({ state }) => state === 'Protected') }
}

async function kill(): Promise<void> {
  const { pid } = await from.client.guest(name)
  process.kill(pid ?? Number.NaN, 'SIGKILL')
}

const whole = { continued: true, lost: 0, verified: true }

test('failovers in a row, at random moments, lose nothing', { timeout: 400_000 }, async () => {
  const { json } = await failoverBench({ tiny: true })
  const { failovers, reasons, detectionMs, takeoverMs } = json
  expect(failovers).toBe(6)
  for (const { p50, max } of [detectionMs, takeoverMs]) {
    expect(p50).toBeGreaterThan(0)
    expect(p50).toBeLessThanOrEqual(max)
  }
  // The guest's end is seen, and said; on a loaded machine its standby may see sooner that it is gone. None waits for silence.
  expect(reasons).toContainEqual(expect.stringMatching(/^the guest died/))
  expect(reasons).not.toContain('the primary is silent')
})

test('the compare tracker protects as well', async () => {
  expect(await protect(from, name, to, { tracker: 'compare', epochMs: 100 })).toMatchObject({
    tracker: 'compare',
  })
  expect(await from.client.verify(name)).toMatchObject({ equal: true })
  await kill()
  expect((await turned()).outcome).toMatchObject(whole)
  // An operator hears of it: the agents' program was run.
  await expect
    .poll(() => readFileSync(heard(), 'utf8'))
    .toMatch(new RegExp(`^failover ${name}: .*the guest died`, 'm'))
  await from.client.unprotect(name)
})

test('a shadow that is a cache protects, and so do hashes', async () => {
  const ends = async () => {
    expect(await from.client.verify(name)).toMatchObject({ equal: true })
    await until(from, name, ({ epochs }) => (epochs?.checkpoints ?? 0) > 20)
    await kill()
    const { outcome, status } = await turned()
    expect(outcome).toMatchObject(whole)
    // Protection the other way round begins with the same settings.
    await from.client.unprotect(name)
    return status.memory
  }
  const cache = { shadow: { cacheBytes: 16 * 2 ** 20 } }
  expect((await protect(from, name, to, cache)).memory).toMatchObject({ shadow: 'cache' })
  const withCache = await ends()
  expect(withCache).toMatchObject({ shadow: 'cache' })
  expect(withCache?.shadowBytes).toBeLessThan(18 * 2 ** 20)
  const { memory, auxBytes } = await protect(from, name, to, { shadow: 'hash', grainBytes: 256 })
  const hashes = { shadow: 'hash', shadowBytes: Math.ceil((ramBytes + auxBytes) / 16 / 4096) * 4096 }
  expect(memory).toMatchObject(hashes)
  expect(await ends()).toMatchObject(hashes)
})

test('failover by command', async () => {
  await protect(from, name, to)
  expect(await to.client.failover(name)).toMatchObject({ how: 'took-over', reason: 'by command' })
  // The arbiter has granted it, so the copy on the former host has been ended, and that is the standby now.
  expect((await turned()).outcome).toMatchObject({ continued: true, verified: true })
  await from.client.unprotect(name)
  await expect.poll(() => to.client.guest(name).catch((error) => error.code)).toBe('GUEST_UNKNOWN')
})

test('a switchover loses nothing and repeats nothing', async () => {
  await protect(from, name, to)
  await from.client.switchover(name)
  expect((await turned()).outcome).toEqual({ ...whole, repeated: 0 })
  await from.client.unprotect(name)
})

test('a balloon that inflates and deflates leaves the standby equal, and what it holds is taken over', async () => {
  const mib = 2 ** 20
  const balloon = async (to: number) => {
    const qmp = await Qmp.connect(guestFiles(from.stateDirectory, name).observerQmp)
    try {
      await qmp.run('balloon', { value: to })
      const actual = async () => (await qmp.run<{ actual: number }>('query-balloon')).actual
      await expect.poll(actual, { timeout: 60_000 }).toBe(to)
    } finally {
      qmp.close()
    }
  }
  // Memory that the guest has written and freed: what the balloon gives back was not zero, and is zero afterwards.
  const fill = () =>
    inGuest(console, 'dd if=/dev/urandom of=/tmp/fill bs=1M count=24 2>/dev/null; rm /tmp/fill', 60_000)
  const equal = async () => {
    await until(from, name, ({ state }) => state === 'Protected')
    expect(await from.client.verify(name)).toMatchObject({ equal: true })
  }

  await protect(from, name, to, { suspicionMs: 5000 })
  await fill()
  await balloon(ramBytes - 32 * mib)
  await equal()
  await balloon(ramBytes)
  await fill()
  await equal()
  await balloon(ramBytes - 32 * mib)
  await from.client.switchover(name)
  expect((await turned()).outcome).toEqual({ ...whole, repeated: 0 })
  await balloon(ramBytes)
  await equal()
  await from.client.unprotect(name)
}, 140_000)

// QEMU may end in any step of a checkpoint, with commands on their way to it.
test('a guest that powers itself off is not failed over, whatever it interrupts', async () => {
  const random = seededRandom()
  const failovers = async () =>
    (await to.client.recentEvents()).filter(({ kind }) => kind === 'failover').length
  const before = await failovers()
  const powersOff = async (sleeper: string, console: Console, line: string) => {
    await protect(from, sleeper, to, { epochMs: 5 })
    await delay(random.integer(0, 60))
    await typeLine(console, line)
    expect(await until(from, sleeper, ({ state }) => state === 'Ended')).toMatchObject({ pid: null })
    await expect
      .poll(() => to.client.guest(sleeper).catch((error) => error.code), { message: `seed ${random.seed}` })
      .toBe('GUEST_UNKNOWN')
    await from.client.remove(sleeper)
  }
  await powersOff(name, console, 'poweroff')
  // Its end is a reset, which QEMU reports as any other shutdown.
  const options = [...firmwareOptions(hosts.directory, 'sleeper', out(0x64, 0xfe)), '-no-reboot']
  for (let n = 0; n < 6; n++) {
    const tiny = { name: 'sleeper', ramBytes: 32 * 2 ** 20, accel: 'tcg' as const, options }
    const { console } = await from.client.run(tiny)
    await powersOff('sleeper', consoleAt(console), 'x')
  }
  expect(await failovers()).toBe(before)
})
