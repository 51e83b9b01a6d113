/**
 * A protected guest whose memory is held densely where it runs, at full pressure: whatever no checkpoint needs leaves at once, in
 * the pauses of the checkpoints. The keeper, the supervisor and the agent are killed; the image stays equal to the guest, and in the end
 * the guest goes on from it.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { judge } from '../../src/agent/demo.ts'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { askVictim, type Console, consoleAt, victimDamage } from '../../src/qemu/demo-guest.ts'
import { Hosts, killHost, protect, startVictim, supervisorPid, until } from '../support/hosts.ts'
import { subpage } from '../support/subpage.ts'

const hosts = new Hosts()
const full = { recentMs: 0, coldMs: 0, budget: 1 }
let a: EphemeralAgent
let b: EphemeralAgent
let victim: Console

beforeAll(async () => {
  ;[a, b] = await Promise.all([hosts.add('a'), hosts.add('b')])
  victim = (await startVictim(a, 'both')).console
})
afterAll(() => hosts[Symbol.asyncDispose]())

const density = async () => (await a.client.density()).guests[0]
const storedPages = async () => {
  const { pages, resident, holes } = (await density())?.split ?? { pages: 0, resident: 0, holes: 0 }
  return pages - resident - holes
}
const untilStored = () => expect.poll(storedPages, { timeout: 60_000 }).toBeGreaterThan(5_000)
const checkpoints = async () => (await a.client.guest('both')).epochs?.checkpoints ?? 0

const served = async () =>
  Object.values((await density())!.pager!.served).reduce((sum, { pages }) => sum + pages, 0)

/** Pages leave between checkpoints that go on, the victim finds its memory, and the image is equal to it. */
async function denseAndProtected(): Promise<void> {
  await untilStored()
  const before = await checkpoints()
  // Looks at all that it has.
  expect(await askVictim(victim, 60_000)).toBe(true)
  await until(
    a,
    'both',
    ({ state, epochs }) => state === 'Protected' && (epochs?.checkpoints ?? 0) > before + 10,
  )
  expect(await a.client.verify('both')).toMatchObject({ equal: true })
  expect(victimDamage(readFileSync(victim.log, 'latin1'))).toBeUndefined()
}

test('dense first, then protected: both go on, and the image stays equal', async () => {
  await a.client.densityOn('both', full)
  await untilStored()
  const compare = { code: 'TRACKER_UNAVAILABLE', message: expect.stringMatching(/compare .* held densely/) }
  await expect(a.client.protect('both', { to: b.address, tracker: 'compare' })).rejects.toThrow(
    expect.objectContaining(compare),
  )
  await protect(a, 'both', b)
  const servedBefore = await served()
  await denseAndProtected()
  await expect.poll(served, { timeout: 60_000 }).toBeGreaterThan(servedBefore)
  // Much has just come back, to be looked at and compared.
  await expect.poll(async () => (await density())!.savedBytes, { timeout: 60_000 }).toBeGreaterThan(0)
  const { split, standby, pager } = (await density())!
  const { filled, shared, patched, packed, swapped, whole } = split
  expect(filled + shared + patched + packed + swapped + whole + split.resident + split.holes).toBe(
    split.pages,
  )
  expect({ standby, ended: pager!.ended }).toEqual({ standby: false, ended: false })
  expect((await a.client.guest('both')).epochs).toMatchObject({ failed: 0 })
})

test('protected first, then dense: off brings all back beside the checkpoints, on again', async () => {
  await a.client.densityOff('both')
  expect((await a.client.density()).guests).toEqual([])
  // All is compared with the image while the guest runs; until then nothing else can be.
  const equal = async () => (await a.client.verify('both').catch(() => undefined))?.equal
  await expect.poll(equal, { timeout: 60_000 }).toBe(true)
  // A recording maps the memory, and would put zeros in place of what has left: it ends first, in the middle of a long epoch.
  const trace = join(hosts.directory, 'both.trace')
  const recording = ['record', 'vm:both', '--for', '1h', '--epoch', '1h', '--state', a.stateDirectory]
  const recorded = subpage([...recording, '-o', trace])
  const copied = () => readdirSync(hosts.directory).some((file) => file.startsWith('both.trace'))
  await expect.poll(copied, { timeout: 60_000 }).toBe(true)
  await a.client.densityOn('both', full)
  expect(await recorded).toMatchObject({ status: 1, said: expect.stringContaining('GUEST_DENSE') })
  await denseAndProtected()
})

test('the keeper is killed: the next one goes on, and so do the checkpoints', async () => {
  const { keeper } = await a.client.density()
  process.kill(keeper!.pid, 'SIGKILL')
  await denseAndProtected()
  expect((await a.client.density()).keeper!.pid).not.toBe(keeper!.pid)
})

test('the supervisor is killed, then all of the host but the guest: it is protected again, and dense', async () => {
  const pid = await supervisorPid(a, 'both')
  process.kill(pid, 'SIGKILL')
  await until(
    a,
    'both',
    ({ supervisor, state }) => supervisor !== null && supervisor.process !== pid && state === 'Protected',
  )
  await killHost(a)
  a = await hosts.add('a')
  await until(a, 'both', ({ state }) => state === 'Protected')
  await denseAndProtected()
})

test('QEMU is killed: the guest goes on from its standby, and nothing is lost', async () => {
  process.kill((await a.client.guest('both')).pid!, 'SIGKILL')
  const { takeover, console: log } = await until(b, 'both', ({ takeover }) => takeover !== null)
  expect(await judge(victim, consoleAt(log), takeover!.consoleBytes)).toMatchObject({
    continued: true,
    lost: 0,
    verified: true,
  })
})
