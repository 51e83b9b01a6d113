/**
 * The life of a domain of libvirt under protection: the standby is a domain of the other host, a client's TCP connection to the guest
 * survives, and disks, firmware and what libvirt says of it go along.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { GuestStatus } from '../../src/agent/status.ts'
import { Qmp } from '../../src/qemu/qmp.ts'
import { Adder } from '../support/adder.ts'
import { expectLittleRead } from '../support/disk-status.ts'
import { makeDisk, recordsOn } from '../support/guest-disk.ts'
import { until } from '../support/hosts.ts'
import { type LibvirtHost, LibvirtPair } from '../support/libvirt-pair.ts'
import type { Connection } from '../support/network.ts'

const images = '/var/lib/libvirt/images'
const guestAddress = '10.79.0.2'

let pair: LibvirtPair
let a: LibvirtHost
let b: LibvirtHost
/** Clients of the guest, from one test to the next. */
let adder: Adder
let keeping: Connection

beforeAll(async () => {
  pair = await LibvirtPair.make()
  ;({ a, b } = pair)
  await makeImages()
  await pair.define(
    'web',
    guestAddress,
    [
      ...['--disk', `path=${images}/web.qcow2,bus=virtio,driver.discard=unmap`],
      ...[
        '--disk',
        `path=${images}/second.raw,format=raw,bus=scsi`,
        '--controller',
        'scsi,model=virtio-scsi',
      ],
      ...['--disk', `path=${images}/third.raw,format=raw,bus=sata,cache=none`],
      ...['--graphics', 'vnc,password=sesame', '--sound', 'default'],
    ],
    ['uefi', 'firmware.feature0.name=secure-boot', 'firmware.feature0.enabled=no'],
  )
  await a.libvirtd.virsh('autostart', 'web')
})

afterAll(() => pair[Symbol.asyncDispose]())

/** On a, which has them to itself: raw files, and a qcow2 file on another one, as a snapshot leaves it. */
async function makeImages(): Promise<void> {
  for (const format of ['qcow2', 'raw'] as const) {
    const made = pair.path(`image.${format}`)
    makeDisk(made, format)
    const names = format === 'qcow2' ? ['base.qcow2'] : ['second.raw', 'third.raw']
    for (const name of names) await a.libvirtd.run('cp', '--sparse=always', made, join(images, name))
  }
  const overlay = ['-F', 'qcow2', '-b', `${images}/base.qcow2`, `${images}/web.qcow2`]
  await a.libvirtd.run('qemu-img', 'create', '-f', 'qcow2', ...overlay)
  await a.libvirtd.run('chown', '-R', 'libvirt-qemu:kvm', images)
}

/** For its disks: numbers that come over the network are kept before they are answered, and read back from the disk itself. */
const keeper = [
  ...['mkdir -p /mnt', 'mount -t ext4 /dev/vda /mnt'],
  // Of the firmware: attributes, then the value.
  `printf '\\007\\000\\000\\000while' >/sys/firmware/efi/efivars/Kept-a6a1b0a4-7b0e-4d5e-9d2c-7f0f3c1d2e4b`,
  `echo 'while read n; do case $n in all) sync; echo 3 >/proc/sys/vm/drop_caches; echo all $(cat /mnt/records);;' >/keeper`,
  `echo '*) echo $n | dd of=/mnt/records oflag=append conv=notrunc,fsync 2>/dev/null; echo kept $n;; esac; done' >>/keeper`,
  'nc -ll -p 7071 -e sh /keeper &',
]

async function beginKeeping(): Promise<Connection> {
  await a.libvirtd.type(
    'web',
    keeper.map((line) => `run ${line}`),
  )
  return await pair.connect(guestAddress, 7071)
}

const kept: number[] = []
async function keep(connection: Connection): Promise<void> {
  kept.push(kept.length + 1)
  connection.send(`${kept.length}\n`)
  expect(await connection.until((text) => text.endsWith('\n'))).toBe(`kept ${kept.length}\n`)
  connection.received = ''
}

async function keptThere(connection: Connection): Promise<number[]> {
  connection.send('all\n')
  const said = await connection.until((text) => text.endsWith('\n'))
  connection.received = ''
  return said.trim().split(' ').slice(1).map(Number)
}

/** What the firmware keeps of ours. */
const variables = ({ libvirtd }: LibvirtHost, path: string) => {
  const file = readFileSync(libvirtd.pathOf(path))
  const name = file.indexOf(Buffer.from('Kept\0', 'utf16le'))
  return name < 0 ? '' : file.subarray(name, name + 30).toString('latin1')
}

/** Where a domain's definition has its disks, in order. */
const placesOf = async ({ libvirtd }: LibvirtHost) =>
  [...(await libvirtd.virsh('dumpxml', '--inactive', 'web')).matchAll(/<source file='([^']+)'/g)].map(
    ([, path]) => path,
  )

/** What libvirt hears of a guest's pauses is a little late. */
const becomes = ({ libvirtd }: LibvirtHost, state: string) =>
  expect.poll(() => libvirtd.stateOf('web')).toBe(state)

const held = async ({ libvirtd }: LibvirtHost) =>
  (await libvirtd.run('cat', '/var/lib/libvirt/qemu/subpage/web/held')).out

/** What people find in virsh desc and virt-manager. */
const noticeOf = async ({ libvirtd }: LibvirtHost) =>
  /<description>([^<]*)</.exec(await libvirtd.virsh('dumpxml', '--inactive', 'web'))?.[1]

const autostart = async ({ libvirtd }: LibvirtHost) =>
  /^Autostart: +(\w+)/m.exec(await libvirtd.virsh('dominfo', 'web'))?.[1]

/** @returns how many checkpoints there were when it was seen to be suspended */
async function suspend(): Promise<number> {
  const status = () => a.agent.client.guest('web')
  // In a checkpoint's pause libvirt takes it for suspended already.
  await expect
    .poll(async () => {
      await a.libvirtd.virsh('suspend', 'web')
      return (await status()).suspended
    })
    .toBe(true)
  return (await status()).epochs!.checkpoints
}

/** A monitor that nobody else uses. */
const observer = () => Qmp.connect(a.libvirtd.pathOf('/var/lib/libvirt/qemu/subpage/web/observer.sock'))

/** Which QEMU keeps for its disks; with any it goes back to no snapshot. */
async function bitmaps(): Promise<unknown[]> {
  const qmp = await observer()
  const nodes = await qmp.run<{ 'dirty-bitmaps'?: unknown[] }[]>('query-named-block-nodes')
  qmp.close()
  return nodes.flatMap((node) => node['dirty-bitmaps'] ?? [])
}

/** A guest that somebody has suspended stays so, and is protected; who resumes one in a checkpoint's pause breaks that checkpoint. */
async function suspendAndResume(): Promise<void> {
  const status = () => a.agent.client.guest('web')
  const checkpoints = await suspend()
  const { reason } = await until(a.agent, 'web', ({ epochs }) => epochs!.checkpoints > checkpoints + 10)
  expect(reason).toMatch(/suspended/)
  expect(await a.libvirtd.stateOf('web')).toBe('paused')
  expect(await a.agent.client.verify('web')).toMatchObject({ equal: true })
  await a.libvirtd.virsh('resume', 'web')
  const { epochs } = await until(a.agent, 'web', ({ suspended }) => !suspended)
  const others = await observer()
  while ((await status()).epochs!.failed === epochs!.failed)
    for (let count = 0; count < 100; count++) await others.run('cont')
  others.close()
  await until(a.agent, 'web', ({ state }) => state === 'Protected')
}

/** A device that libvirt can plug in. */
function keyboard(): string {
  const path = pair.path('keyboard.xml')
  writeFileSync(path, "<input type='keyboard' bus='virtio'/>")
  return path
}

/** The standby was made without it. */
async function plugAndUnplug(): Promise<void> {
  // In a checkpoint's pause libvirt takes the guest for paused; it plugs all the same.
  await a.libvirtd.virsh('attach-device', 'web', keyboard(), '--live')
  const { reason } = await until(a.agent, 'web', ({ devicesDiffer }) => devicesDiffer)
  expect(reason).toMatch(/it has now: .*virtio-input/)
  await expect.poll(() => b.libvirtd.virsh('list', '--all', '--name')).not.toContain('web')
  await a.libvirtd.virsh('detach-device', 'web', keyboard(), '--live')
  await until(a.agent, 'web', ({ state, devicesDiffer }) => state === 'Protected' && !devicesDiffer)
}

/** Its standby takes it over, and leaves it so: whoever lets it run again does so there. */
async function dieSuspended(): Promise<void> {
  const checkpoints = await suspend()
  const { pid } = await until(a.agent, 'web', ({ epochs }) => epochs!.checkpoints > checkpoints + 2)
  process.kill(pid!, 'SIGKILL')
  // Protected the other way round, and standing still all the time.
  await until(b.agent, 'web', ({ state, suspended }) => state === 'Protected' && suspended)
  expect(await b.libvirtd.stateOf('web')).toBe('paused')
  expect(await b.agent.client.verify('web')).toMatchObject({ equal: true })
  await b.libvirtd.virsh('resume', 'web')
  await until(b.agent, 'web', ({ suspended }) => !suspended)
}

test('a domain survives the death of its QEMU, and moves back', async () => {
  await pair.startAndProtect('web')
  await becomes(a, 'running')
  await becomes(b, 'paused')
  // Nobody but subpage may start it now.
  expect([await autostart(a), await autostart(b)]).toEqual(['disable', 'disable'])
  expect(await held(a)).toMatch(/^web is protected to .* may run there; if that is over: rm /)
  expect(await noticeOf(a)).toMatch(/^subpage: web is protected to .*, and may run there$/)
  expect(await held(b)).toMatch(/^web is a standby here/)

  expect((await a.agent.client.screenshot('web')).png).toMatch(/^iVBOR/)
  adder = new Adder(await pair.connect(guestAddress))
  await adder.add()
  keeping = await beginKeeping()
  for (let count = 0; count < 10; count++) await keep(keeping)
  const { disks: mirrored } = await a.agent.client.guest('web')
  expect(mirrored).toMatchObject([
    { name: 'vda', state: 'Protected', path: `${images}/web.qcow2`, cuts: 0 },
    { name: 'sda', state: 'Protected', path: `${images}/second.raw`, cuts: 0 },
    { name: 'sdb', state: 'Protected', path: `${images}/third.raw`, cuts: 0 },
  ])
  expect(mirrored[0]!.writes).toBeGreaterThanOrEqual(10)
  expect(mirrored[0]!.sent!.wireBytes).toBeGreaterThan(0)
  const { equal, disks } = await a.agent.client.verify('web')
  expect([equal, disks.map(({ missing }) => missing)]).toEqual([true, [undefined, undefined, undefined]])
  await suspendAndResume()
  // Plugged in by people, and out again: what was seeded first is the standby of a machine without it.
  await plugAndUnplug()
  await adder.add()
  await dieSuspended()
  await adder.add()
  await becomes(b, 'running')
  expect(await b.agent.client.guest('web')).toMatchObject({
    takeover: { reason: expect.stringMatching(/died/) },
  })
  await keep(keeping)
  expect(await keptThere(keeping)).toEqual(kept)
  const { firmware } = await b.agent.client.guest('web')
  expect(variables(b, firmware!.nvram)).toContain('while')
  const copies = await placesOf(b)
  expect(copies).toEqual(
    ['vda', 'sda', 'sdb'].map((disk) =>
      expect.stringMatching(`^${images}/subpage/web\\.\\w{8}/${disk}\\.raw$`),
    ),
  )

  // The same protection the other way round, by itself.
  await until(b.agent, 'web', ({ state }) => state === 'Protected')
  await becomes(a, 'paused')
  expect(await noticeOf(a)).toBe('subpage: web is a standby here: its guest runs on b')
  await expect.poll(() => noticeOf(b)).toMatch(/^subpage: web is protected to .*, and may run there$/)
  expect(await held(b)).toMatch(/^web is protected to .* may run there; if that is over: rm /)
  expect((await b.agent.client.guest('web')).fence).toMatchObject({ on: true })
  await adder.add()
  await b.agent.client.switchover('web')
  await adder.add()
  await becomes(a, 'running')
  await keep(keeping)
  expect(await keptThere(keeping)).toEqual(kept)
  // A qcow2 file cannot be brought level: a raw one has taken its place, by the same name as on the other host.
  const places = [copies[0], `${images}/second.raw`, `${images}/third.raw`]
  await expect.poll(() => placesOf(a)).toEqual(places)
  const { firmware: own } = await a.agent.client.guest('web')
  expect(own).toEqual({ kind: 'uefi', nvram: '/var/lib/libvirt/qemu/nvram/web_VARS.fd' })
  expect(variables(a, own!.nvram)).toContain('while')
  expect((await a.agent.client.recentEvents()).map(({ text }) => text)).toContainEqual(
    expect.stringMatching(/it does not use .*web\.qcow2 any more/),
  )

  // The next supervisor finds the guest, and takes up its protection.
  // With its first checkpoints the copies of its disks get a new lineage.
  const goesOn = ({ state, epochs }: GuestStatus) => state === 'Protected' && epochs!.checkpoints > 20
  const { supervisor } = await until(a.agent, 'web', goesOn)
  process.kill(supervisor!.process, 'SIGKILL')
  await until(a.agent, 'web', (now) => goesOn(now) && now.supervisor!.process !== supervisor!.process)
  for (const disk of (await a.agent.client.guest('web')).disks) expectLittleRead(disk)
  expect(await bitmaps()).not.toEqual([])
  await adder.add()
  expect(await a.agent.client.unprotect('web')).toMatchObject({ state: 'Running' })
  await adder.add()
  await becomes(a, 'running')
  await becomes(b, 'shut off')
  expect([await autostart(a), await autostart(b)]).toEqual(['enable', 'disable'])
  expect([await held(a), await noticeOf(a)]).toEqual(['', undefined])
  expect(await bitmaps()).toEqual([])
  // Here it must not be started: it runs there.
  await expect(b.libvirtd.virsh('start', 'web')).rejects.toThrow(/subpage: web is a standby here/)
})

/** As people do before an upgrade: the disk is a new file on top of the one before. And another device, for good. */
async function snapshotAndPlug(): Promise<string> {
  const overlay = `${images}/overlay.qcow2`
  const [base] = await placesOf(a)
  await a.libvirtd.run('qemu-img', 'create', '-f', 'qcow2', '-F', 'raw', '-b', base!, overlay)
  await a.libvirtd.run('chown', 'libvirt-qemu:kvm', overlay)
  const others = ['sda', 'sdb'].flatMap((disk) => ['--diskspec', `${disk},snapshot=no`])
  const how = ['--disk-only', '--atomic', '--reuse-external', '--diskspec', `vda,file=${overlay}`, ...others]
  await a.libvirtd.virsh('snapshot-create-as', 'web', 'before', ...how)
  await a.libvirtd.virsh('attach-device', 'web', keyboard(), '--live', '--config')
  return overlay
}

test('what somebody changes of it while it is not protected is protected when it is again', async () => {
  const overlay = await snapshotAndPlug()
  await keep(keeping)
  await pair.untilProtected('web')
  expect((await a.agent.client.guest('web')).disks[0]).toMatchObject({ name: 'vda', path: overlay })
  for (let count = 0; count < 5; count++) await keep(keeping)
  expect(await a.agent.client.verify('web')).toMatchObject({ equal: true })
  process.kill((await a.agent.client.guest('web')).pid!, 'SIGKILL')
  await adder.add()
  expect(await keptThere(keeping)).toEqual(kept)
  const [place] = await placesOf(b)
  await b.libvirtd.virsh('destroy', 'web')
  await until(b.agent, 'web', ({ state }) => state === 'Ended')
  expect(recordsOn(b.libvirtd.pathOf(place!))).toEqual(kept)
})

/** Into a free slot, and out of it: its standby was made without it. */
async function plugMemory(): Promise<void> {
  const dimm = pair.path('dimm.xml')
  writeFileSync(
    dimm,
    "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>",
  )
  await a.libvirtd.virsh('attach-device', 'nodes', dimm, '--live')
  const { reason } = await until(a.agent, 'nodes', ({ devicesDiffer }) => devicesDiffer)
  expect(reason).toMatch(/256 MiB are plugged in, and were 128 MiB|it has now: device dimm1 \(pc-dimm\)/)
  // The guest gives it back in its own time.
  await a.libvirtd.virsh('detach-device', 'nodes', dimm, '--live')
  await until(a.agent, 'nodes', ({ state, devicesDiffer }) => state === 'Protected' && !devicesDiffer)
}

test('a domain of two NUMA nodes and a memory device survives, too', async () => {
  const address = '10.79.0.3'
  const memory = '288,hotplugmemorymax=512,hotplugmemoryslots=2'
  await pair.define(
    'nodes',
    address,
    [
      ...['--vcpus', '2', '--disk', 'none', '--graphics', 'none', '--memory', memory],
      ...['--cpu', 'qemu64,numa.cell0.id=0,numa.cell0.cpus=0,numa.cell0.memory=98304'],
      ...['--cpu', 'numa.cell1.id=1,numa.cell1.cpus=1,numa.cell1.memory=65536'],
      ...['--memdev', 'model=dimm,target.size=128,target.node=1'],
    ],
    [],
    ['swiotlb=2048', 'memhp_default_state=online_movable'],
  )
  await pair.startAndProtect('nodes')
  const adder = new Adder(await pair.connect(address))
  await adder.add()
  await plugMemory()
  expect(await a.agent.client.verify('nodes')).toMatchObject({ equal: true, pages: expect.any(Number) })
  process.kill((await a.agent.client.guest('nodes')).pid!, 'SIGKILL')
  await adder.add()
  expect(await b.agent.client.guest('nodes')).toMatchObject({
    takeover: { reason: expect.stringMatching(/died/) },
  })
  expect(await b.libvirtd.stateOf('nodes')).toBe('running')
})
