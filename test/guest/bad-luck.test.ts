/** Bad luck of a protected guest, on real QEMU with real agents: each ends in a clean recovery, and no guest is left paused. */
import { closeSync, existsSync, openSync, readSync, writeSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { errorTable, exitStatus } from '../../src/errors.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { askVictim, type Console } from '../../src/qemu/demo-guest.ts'
import { readRecord } from '../../src/qemu/guest-record.ts'
import { isRunning } from '../../src/qemu/process.ts'
import {
  Hosts,
  idle,
  killHost,
  protect,
  runState,
  signalHost,
  startVictim,
  supervisorPid,
  until,
} from '../support/hosts.ts'
import { processesWith } from '../support/processes.ts'
import { seededRandom } from '../support/random.ts'
import { untilStill } from '../support/stand-still.ts'
import { subpage } from '../support/subpage.ts'
import { traces } from '../support/traces.ts'

const random = seededRandom()
const mib = 2 ** 20

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent

beforeAll(async () => {
  hosts = new Hosts()
  a = await hosts.add('a')
  b = await hosts.add('b')
})

afterAll(async () => hosts[Symbol.asyncDispose]())

const { stateOf, filesOf, expectNothingOf } = traces(() => hosts)

/** Starts an agent again where one was. */
const restart = (host: string, env: Record<string, string> = {}) => hosts.add(host, env)

describe('a protected guest', () => {
  const name = 'wanted'
  let console: Console

  beforeAll(async () => {
    ;({ console } = await startVictim(a, name))
    await protect(a, name, b)
  })

  /** Protected again, by itself, with an image that is equal, and a guest that found nothing wrong. */
  async function expectProtected(): Promise<void> {
    const status = await until(a, name, ({ role, state }) => role === 'Primary' && state === 'Protected')
    expect(status.pid).not.toBeNull()
    expect(await a.client.verify(name), `seed ${random.seed}`).toMatchObject({ equal: true })
    expect(processesWith(filesOf('b', name).ram)).toHaveLength(1)
  }

  /** When the lease of a pause is over, after 2 s, the guard lets the guest run. */
  const untilRunning = () =>
    expect.poll(() => runState(filesOf('a', name)), { timeout: 10_000, interval: 50 }).toBe('running')

  test('is not protected twice', async () => {
    // As this QEMU takes `q35`: one of another version may be its standby's.
    expect(readRecord(filesOf('a', name))!.machine.type).toMatch(/^pc-q35-\d/)
    for (const to of [b, a])
      await expect(protect(a, name, to)).rejects.toMatchObject({
        code: 'ALREADY_PROTECTED',
        message: expect.stringContaining(b.address),
      })
    await expect(b.client.run({ ...idle, name })).rejects.toMatchObject({ code: 'GUEST_EXISTS' })
    await expectProtected()
    for (const host of ['a', 'b'])
      expect((await subpage(['status', name, '--state', stateOf(host)])).status).toBe(exitStatus.ok)
  })

  test('is protected again at once, though its former standby is slow to go', async () => {
    const { pid } = await b.client.guest(name)
    process.kill(pid!, 'SIGSTOP')
    await a.client.unprotect(name)
    // Its QEMU answers nothing: it is still being ended.
    expect(existsSync(`/proc/${pid}`)).toBe(true)
    await protect(a, name, b)
    expect(existsSync(`/proc/${pid}`)).toBe(false)
    await expectProtected()
  })

  test('verify finds a single byte', async () => {
    // Kernel text, which nobody writes: page and line are chosen within it.
    const [page, line] = [(16 * mib) / pageBytes + random.integer(16, 256), random.integer(0, 63)]
    const at = page * pageBytes + line * 64 + random.integer(0, 63)
    const image = openSync(filesOf('b', name).ram, 'r+')
    const byte = Buffer.alloc(1)
    readSync(image, byte, 0, 1, at)
    writeSync(image, Buffer.from([byte[0]! ^ 1]), 0, 1, at)
    const { status, out } = await subpage(['verify', name, '--state', stateOf('a')])
    writeSync(image, byte, 0, 1, at)
    closeSync(image)
    expect({ status, out }).toEqual({
      status: errorTable.IMAGE_DIFFERS.exit,
      out: expect.stringContaining(`DIFFERENT: page ${page}, line ${line} of the image`),
    })
    await expectProtected()
  })

  test('whose agent and supervisor are killed at any moment goes on', async () => {
    for (let n = 0; n < 3; n++) {
      await killHost(a)
      // Also without waiting for the guard.
      if (n > 0) await untilRunning()
      a = await restart('a')
      await expectProtected()
      await new Promise((resolve) => setTimeout(resolve, random.integer(0, 100)))
    }
  })

  test('whose supervisor stands still within a pause does not stand still with it', async () => {
    await killHost(a)
    a = await restart('a', { SUBPAGE_FAULT: `after-harvest:${random.integer(5, 60)}=stop` })
    const pid = await supervisorPid(a, name)
    await untilStill(pid)
    await untilRunning()
    process.kill(pid, 'SIGCONT')
    await expectProtected()
  })

  test('whose standby stands still for a while goes on, and is not taken over by it', async () => {
    signalHost(b, 'SIGSTOP')
    await until(a, name, ({ state }) => state === 'Connecting')
    const { status, out } = await subpage(['status', name, '--json'], { SUBPAGE_STATE: stateOf('a') })
    expect(JSON.parse(out)).toMatchObject({ name, state: 'Connecting' })
    expect([exitStatus.degraded, exitStatus.notProtected]).toContain(status)
    await untilRunning()
    signalHost(b, 'SIGCONT')
    await expectProtected()
    expect((await b.client.recentEvents()).filter(({ kind }) => kind === 'failover')).toEqual([])
  })

  test('whose standby loses all but its QEMU goes on, and gets another', async () => {
    const { pid } = await b.client.guest(name)
    await killHost(b)
    await until(a, name, ({ state }) => state === 'Connecting')
    await untilRunning()
    b = await restart('b')
    await expectProtected()
    expect((await b.client.guest(name)).pid).not.toBe(pid)
  })

  test('whose standby is killed says so, goes on, and gets another', async () => {
    const { pid } = await b.client.guest(name)
    process.kill(pid ?? Number.NaN, 'SIGKILL')
    await until(a, name, ({ state }) => state === 'Connecting')
    await expectProtected()
    const events = await b.client.recentEvents()
    expect(events.map(({ text }) => text).join('\n')).toMatch(/the waiting QEMU ended/)
  })

  test('whose hosts both lose all but the guest goes on', async () => {
    await Promise.all([killHost(a), killHost(b)])
    await untilRunning()
    b = await restart('b')
    a = await restart('a')
    await expectProtected()
    expect(await askVictim(console)).toBe(true)
  })

  test('that is killed while nobody watches it continues on the other host', async () => {
    const record = readRecord(filesOf('a', name))!
    await killHost(a)
    process.kill(record.process.pid, 'SIGKILL')
    const taken = await until(b, name, ({ takeover }) => takeover !== null)
    expect(isRunning(record.process)).toBe(false)
    expect(await askVictim({ log: taken.console, socket: filesOf('b', name).console })).toBe(true)
    // Its former host becomes the standby.
    a = await restart('a')
    await until(b, name, ({ role, state }) => role === 'Primary' && state === 'Protected')
    expect(await a.client.guest(name)).toMatchObject({ role: 'Standby' })
    expect(await b.client.verify(name)).toMatchObject({ equal: true })
    await b.client.remove(name)
    await expect.poll(() => a.client.guest(name).catch(({ code }) => code)).toBe('GUEST_UNKNOWN')
    expectNothingOf('b', name)
    expectNothingOf('a', name)
  })
})
