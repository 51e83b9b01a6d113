/** A real guest protected over mutual TLS: seeded, checkpointed, failed over; and what its files look like meanwhile. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { judge } from '../../src/agent/demo.ts'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { consoleAt } from '../../src/qemu/demo-guest.ts'
import { TestCa, tlsEnvironment } from '../support/certificates.ts'
import { Hosts, idle, killHost, protect, startVictim, until } from '../support/hosts.ts'
import { certificateShown } from '../support/vnc-viewer.ts'

let hosts: Hosts
let alpha: EphemeralAgent
let beta: EphemeralAgent
let mallory: EphemeralAgent
let ca: TestCa

beforeAll(async () => {
  hosts = new Hosts()
  ca = await TestCa.make(join(hosts.directory, 'ca'))
  const otherCa = await TestCa.make(join(hosts.directory, 'other-ca'))
  alpha = await hosts.add('alpha', tlsEnvironment(await ca.files('alpha')), '127.0.0.1:0')
  beta = await hosts.add('beta', tlsEnvironment(await ca.files('beta')), '127.0.0.1:0')
  mallory = await hosts.add('mallory', tlsEnvironment(await otherCa.files('mallory')), '127.0.0.1:0')
})
afterAll(async () => hosts[Symbol.asyncDispose]())

test('a guest is protected and survives over mutual TLS', async () => {
  const { console, status } = await startVictim(alpha, 'guarded')
  await protect(alpha, 'guarded', beta)
  expect(await alpha.client.verify('guarded')).toMatchObject({ equal: true })
  // Who the primary is comes from its certificate.
  expect(await beta.client.guest('guarded')).toMatchObject({ role: 'Standby', peerHost: 'alpha' })

  expect(exposed(dirname(status.console), status.pid)).toEqual([])
  const waiting = await beta.client.guest('guarded')
  expect(exposed(dirname(waiting.console), waiting.pid)).toEqual([])

  process.kill(status.pid ?? Number.NaN, 'SIGKILL')
  const taken = await until(beta, 'guarded', ({ takeover }) => takeover !== null)
  expect(await judge(console, consoleAt(taken.console), taken.takeover?.consoleBytes ?? 0)).toMatchObject({
    continued: true,
    lost: 0,
    verified: true,
  })
  await beta.client.remove('guarded')
})

test('a host of another CA gets nowhere, in either direction', async () => {
  await startVictim(alpha, 'sought')
  await expect(alpha.client.protect('sought', { to: mallory.address })).rejects.toMatchObject({
    code: 'AUTH_REFUSED',
    message: expect.stringMatching(/not trusted.*not of the CA/),
  })
  expect(await alpha.client.guest('sought')).toMatchObject({ role: 'Alone', state: 'Running' })
  const heard = async (agent: EphemeralAgent) =>
    (await agent.client.recentEvents()).filter(({ kind }) => kind === 'refused').map(({ text }) => text)
  await expect.poll(() => heard(mallory)).not.toEqual([])
  await alpha.client.remove('sought')
})

test('an encrypted screen shows the certificate of the host where the guest is, a renewed one too', async () => {
  const password = 'sesame'
  const vnc = { address: '127.0.0.1', password, tls: true } as const
  const status = await alpha.client.run({ ...idle, name: 'shown', vnc })
  expect(status.vnc).toMatchObject({ encrypted: true })
  const names = await certificateShown(status)
  expect(names.CN).toBe('alpha')
  await protect(alpha, 'shown', beta)
  expect((await certificateShown(await beta.client.guest('shown'))).CN).toBe('beta')
  process.kill(status.pid!, 'SIGKILL')
  const taken = await until(beta, 'shown', ({ takeover }) => takeover !== null)
  const serial = async () => (await certificateShown(taken)).serial
  const first = await serial()
  await ca.files('beta')
  await expect.poll(serial, { timeout: 30_000 }).not.toBe(first)

  // Of a renewal while nothing of ours runs the guest's QEMU hears as well.
  const second = await serial()
  await killHost(beta)
  const renewed = tlsEnvironment(await ca.files('beta'))
  beta = await hosts.add('beta', renewed, '127.0.0.1:0')
  await expect.poll(serial, { timeout: 30_000 }).not.toBe(second)
  await beta.client.remove('shown')
})

test('a guest with files that are not for guests is not started', async () => {
  await expect(
    alpha.client.run({ name: 'nosy', ramBytes: 2 ** 28, accel: 'tcg', options: ['-kernel', '/etc/passwd'] }),
  ).rejects.toMatchObject({ code: 'GUEST_UNPROTECTABLE', message: expect.stringMatching(/--images/) })
})

/** What of a guest others on this host could open, and what of our environment its QEMU was given. */
function exposed(directory: string, pid: number | null): string[] {
  const ram =
    readFileSync(`/proc/${pid}/maps`, 'latin1').match(/\/dev\/shm\/subpage-\S+/)?.[0] ?? 'no RAM file'
  const files = [...readdirSync(directory).map((name) => join(directory, name)), ram]
  const open = files.filter((path) => (statSync(path).mode & 0o077) !== 0)
  const given = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0')
  return [...open, ...given.filter((text) => /TLS|TOKEN|PASSWORD|ETCD/.test(text))]
}
