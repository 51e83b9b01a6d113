/**
 * Two hosts of one identity are no pair: a host that reaches itself, at once or later, and a copied state directory. The guest
 * runs on.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createConnection, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { type EphemeralAgent, startEphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { Hosts, protect, until } from '../support/hosts.ts'

const idle = { ramBytes: 32 * 2 ** 20, accel: 'tcg' as const, options: [] as string[] }
const same = {
  code: 'PEER_MISMATCH',
  message: expect.stringMatching(/have the same identity, a-[0-9a-f]{8}/),
}

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent
beforeAll(async () => {
  hosts = new Hosts()
  a = await hosts.add('a')
  b = await hosts.add('b')
})
afterAll(async () => hosts[Symbol.asyncDispose]())

test('a host is no standby for itself', async () => {
  await a.client.run({ ...idle, name: 'own' })
  await expect(protect(a, 'own', a)).rejects.toMatchObject(same)
  expect(await a.client.guest('own')).toMatchObject({ role: 'Alone', state: 'Running' })
  await a.client.remove('own')
})

test('nor is one whose state directory is a copy', async () => {
  const copy = join(hosts.directory, 'copy')
  mkdirSync(copy, { mode: 0o700 })
  writeFileSync(join(copy, 'host-id'), readFileSync(join(hosts.directory, 'a', 'host-id')), { mode: 0o600 })
  const twin = await startEphemeralAgent({ stateDirectory: copy, host: 'a', env: {}, prefix: [] })
  hosts.agents.push(twin)
  await a.client.run({ ...idle, name: 'copied' })
  await expect(protect(a, 'copied', twin)).rejects.toMatchObject(same)
  expect(await a.client.guest('copied')).toMatchObject({ role: 'Alone', state: 'Running' })
  expect((await twin.client.status()).guests).toEqual([])
  await a.client.remove('copied')
})

test.each([
  ['with an arbiter', () => b],
  // The machine's own arbiter is another one than a's.
  ['without a common one', () => hosts.add('far', { SUBPAGE_ARBITER: '' })],
])('an address that comes to lead back to the primary does not cost the guest, %s', async (_, standby) => {
  const other = await standby()
  const sockets = new Set<Socket>()
  let target = other.address
  const forwarder = createServer((socket) => {
    const onward = createConnection(target)
    for (const end of [socket, onward]) {
      sockets.add(end)
      end.on('error', () => undefined)
    }
    socket.on('close', () => onward.destroy())
    onward.on('close', () => socket.destroy())
    socket.pipe(onward).pipe(socket)
  })
  const path = join(hosts.directory, `forwarder-${other.address.length}`)
  await new Promise<void>((resolve) => forwarder.listen(path, resolve))
  onTestFinished(() => {
    forwarder.close()
    for (const socket of sockets) socket.destroy()
  })
  const name = `led-${other.address.length}`
  const { pid } = await a.client.run({ ...idle, name })
  await protect(a, name, other, { to: path })
  target = a.address
  for (const socket of sockets) socket.destroy()
  await until(a, name, ({ role, reason }) => role === 'Alone' && /same identity/.test(reason))
  expect(await a.client.guest(name)).toMatchObject({ pid, state: 'Connecting' })
  await a.client.remove(name)
})
