/** `remove` leaves nothing in the list, whatever the guest is, and says what else is to be done. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { exitStatus } from '../../src/errors.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { Hosts, idle, killHost, protect, until } from '../support/hosts.ts'
import { subpage } from '../support/subpage.ts'
import { startTiny } from '../support/tiny-guest.ts'

/** A small guest may end while its removal is under way, or after: each order must leave nothing. */
const times = 5

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent

beforeAll(async () => {
  hosts = new Hosts()
  a = await hosts.add('a')
  b = await hosts.add('b')
})

afterAll(async () => hosts[Symbol.asyncDispose]())

const names = async ({ client }: EphemeralAgent) => (await client.status()).guests.map(({ name }) => name)
const left = (host: string, name: string) => {
  const { directory, ram } = guestFiles(join(hosts.directory, host), name)
  return [directory, ram].filter(existsSync)
}

describe('nothing is listed right after the removal of', () => {
  test('a guest that runs', async () => {
    for (let n = 0; n < times; n++) {
      await a.client.run({ ...idle, name: 'runs' })
      expect(await a.client.remove('runs')).toEqual({ removed: 'runs' })
      expect(await names(a)).toEqual([])
      expect(left('a', 'runs')).toEqual([])
    }
    await expect(a.client.remove('runs')).rejects.toMatchObject({ code: 'GUEST_UNKNOWN' })
  })

  test('a guest that has just been taken over, and then of what its former host begins for it', async () => {
    for (const name of ['moved', 'moved-too', 'moved-as-well']) {
      await a.client.run({ ...idle, name })
      await protect(a, name, b)
      process.kill((await a.client.guest(name)).pid!, 'SIGKILL')
      await until(b, name, ({ takeover }) => takeover !== null)
      await b.client.remove(name)
      // Sooner or later than the two have met in their new roles.
      const rest = async () => [...(await names(a)), ...(await names(b))]
      await expect.poll(async () => [...(await rest()), ...left('a', name), ...left('b', name)]).toEqual([])
    }
  })

  test('a guest that is protected, and then of what the other host had', async () => {
    for (let n = 0; n < times; n++) {
      await a.client.run({ ...idle, name: 'kept' })
      await protect(a, 'kept', b)
      await a.client.remove('kept')
      expect(await names(a)).toEqual([])
      // Whoever cleans up both hosts finds nothing wrong on the second.
      const { out, status } = await subpage(['remove', 'kept', '--state', join(hosts.directory, 'b')])
      expect({ out, status }).toEqual({
        out: expect.stringMatching(
          /^kept removed; kept was gone already: its standby was discarded: the guest ended/,
        ),
        status: 0,
      })
      expect(await names(b)).toEqual([])
      expect([...left('a', 'kept'), ...left('b', 'kept')]).toEqual([])
    }
  })

  test('a guest that has ended, of itself or by a kill', async () => {
    const { pid } = await a.client.run({ ...idle, name: 'ended' })
    process.kill(pid ?? Number.NaN, 'SIGKILL')
    await until(a, 'ended', ({ state }) => state === 'Failed')
    await a.client.remove('ended')
    expect(await names(a)).toEqual([])
    expect(left('a', 'ended')).toEqual([])
  })

  test('a guest that dies at that moment', async () => {
    for (let n = 0; n < times; n++) {
      const { pid } = await a.client.run({ ...idle, name: 'dying' })
      process.kill(pid ?? Number.NaN, 'SIGKILL')
      await a.client.remove('dying')
      expect(await names(a)).toEqual([])
      expect(left('a', 'dying')).toEqual([])
    }
  })
})

test('a standby is refused while its guest runs, and goes when that is gone', async () => {
  await a.client.run({ ...idle, name: 'twin' })
  await protect(a, 'twin', b)
  await expect(b.client.remove('twin')).rejects.toMatchObject({
    code: 'ALREADY_PROTECTED',
    message: expect.stringMatching(/on host a, .*: subpage unprotect twin there first/),
  })
  expect(await until(a, 'twin', ({ state }) => state === 'Protected')).toMatchObject({ role: 'Primary' })
  await killHost(a)
  await until(b, 'twin', ({ state }) => state === 'Connecting')
  const { note } = await b.client.remove('twin')
  expect(note).toMatch(/^host a may begin a new standby of twin here/)
  expect(await names(b)).toEqual([])
  expect(left('b', 'twin')).toEqual([])
  a = await hosts.add('a')
  await until(a, 'twin', ({ state }) => state === 'Protected')
  await a.client.remove('twin')
  expect(await names(a)).toEqual([])
})

test('after a failover both hosts are cleaned up without an error, in either order', async () => {
  for (const first of ['the new primary', 'the new standby']) {
    const { pid } = await a.client.run({ ...idle, name: 'moved' })
    await protect(a, 'moved', b)
    process.kill(pid ?? Number.NaN, 'SIGKILL')
    await until(b, 'moved', ({ role, state }) => role === 'Primary' && state === 'Protected')
    if (first === 'the new standby') {
      await b.client.unprotect('moved')
      await a.client.remove('moved')
    }
    await b.client.remove('moved')
    await a.client.remove('moved').catch(({ code }) => expect(code).toBe('GUEST_UNKNOWN'))
    expect([await names(a), await names(b)]).toEqual([[], []])
  }
})

test('every other command for a standby says where the guest runs, and the command for there', async () => {
  await a.client.run({ ...idle, name: 'waits' })
  await protect(a, 'waits', b)
  const [here, there] = [join(hosts.directory, 'b'), join(hosts.directory, 'a')]
  for (const command of ['protect', 'unprotect', 'switchover', 'verify', 'wss']) {
    const more = command === 'protect' ? ['--to', there] : []
    const { status, said } = await subpage([command, 'vm:waits', ...more, '--state', here])
    expect([status, said]).toEqual([
      exitStatus.notFound,
      expect.stringContaining(
        `waits is a standby here, and runs on host a (${there}): subpage ${command} waits --state ${there} (GUEST_UNKNOWN)`,
      ),
    ])
  }
  const recorded = await subpage(['record', 'waits', '-o', '/dev/null', '--state', here])
  expect(recorded.said).toContain(`record it where it runs (${there}`)
  // These are for both.
  expect((await subpage(['status', 'vm:waits', '--state', here])).status).toBe(exitStatus.ok)
  expect((await subpage(['events', 'waits', '--state', here])).out).toContain('standby Protected')
  expect((await subpage(['density', 'analyze', 'waits', '--state', here])).status).toBe(exitStatus.ok)
  // Where it runs, failover is not what is wanted.
  const failover = await subpage(['failover', 'waits', '--state', there])
  expect(failover.said).toContain('subpage switchover waits moves it')
  await a.client.remove('waits')
}, 120_000)

test('what is to be written down of a guest when it is gone leaves nothing', async () => {
  const directory = join(hosts.directory, 'alone')
  const qemu = await startTiny(directory, 'alone', [])
  await qemu.writeDown({ generation: 2 })
  expect(existsSync(qemu.files.record)).toBe(true)
  await qemu.end()
  // As of an arbiter that answers late.
  await qemu.writeDown({ generation: 3 })
  qemu.updateRecord({ suspended: true })
  expect(existsSync(qemu.files.directory)).toBe(false)
  expect(qemu.record).toMatchObject({ generation: 3, suspended: true })
  expect(qemu.notes.kept).toEqual([])
})
