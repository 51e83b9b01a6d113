/** One guest that the keeper cannot serve keeps no other one from it, and is tried again. Real processes as guests. */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { afterEach, expect, test, vi } from 'vitest'
import { EventLog } from '../../src/agent/event-log.ts'
import { makeOwnedDirectory } from '../../src/agent/owned-directory.ts'
import type { DenseOwner } from '../../src/agent/supervisor/dense-guest.ts'
import { HostDensity } from '../../src/agent/supervisor/host-density.ts'
import { KeeperClient } from '../../src/density/keeper-client.ts'
import { SubpageError } from '../../src/errors.ts'
import { Region } from '../../src/memory/region.ts'
import { identify } from '../../src/qemu/process.ts'
import { type Victim, Victims } from '../tracking/victim.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

/** A guest as HostDensity sees it, that is dense already and whose memory nobody watches. */
function ownerOf(victim: Victim, name: string, ram: Region): DenseOwner {
  const qemu = {
    record: {
      ...{ id: name, name, waiting: false, process: identify(victim.pid) },
      density: { recentMs: 1_000, coldMs: 1_000, budget: 0.01 },
    },
    files: { ram: victim.target.ramPath, shimStatus: victim.statusPath, lease: '' },
    ram,
  }
  return {
    ...{ name, qemu, protecting: false, unmovable: undefined, hotMap: undefined },
    watchMemory: () => () => undefined,
    seen: () => undefined,
    whileStill: async () => undefined,
    becomeWhole: async (work: () => Promise<void>) => await work(),
  } as unknown as DenseOwner
}

test('a guest whose faults cannot be served leaves the keeper to the others, until it can be', async () => {
  const victims = new Victims()
  cleanups.push(() => victims.close())
  const directory = makeOwnedDirectory('subpage-test-density-', '/dev/shm')
  cleanups.push(() => rmSync(directory, { recursive: true, force: true }))
  const events = new EventLog()
  const density = new HostDensity(directory, events, undefined)
  cleanups.push(() => density.close())
  const [bad, good] = [await victims.start({ pages: 64 }), await victims.start({ pages: 64 })]
  const whole = readFileSync(bad.statusPath)
  writeFileSync(bad.statusPath, JSON.stringify({ tracking: 'ok', kind: 'user', uffd: 5 }))
  for (const [victim, name] of [
    [bad, 'bad'],
    [good, 'good'],
  ] as const) {
    const ram = Region.map(victim.target.ramPath, { writable: true })
    cleanups.push(() => ram.close())
    density.resume(ownerOf(victim, name, ram))
  }
  const served = async () => (await density.status())?.guests.map(({ id }) => id).sort()
  await expect.poll(served).toEqual(['good'])
  expect(events.recent().map(({ guest, text }) => `${guest}: ${text}`)).toContainEqual(
    expect.stringMatching(/^bad: page faults of process \d+ cannot be served/),
  )
  const one = await density.keeper()
  writeFileSync(bad.statusPath, whole)
  await expect.poll(served).toEqual(['bad', 'good'])
  // All of it over one connection.
  expect(await density.keeper()).toBe(one)
  expect(one).toBeInstanceOf(KeeperClient)
  for (const victim of [bad, good]) await victim.kill()
  for (const id of ['bad', 'good']) await one.ask('forget', { id })
  // It has nobody to serve and nobody connected, so it ends, and takes its store along.
  await density.close()
  const tag = createHash('sha256').update(directory).digest('hex').slice(0, 8)
  await expect.poll(() => existsSync(`/dev/shm/subpage-${tag}-density`)).toBe(false)
})

test('a connection to a keeper that fails while guests are handed to it is not left open', async () => {
  const victims = new Victims()
  cleanups.push(() => victims.close())
  const directory = makeOwnedDirectory('subpage-test-density-', '/dev/shm')
  cleanups.push(() => rmSync(directory, { recursive: true, force: true }))
  const density = new HostDensity(directory, new EventLog(), undefined)
  cleanups.push(() => density.close())
  const victim = await victims.start({ pages: 64 })
  const ram = Region.map(victim.target.ramPath, { writable: true })
  cleanups.push(() => ram.close())
  const { ask } = KeeperClient.prototype
  const failing: KeeperClient[] = []
  const spy = vi.spyOn(KeeperClient.prototype, 'ask').mockImplementation(function (
    this: KeeperClient,
    ...question
  ) {
    if (question[0] !== 'attach' || failing.length >= 3) return ask.apply(this, question) as never
    failing.push(this)
    return Promise.reject(new SubpageError('KEEPER_FAILED', 'it is about to end')) as never
  })
  cleanups.push(() => spy.mockRestore())
  density.resume(ownerOf(victim, 'one', ram))
  await expect.poll(async () => (await density.status())?.guests.map(({ id }) => id)).toEqual(['one'])
  expect(failing).toHaveLength(3)
  let closed = 0
  for (const client of failing) void client.closed.then(() => closed++)
  await expect.poll(() => closed).toBe(3)
  await victim.kill()
  await (await density.keeper()).ask('forget', { id: 'one' })
})

test('a keeper that keeps a guest paused, which a new supervisor finds so, is ended, and the next one serves the guest', async () => {
  const victims = new Victims()
  cleanups.push(() => victims.close())
  const directory = makeOwnedDirectory('subpage-test-density-', '/dev/shm')
  cleanups.push(() => rmSync(directory, { recursive: true, force: true }))
  const events = new EventLog()
  const density = new HostDensity(directory, events, undefined)
  cleanups.push(() => density.close())
  const victim = await victims.start({ pages: 64 })
  const ram = Region.map(victim.target.ramPath, { writable: true })
  cleanups.push(() => ram.close())
  density.resume(ownerOf(victim, 'one', ram))
  const served = async () => (await density.status())?.guests.map(({ id }) => id)
  await expect.poll(served).toEqual(['one'])
  const first = await density.keeper()
  // One that answers, and pauses nobody, stays.
  await density.endIfStuck(false)
  expect(await density.keeper()).toBe(first)
  await density.endIfStuck(true)
  await first.closed
  await expect.poll(served).toEqual(['one'])
  expect(await density.keeper()).not.toBe(first)
  expect(events.recent().map(({ text }) => text)).toContainEqual(
    expect.stringMatching(
      /^the keeper of dense memory hung and was ended \(it kept a guest paused for \d+ s\); a new one is started$/,
    ),
  )
  await victim.kill()
  await (await density.keeper()).ask('forget', { id: 'one' })
})
