/** State directories with names of all kinds, and by several names: guests run, are protected, recorded, found again and taken over. */
import { existsSync, symlinkSync } from 'node:fs'
import { basename, join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { type EphemeralAgent, startEphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { Hosts, idle, killHost, protect, until } from '../support/hosts.ts'
import { subpage } from '../support/subpage.ts'

const hosts = new Hosts()
afterAll(() => hosts[Symbol.asyncDispose]())

async function start(stateDirectory: string, host: string): Promise<EphemeralAgent> {
  const agent = await startEphemeralAgent({ stateDirectory, host })
  hosts.agents.push(agent)
  return agent
}

test('spaces, colons, commas, quotes, dollars, equals signs and letters of all kinds; by a link and by itself', async () => {
  const odd = join(hosts.directory, `a b:c,,d='"$LIB=ä`)
  // A link itself is refused as a state directory; one that leads to it is not.
  const parent = join(hosts.directory, 'link')
  symlinkSync(hosts.directory, parent)
  await expect(start(parent, 'a')).rejects.toThrow(/is a link, not a directory/)
  const link = join(parent, basename(odd))
  let a = await start(link, 'a')
  const b = await start(join(hosts.directory, 'o:t,h er'), 'b')
  await a.client.run({ ...idle, name: 'g' })
  await protect(a, 'g', b)
  const { pid } = await a.client.guest('g')
  // The agent by its link, the command by the directory.
  const trace = join(hosts.directory, 'trace')
  const recorded = await subpage(['record', 'vm:g', '--for', '100ms', '-o', trace, '--state', `${odd}/`])
  expect(recorded).toMatchObject({ status: 0 })
  expect(await subpage(['density', 'analyze', 'vm:g', '--state', odd])).toMatchObject({ status: 0 })
  await killHost(a)
  a = await start(odd, 'a')
  expect(await until(a, 'g', ({ state }) => state === 'Protected')).toMatchObject({ pid })
  expect(await a.client.verify('g')).toMatchObject({ equal: true })
  expect(guestFiles(link, 'g').ram).toBe(guestFiles(odd, 'g').ram)
  process.kill(pid!, 'SIGKILL')
  await until(b, 'g', ({ role, state }) => role === 'Primary' && state === 'Protected')
  await b.client.remove('g')
  await expect.poll(() => existsSync(guestFiles(odd, 'g').ram)).toBe(false)
})

test('a path that is too long for sockets is refused before anything is made', async () => {
  const long = join(hosts.directory, 'x'.repeat(90))
  const { status, said } = await subpage(['agent', '--state', long])
  expect(status).toBe(2)
  expect(said).toMatch(/has \d+ bytes, and the path of a socket at most 107: choose a shorter --state/)
  expect(existsSync(long)).toBe(false)
  expect(await subpage(['status', '--state', long])).toMatchObject({ status: 2 })
})
