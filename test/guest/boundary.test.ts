/** What fails for one guest is that guest's state: its host goes on with all the others. */
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { addon } from '../../src/memory/native.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { Hosts, idle, killHost, protect, until } from '../support/hosts.ts'

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent

beforeAll(async () => {
  hosts = new Hosts()
  a = await hosts.add('a')
  b = await hosts.add('b')
})

afterAll(async () => hosts[Symbol.asyncDispose]())

test('a takeover whose protection cannot go on keeps its guest, and the others theirs', async () => {
  for (const name of ['one', 'other']) {
    await a.client.run({ ...idle, name })
    // Needs a tracker that names the written pages.
    await protect(a, name, b, { shadow: { cacheBytes: 2 ** 20 } })
  }
  // As a recording does, which has come first.
  const marks = openSync(guestFiles(join(hosts.directory, 'b'), 'one').ram, 'r')
  onTestFinished(() => closeSync(marks))
  expect(addon.lockFile(marks)).toBe(true)
  const pids = await Promise.all(['one', 'other'].map(async (name) => (await a.client.guest(name)).pid ?? 0))
  await killHost(a)
  for (const pid of pids) process.kill(pid, 'SIGKILL')
  const { pid } = await b.client.status()
  for (const name of ['one', 'other']) await until(b, name, ({ takeover }) => takeover !== null)
  expect(await b.client.guest('one')).toMatchObject({
    role: 'Alone',
    state: 'Failed',
    reason: expect.stringMatching(/^protecting it again failed: /),
  })
  expect(await b.client.guest('other')).toMatchObject({ state: 'Connecting', pid: expect.any(Number) })
  expect(
    (await b.client.recentEvents()).filter((event) => /^protecting it again failed/.test(event.text)),
  ).toHaveLength(1)
  expect((await b.client.status()).pid).toBe(pid)
  // It runs, and can be told that this is meant.
  await b.client.unprotect('one')
  expect(await b.client.guest('one')).toMatchObject({ role: 'Alone', state: 'Running' })
  await b.client.remove('one')
  await b.client.remove('other')
  expect((await b.client.status()).guests).toEqual([])
})
