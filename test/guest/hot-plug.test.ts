/**
 * Devices and media that somebody changes while a guest is protected: its standby could not take it over as it is now. Seen at the next
 * checkpoint, or within a second; the guest goes on alone, and is protected again once that was taken back.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { Qmp } from '../../src/qemu/qmp.ts'
import { Hosts, idle, protect, supervisorPid, until } from '../support/hosts.ts'
import { subpage } from '../support/subpage.ts'

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent
let others: Qmp

const medium = (name: string) => join(hosts.directory, name)

beforeAll(async () => {
  hosts = new Hosts()
  const images = { SUBPAGE_IMAGES: hosts.directory }
  ;[a, b] = [await hosts.add('a', images), await hosts.add('b', images)]
  for (const name of ['one.iso', 'other.iso']) writeFileSync(medium(name), Buffer.alloc(1 << 20))
  const devices = ['qemu-xhci,id=usb', 'virtio-serial-pci', 'ide-cd,id=cd,drive=disc']
  await a.client.run({
    ...{ ...idle, name: 'web' },
    options: [
      ...['-smp', '1,maxcpus=2', '-drive', `if=none,id=disc,media=cdrom,file=${medium('one.iso')}`],
      ...devices.flatMap((device) => ['-device', device]),
    ],
  })
  others = await Qmp.connect(guestFiles(a.stateDirectory, 'web').observerQmp)
})

afterAll(async () => {
  others.close()
  await hosts[Symbol.asyncDispose]()
})

const failed = () => until(a, 'web', ({ state }) => state === 'Failed')
const again = () => until(a, 'web', ({ state, role }) => state === 'Protected' && role === 'Primary')

const plugged = [
  {
    what: 'a device with a state',
    plug: () => others.run('device_add', { driver: 'usb-kbd', id: 'keys', bus: 'usb.0' }),
    unplug: () => others.run('device_del', { id: 'keys' }),
    reason: /it has now: .*usb-kbd/,
  },
  {
    what: 'a device without a state of its own',
    plug: async () => {
      await others.run('chardev-add', { id: 'nothing', backend: { type: 'null', data: {} } })
      await others.run('device_add', { driver: 'virtserialport', id: 'port', chardev: 'nothing' })
    },
    unplug: () => others.run('device_del', { id: 'port' }),
    reason: /it has now: device port \(virtserialport\)/,
  },
  {
    what: 'another medium',
    plug: () => others.run('blockdev-change-medium', { id: 'cd', filename: medium('other.iso') }),
    unplug: () => others.run('blockdev-change-medium', { id: 'cd', filename: medium('one.iso') }),
    reason: /it has now: drive disc with .*other\.iso; it has no more: drive disc with .*one\.iso/,
  },
]

test.each(plugged)(
  '$what is noticed, named, and followed by protection again',
  async (change) => {
    if (!(await a.client.guest('web')).peer) await protect(a, 'web', b)
    await change.plug()
    const status = await failed()
    expect(status).toMatchObject({ role: 'Alone', outputs: 'held' })
    expect(status.reason).toMatch(change.reason)
    expect((await a.client.recentEvents()).map(({ text }) => text)).toContainEqual(
      expect.stringMatching(/^Failed: the guest has other devices than its standby/),
    )
    await expect.poll(async () => (await b.client.status()).guests.length).toBe(0)
    await change.unplug()
    await again()
    expect(await a.client.verify('web')).toMatchObject({ equal: true })
  },
  30_000,
)

test("memory that is not the guest's is none of its file to the next supervisor", async () => {
  await others.run('object-add', { 'qom-type': 'memory-backend-ram', id: 'idle', size: 1 << 20 })
  const before = await supervisorPid(a, 'web')
  process.kill(before, 'SIGKILL')
  await until(a, 'web', ({ supervisor }) => supervisor !== null && supervisor.process !== before)
  await again()
  expect(await a.client.verify('web')).toMatchObject({ equal: true })
  await others.run('object-del', { id: 'idle' })
})

test('another processor is noticed, said by doctor, and refuses a new protection', async () => {
  const [{ type, props }] = (
    await others.run<{ type: string; props: object; 'qom-path'?: string }[]>('query-hotpluggable-cpus')
  ).filter((cpu) => !cpu['qom-path']) as [{ type: string; props: object }]
  await others.run('device_add', { driver: type, id: 'cpu1', ...props })
  expect((await failed()).reason).toMatch(/it has now: .*state of cpu 1\b/)
  // By its name, when QEMU was asked.
  await until(a, 'web', ({ reason }) => /device cpu1/.test(reason))
  const doctor = await subpage(['doctor', 'web', '--state', a.stateDirectory, '--json'])
  expect(doctor.status).not.toBe(0)
  expect(JSON.parse(doctor.out).findings).toContainEqual(
    expect.objectContaining({ id: 'devices-differ', severity: 'critical' }),
  )
  await a.client.unprotect('web')
  await expect(protect(a, 'web', b)).rejects.toMatchObject({ code: 'DEVICES_DIFFER' })
  expect(await a.client.guest('web')).toMatchObject({ state: 'Running' })
})

test('a host with another processor is no standby: the guest could not go on there', async () => {
  const script = medium('other-processor')
  writeFileSync(script, '#!/bin/sh\nexec qemu-system-x86_64 "$@" -cpu Haswell\n', { mode: 0o755 })
  const other = await hosts.add('other', { SUBPAGE_QEMU: script })
  await a.client.run({ ...idle, name: 'elsewhere' })
  const refused = a.client.protect('elsewhere', { to: other.stateDirectory })
  await expect(refused).rejects.toMatchObject({
    code: 'DEVICES_DIFFER',
    message: expect.stringMatching(
      /it has now: processor qemu64 \(AuthenticAMD .*it has no more: processor Haswell \(GenuineIntel/,
    ),
  })
  await expect.poll(() => other.client.guest('elsewhere').catch(({ code }) => code)).toBe('GUEST_UNKNOWN')
  await a.client.remove('elsewhere')
})
