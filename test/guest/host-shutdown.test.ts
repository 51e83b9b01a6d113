/**
 * A host is shut down in an orderly way, as `reboot` does it: its agent is told to end, then the guests' QEMUs die. The guest
 * goes on from the other host's copy. If only the agent is restarted, as for an upgrade, nobody takes anything over.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { judge } from '../../src/agent/demo.ts'
import { consoleAt } from '../../src/qemu/demo-guest.ts'
import { startVictim, until } from '../support/hosts.ts'
import { subpage } from '../support/subpage.ts'
import { TwoHosts } from '../support/two-hosts.ts'

const name = 'moved'
let hosts: TwoHosts
beforeAll(async () => {
  hosts = await TwoHosts.make()
})
afterAll(async () => hosts[Symbol.asyncDispose]())

test('the agent is stopped and comes back, then it is stopped and its QEMU dies', {
  timeout: 180_000,
}, async () => {
  const [a, b] = hosts.hosts
  let atA = await a.start()
  const atB = await b.start()
  const { console } = await startVictim(atA, name)
  await atA.client.protect(name, { to: `${b.reached}:7475` })
  await until(atA, name, ({ state }) => state === 'Protected')

  const stop = async () => {
    await a.endAll('SIGTERM')
    expect(atA.process.exitCode).toBe(0)
  }
  const { generation, pid } = await atA.client.guest(name)
  await stop()
  atA = await a.start()
  await until(atA, name, ({ role, state }) => role === 'Primary' && state === 'Protected')
  expect(await atA.client.guest(name)).toMatchObject({ pid, generation })
  expect(await atA.client.verify(name)).toMatchObject({ equal: true })
  expect((await atB.client.recentEvents()).filter(({ kind }) => kind === 'failover')).toEqual([])

  await stop()
  process.kill(pid ?? Number.NaN, 'SIGKILL')
  const taken = await until(atB, name, ({ takeover }) => takeover !== null)
  expect(taken).toMatchObject({ role: 'Alone', generation: generation + 1 })
  const outcome = await judge(console, consoleAt(taken.console), taken.takeover?.consoleBytes ?? 0)
  expect(outcome).toMatchObject({ continued: true, lost: 0, verified: true })
  // The host that was shut down becomes the standby when it is back.
  atA = await a.start()
  await until(atB, name, ({ role, state }) => role === 'Primary' && state === 'Protected')
  // Moved away first, nothing is lost and nothing repeated.
  const drained = await subpage(['drain', '--state', b.stateDirectory])
  expect({ status: drained.status, out: drained.out }).toEqual({ status: 0, out: `${name} moved\n` })
  await until(atA, name, ({ takeover }) => takeover?.reason === 'switched over from the primary')
  await until(atA, name, ({ role, state }) => role === 'Primary' && state === 'Protected')
  expect((await subpage(['drain', '--state', b.stateDirectory])).out).toBe('no guest runs here\n')
  await atA.client.remove(name)
})
