/**
 * Somebody cleans up /dev/shm while guests run, as the end of a session does: the file of their RAM has no name any more, or
 * another file has it. Their memory lasts as long as their processes, and everything goes on.
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { isRamUnlinked, ramPathOf } from '../../src/memory/ram-path.ts'
import { memoryBytes } from '../../src/qemu/aux-ram.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { readRecord } from '../../src/qemu/guest-record.ts'
import { Hosts, idle, killHost, protect, until } from '../support/hosts.ts'
import { subpage } from '../support/subpage.ts'

const hosts = new Hosts()
const stateOf = (host: string) => join(hosts.directory, host)
let a: EphemeralAgent
let b: EphemeralAgent

const filesOf = (host: string, name: string) => guestFiles(stateOf(host), name)
const removed = /its RAM file was removed by somebody else/

beforeAll(async () => {
  a = await hosts.add('a')
  b = await hosts.add('b')
  for (const name of ['bare', 'held']) await a.client.run({ ...idle, name })
  await protect(a, 'held', b)
  rmSync(filesOf('a', 'bare').ram)
  for (const host of ['a', 'b']) {
    const { ram } = filesOf(host, 'held')
    rmSync(ram)
    // Another file of this name is not its memory.
    writeFileSync(ram, Buffer.alloc(idle.ramBytes, 7))
  }
})
afterAll(() => hosts[Symbol.asyncDispose]())

async function restart(): Promise<void> {
  await killHost(a)
  a = await hosts.add('a')
}

test('it is said, and protection goes on', async () => {
  expect((await until(a, 'bare', ({ reason }) => removed.test(reason))).state).toBe('Running')
  await until(a, 'held', ({ reason, state }) => state === 'Protected' && removed.test(reason))
  await until(b, 'held', ({ reason, state }) => state === 'Protected' && removed.test(reason))
  expect(
    (await a.client.recentEvents()).filter(({ text }) => /RAM file .* was removed/.test(text)),
  ).toHaveLength(2)
  expect(await a.client.verify('held')).toMatchObject({ equal: true })
})

test('memory is found through the process, and by its name only while that is right', () => {
  for (const name of ['bare', 'held']) {
    const { process, machine } = readRecord(filesOf('a', name))!
    const { pid } = process
    const { ram } = filesOf('a', name)
    expect(isRamUnlinked(pid, ram)).toBe(true)
    expect(ramPathOf(pid, ram)).toMatch(new RegExp(`^/proc/${pid}/fd/\\d+$`))
    // Firmware lies at the end of the first MiB.
    const found = readFileSync(ramPathOf(pid, ram))
    expect(found.length).toBe(memoryBytes(machine))
    expect(found.subarray(0xe0000, 0x100000).some((byte) => byte !== 0 && byte !== 7)).toBe(true)
  }
})

test('wss, record, density analyze and density go on', async () => {
  const watching = await subpage([
    'wss',
    'bare',
    '--for',
    '1s',
    '--interval',
    '200ms',
    '--state',
    stateOf('a'),
  ])
  expect(watching.said).not.toMatch(/INTERNAL|no such file/)
  expect(watching.status).toBe(0)
  const trace = join(hosts.directory, 'trace')
  const recorded = await subpage([
    'record',
    'vm:bare',
    '--for',
    '300ms',
    '-o',
    trace,
    '--state',
    stateOf('a'),
  ])
  expect(recorded).toMatchObject({ status: 0 })
  expect(existsSync(trace)).toBe(true)
  expect(await subpage(['density', 'analyze', 'vm:bare', '--state', stateOf('a')])).toMatchObject({
    status: 0,
  })
  await a.client.densityOn('bare', { recentMs: 0, coldMs: 0, budget: 1 })
  const stored = async () => {
    const split = (await a.client.density()).guests.find(({ name }) => name === 'bare')?.split
    return split ? split.pages - split.resident : 0
  }
  await expect.poll(stored, { timeout: 30_000 }).toBeGreaterThan(1_000)
  await a.client.densityOff('bare')
})

test('the next agent finds the guests, and goes on protecting them', async () => {
  const { pid } = await a.client.guest('bare')
  await restart()
  expect(await a.client.guest('bare')).toMatchObject({ state: 'Running', pid })
  await until(a, 'held', ({ state }) => state === 'Protected')
  expect(await a.client.verify('held')).toMatchObject({ equal: true })
  await protect(a, 'bare', b)
  expect(await a.client.verify('bare')).toMatchObject({ equal: true })
})

test('failover: the standby takes over, and is protected the other way round', async () => {
  for (const name of ['bare', 'held']) {
    process.kill((await a.client.guest(name)).pid!, 'SIGKILL')
    await until(b, name, ({ role, state }) => role === 'Primary' && state === 'Protected')
    expect(await b.client.verify(name)).toMatchObject({ equal: true })
    await b.client.remove(name)
  }
  for (const host of ['a', 'b']) expect(existsSync(filesOf(host, 'bare').ram)).toBe(false)
})
