/**
 * Two hosts of one identity are no pair: a host that reaches itself, at once or later, and a copied state directory. The guest
 * runs on.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createConnection, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { type EphemeralAgent, startEphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { TestCa, tlsEnvironment } from '../support/certificates.ts'
import { Hosts, idle, protect, until } from '../support/hosts.ts'

const leadsHere = {
  code: 'PEER_MISMATCH',
  message: expect.stringMatching(/the address leads to this host, \w+-[0-9a-f]{8}, where \w+ runs itself/),
}
const copied = {
  code: 'PEER_MISMATCH',
  message: expect.stringMatching(/have the same identity, \w+-[0-9a-f]{8}.*delete the file host-id/),
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
  await expect(protect(a, 'own', a)).rejects.toMatchObject(leadsHere)
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
  await expect(protect(a, 'copied', twin)).rejects.toMatchObject(copied)
  expect(await a.client.guest('copied')).toMatchObject({ role: 'Alone', state: 'Running' })
  expect((await twin.client.status()).guests).toEqual([])
  await a.client.remove('copied')
})

/** Passes bytes on to wherever `leadTo` last said, over TCP or a unix socket. */
async function forwarder(first: string, on: string | 0) {
  const sockets = new Set<Socket>()
  let target = first
  const server = createServer((socket) => {
    const [host, port] = target.split(':')
    const onward = target.startsWith('/') ? createConnection(target) : createConnection(Number(port), host)
    for (const end of [socket, onward]) {
      sockets.add(end)
      end.on('error', () => undefined)
    }
    socket.on('close', () => onward.destroy())
    onward.on('close', () => socket.destroy())
    socket.pipe(onward).pipe(socket)
  })
  await new Promise<void>((resolve) =>
    on === 0 ? server.listen(0, '127.0.0.1', resolve) : server.listen(on, resolve),
  )
  const cut = () => {
    for (const socket of sockets) socket.destroy()
  }
  onTestFinished(() => {
    server.close()
    cut()
  })
  const bound = server.address()
  return {
    address: typeof bound === 'string' ? bound : `127.0.0.1:${bound?.port}`,
    leadTo: (address: string) => {
      target = address
      cut()
    },
  }
}

test.each([
  ['with an arbiter', () => b],
  // The machine's own arbiter is another one than a's.
  ['without a common one', () => hosts.add('far', { SUBPAGE_ARBITER: '' })],
])('an address that comes to lead back to the primary does not cost the guest, %s', async (_, standby) => {
  const other = await standby()
  const name = `led-${other.address.length}`
  const path = await forwarder(other.address, join(hosts.directory, `forwarder-${other.address.length}`))
  const { pid } = await a.client.run({ ...idle, name })
  await protect(a, name, other, { to: path.address })
  path.leadTo(a.address)
  await until(a, name, ({ role, reason }) => role === 'Alone' && /leads to this host/.test(reason))
  expect(await a.client.guest(name)).toMatchObject({ pid, state: 'Connecting' })
  // Corrected, it leads to a standby again.
  path.leadTo(other.address)
  await until(a, name, ({ role, state }) => role === 'Primary' && state === 'Protected')
  expect(await a.client.guest(name)).toMatchObject({ pid })
  await a.client.remove(name)
})

test('over TLS, through a TCP forwarder, a host does not take itself for another either', async () => {
  const ca = await TestCa.make(join(hosts.directory, 'ca'))
  const secured = await hosts.add('secured', tlsEnvironment(await ca.files('secured')), '127.0.0.1:0')
  const path = await forwarder(secured.address, 0)
  await secured.client.run({ ...idle, name: 'own' })
  for (const to of [secured.address, path.address]) {
    await expect(protect(secured, 'own', secured, { to })).rejects.toMatchObject(leadsHere)
    expect(await secured.client.guest('own')).toMatchObject({ role: 'Alone', state: 'Running' })
  }
  await secured.client.remove('own')
})
