/**
 * A guest through an arbiter that was put back to an older state: while it does not know what was decided it decides nothing, people
 * can go on, and when the hosts have met again it decides as before. One copy at every moment.
 */
import { cpSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import type { GuestStatus } from '../../src/agent/status.ts'
import { askVictim, consoleAt } from '../../src/qemu/demo-guest.ts'
import { Hosts, killHost, protect, startVictim, until } from '../support/hosts.ts'

const hosts = new Hosts()
const [live, backup] = ['arbiter', 'backup'].map((name) => join(hosts.directory, name)) as [string, string]
let a: EphemeralAgent
let b: EphemeralAgent

beforeAll(async () => {
  ;[a, b] = [await hosts.add('a'), await hosts.add('b')]
})
afterAll(() => hosts[Symbol.asyncDispose]())

/** As when the power of a host fails: all that is subpage's, and its guest. */
async function lose(agent: EphemeralAgent, { pid }: GuestStatus): Promise<void> {
  await killHost(agent)
  process.kill(pid!, 'SIGKILL')
}

/** From a backup, with the directory itself staying as it is. */
function restore(): void {
  for (const name of readdirSync(live)) rmSync(join(live, name), { recursive: true })
  cpSync(backup, live, { recursive: true, preserveTimestamps: true })
}

const primary = ({ role, state }: GuestStatus) => role === 'Primary' && state === 'Protected'
const whole = (status: GuestStatus) => askVictim(consoleAt(status.console))

test('decides nothing that it has forgotten, until the hosts have met again', async () => {
  await startVictim(a, 'web')
  await protect(a, 'web', b)
  cpSync(live, backup, { recursive: true })
  await a.client.switchover('web')
  const onB = await until(b, 'web', primary)
  expect(onB.generation).toBe(2)
  restore()
  await lose(b, onB)

  const undecided = /does not remember generation 2|restored or set up anew/
  const waiting = await until(a, 'web', ({ reason }) => undecided.test(reason))
  expect(waiting).toMatchObject({ role: 'Standby', committed: { epoch: expect.any(Number) } })
  await expect(a.client.failover('web', false)).rejects.toMatchObject({
    code: 'ARBITER_UNREACHABLE',
    message: expect.stringMatching(undecided),
  })
  expect(await a.client.failover('web', true)).toMatchObject({ how: 'took-over' })
  expect(await whole(await until(a, 'web', ({ role }) => role !== 'Standby'))).toBe(true)

  b = await hosts.add('b')
  const onA = await until(a, 'web', primary)
  expect(onA.generation).toBeGreaterThan(2)
  await lose(a, onA)
  const again = await until(b, 'web', ({ takeover }) => takeover !== null)
  expect(again.generation).toBeGreaterThan(onA.generation)
  expect(await whole(again)).toBe(true)
  // Its next agent clears away what the lost one has left.
  a = await hosts.add('a')
  await until(b, 'web', primary)
})
