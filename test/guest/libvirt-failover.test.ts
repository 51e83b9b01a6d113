/**
 * Domains of libvirt under protection, each host with a libvirtd of its own: the standby is a domain of the other host, and a client's TCP
 * connection to the guest survives. What people do with virsh is told apart from a death.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { guestImage } from '../../src/qemu/demo-guest.ts'
import { Qmp } from '../../src/qemu/qmp.ts'
import { makeDisk, recordsOn } from '../support/guest-disk.ts'
import { Hosts, until } from '../support/hosts.ts'
import { Libvirtd } from '../support/libvirt.ts'
import { type Connection, TestNetwork } from '../support/network.ts'

const images = '/var/lib/libvirt/images'
const guestAddress = '10.79.0.2'
const description = join(tmpdir(), `subpage-domain-${process.pid}.xml`)

interface Host {
  agent: EphemeralAgent
  libvirtd: Libvirtd
}

let network: TestNetwork
let hosts: Hosts
let a: Host
let b: Host
let client: string
let bridge: string

beforeAll(async () => {
  network = await TestNetwork.make()
  hosts = new Hosts()
  const host = async (name: string): Promise<Host> => {
    const libvirtd = await Libvirtd.start()
    return { libvirtd, agent: await hosts.add(name, {}, undefined, libvirtd.prefix) }
  }
  ;[a, b] = await Promise.all([host('a'), host('b')])
  bridge = await network.bridge()
  client = await network.namespace()
  await network.attach(client, '10.79.0.1/24', bridge)
  const [kernel, initrd] = [guestImage('vmlinuz'), guestImage('initrd.gz')]
  await makeImages()
  const { out } = await a.libvirtd.run(
    ...['virt-install', '--name', 'web', '--memory', '160', '--virt-type', 'qemu', '--machine', 'q35'],
    ...['--disk', `path=${images}/web.qcow2,bus=virtio,driver.discard=unmap`],
    ...['--disk', `path=${images}/second.raw,format=raw,bus=scsi`, '--controller', 'scsi,model=virtio-scsi'],
    ...['--disk', `path=${images}/third.raw,format=raw,bus=sata,cache=none`],
    ...['--network', `bridge=${bridge},model=virtio`, '--graphics', 'vnc,password=sesame'],
    ...['--osinfo', 'detect=off,require=off', '--noautoconsole', '--print-xml', '--boot'],
    `uefi,firmware.feature0.name=secure-boot,firmware.feature0.enabled=no,kernel=${kernel},initrd=${initrd},kernel_args=console=ttyS0 workload=sum net=${guestAddress}/24`,
  )
  writeFileSync(description, out)
  await a.libvirtd.virsh('define', description)
  await a.libvirtd.virsh('autostart', 'web')
  const { status, said } = await a.libvirtd.subpage('libvirt', 'prepare', 'web', '--apply', '--json')
  expect([status, said]).toEqual([0, ''])
})

afterAll(async () => {
  await hosts[Symbol.asyncDispose]()
  for (const { libvirtd } of [a, b]) await libvirtd[Symbol.asyncDispose]()
  await network[Symbol.asyncDispose]()
  rmSync(description, { force: true })
})

/** On a, which has them to itself: raw files, and a qcow2 file on another one, as a snapshot leaves it. */
async function makeImages(): Promise<void> {
  for (const format of ['qcow2', 'raw'] as const) {
    const made = join(hosts.directory, `image.${format}`)
    makeDisk(made, format)
    const names = format === 'qcow2' ? ['base.qcow2'] : ['second.raw', 'third.raw']
    for (const name of names) await a.libvirtd.run('cp', '--sparse=always', made, join(images, name))
  }
  const overlay = ['-F', 'qcow2', '-b', `${images}/base.qcow2`, `${images}/web.qcow2`]
  await a.libvirtd.run('qemu-img', 'create', '-f', 'qcow2', ...overlay)
  await a.libvirtd.run('chown', '-R', 'libvirt-qemu:kvm', images)
}

async function startAndProtect(name = 'web'): Promise<void> {
  await a.libvirtd.virsh('start', name)
  const { status, said } = await a.libvirtd.subpage(
    ...[
      'protect',
      `libvirt:${name}`,
      '--state',
      a.agent.stateDirectory,
      '--to',
      b.agent.stateDirectory,
      '--json',
    ],
  )
  expect([status, said]).toEqual([0, ''])
  await until(a.agent, name, ({ state }) => state === 'Protected')
}

/** The guest has its address when it has booted. */
async function connect(port = 7070, address = guestAddress): Promise<Connection> {
  for (;;)
    try {
      return await network.connect(client, address, port)
    } catch {
      // Not yet.
      await delay(100)
    }
}

let [added, sum] = [0, 0n]
async function add(connection: Connection): Promise<void> {
  sum += BigInt(++added)
  connection.send(`add ${added}\n`)
  expect(await connection.until((text) => text.endsWith('\n'))).toBe(`ok ${added} ${sum}\n`)
  connection.received = ''
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
  return await connect(7071)
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
const variables = ({ libvirtd }: Host, path: string) => {
  const file = readFileSync(libvirtd.pathOf(path))
  const name = file.indexOf(Buffer.from('Kept\0', 'utf16le'))
  return name < 0 ? '' : file.subarray(name, name + 30).toString('latin1')
}

/** Where a domain's definition has its disks, in order. */
const placesOf = async ({ libvirtd }: Host) =>
  [...(await libvirtd.virsh('dumpxml', '--inactive', 'web')).matchAll(/<source file='([^']+)'/g)].map(
    ([, path]) => path,
  )

/** What libvirt hears of a guest's pauses is a little late. */
const becomes = ({ libvirtd }: Host, state: string) => expect.poll(() => libvirtd.stateOf('web')).toBe(state)

const held = async ({ libvirtd }: Host) =>
  (await libvirtd.run('cat', '/var/lib/libvirt/qemu/subpage/web/held')).out

/** What people find in virsh desc and virt-manager. */
const noticeOf = async ({ libvirtd }: Host) =>
  /<description>([^<]*)</.exec(await libvirtd.virsh('dumpxml', '--inactive', 'web'))?.[1]

const autostart = async ({ libvirtd }: Host) =>
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
  const others = await Qmp.connect(a.libvirtd.pathOf('/var/lib/libvirt/qemu/subpage/web/observer.sock'))
  while ((await status()).epochs!.failed === epochs!.failed)
    for (let count = 0; count < 100; count++) await others.run('cont')
  others.close()
  await until(a.agent, 'web', ({ state }) => state === 'Protected')
}

/** The standby was made without it. */
async function plugAndUnplug(): Promise<void> {
  const keyboard = join(hosts.directory, 'keyboard.xml')
  writeFileSync(keyboard, "<input type='keyboard' bus='virtio'/>")
  // In a checkpoint's pause libvirt takes the guest for paused; it plugs all the same.
  await a.libvirtd.virsh('attach-device', 'web', keyboard, '--live')
  const { reason } = await until(a.agent, 'web', ({ devicesDiffer }) => devicesDiffer)
  expect(reason).toMatch(/it has now: .*virtio-input/)
  await expect.poll(() => b.libvirtd.virsh('list', '--all', '--name')).not.toContain('web')
  await a.libvirtd.virsh('detach-device', 'web', keyboard, '--live')
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
  await startAndProtect()
  await becomes(a, 'running')
  await becomes(b, 'paused')
  // Nobody but subpage may start it now.
  expect([await autostart(a), await autostart(b)]).toEqual(['disable', 'disable'])
  expect(await held(a)).toMatch(/^web is protected to .* may run there; if that is over: rm /)
  expect(await noticeOf(a)).toMatch(/^subpage: web is protected to .*, and may run there$/)
  expect(await held(b)).toMatch(/^web is a standby here/)

  expect((await a.agent.client.screenshot('web')).png).toMatch(/^iVBOR/)
  const connection = await connect()
  await add(connection)
  const keeping = await beginKeeping()
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
  await add(connection)
  await dieSuspended()
  await add(connection)
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
  await add(connection)
  await b.agent.client.switchover('web')
  await add(connection)
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
  await until(a.agent, 'web', ({ state }) => state === 'Protected')
  process.kill((await a.agent.client.guest('web')).supervisor!.process, 'SIGKILL')
  await until(a.agent, 'web', ({ state, epochs }) => state === 'Protected' && (epochs?.checkpoints ?? 0) > 5)
  await add(connection)
  expect(await a.agent.client.unprotect('web')).toMatchObject({ state: 'Running' })
  await add(connection)
  await becomes(a, 'running')
  await becomes(b, 'shut off')
  expect([await autostart(a), await autostart(b)]).toEqual(['enable', 'disable'])
  expect([await held(a), await noticeOf(a)]).toEqual(['', undefined])
  // Here it must not be started: it runs there.
  await expect(b.libvirtd.virsh('start', 'web')).rejects.toThrow(/subpage: web is a standby here/)
  await a.libvirtd.virsh('destroy', 'web')
  await until(a.agent, 'web', ({ state }) => state === 'Ended')
  expect(recordsOn(a.libvirtd.pathOf(places[0]!))).toEqual(kept)
  // It has run there, and is a domain like any other until somebody undefines it.
  await b.libvirtd.virsh('undefine', '--keep-nvram', 'web')
})

test.each([
  ['destroy', /ended through libvirt/] as const,
  ['managedsave', /saved its state/] as const,
  ['shutdown', /shut itself down/] as const,
])('virsh %s ends the guest, and its standby goes with it', async (command, reason) => {
  await startAndProtect()
  if (command === 'shutdown') await connect()
  // In a checkpoint's pause libvirt takes the guest for paused, and refuses to shut it down.
  await expect.poll(() => a.libvirtd.run('virsh', command, 'web')).toMatchObject({ status: 0 })
  const { reason: said } = await until(a.agent, 'web', ({ state }) => state === 'Ended')
  expect(said).toMatch(reason)
  await expect.poll(() => b.libvirtd.virsh('list', '--all', '--name')).not.toContain('web')
  await becomes(a, 'shut off')
  if (command === 'managedsave') await a.libvirtd.virsh('managedsave-remove', 'web')
})

test('a domain that was not prepared, or does not run, is refused with what to do', async () => {
  const protect = [
    'protect',
    'libvirt:web',
    '--state',
    a.agent.stateDirectory,
    '--to',
    b.agent.stateDirectory,
  ]
  expect((await a.libvirtd.subpage(...protect)).said).toMatch(/virsh start web/)
  await a.libvirtd.subpage('libvirt', 'prepare', 'web', '--undo')
  await a.libvirtd.virsh('start', 'web')
  const { said } = await a.libvirtd.subpage(...protect)
  expect(said.replaceAll(/\s+/g, ' ')).toContain('subpage libvirt prepare web --apply')
  // It runs on as it did.
  expect(await a.libvirtd.stateOf('web')).toBe('running')
})

test('a domain of two NUMA nodes survives, too', async () => {
  const [kernel, initrd] = [guestImage('vmlinuz'), guestImage('initrd.gz')]
  const { out } = await a.libvirtd.run(
    ...['virt-install', '--name', 'nodes', '--memory', '160', '--vcpus', '2', '--virt-type', 'qemu'],
    ...[
      '--machine',
      'q35',
      '--disk',
      'none',
      '--network',
      `bridge=${bridge},model=virtio`,
      '--graphics',
      'none',
    ],
    ...['--cpu', 'qemu64,numa.cell0.id=0,numa.cell0.cpus=0,numa.cell0.memory=98304'],
    ...['--cpu', 'numa.cell1.id=1,numa.cell1.cpus=1,numa.cell1.memory=65536'],
    ...['--osinfo', 'detect=off,require=off', '--noautoconsole', '--print-xml', '--boot'],
    `kernel=${kernel},initrd=${initrd},kernel_args=console=ttyS0 workload=sum net=10.79.0.3/24`,
  )
  writeFileSync(description, out)
  await a.libvirtd.virsh('define', description)
  const apply = await a.libvirtd.subpage('libvirt', 'prepare', 'nodes', '--apply', '--json')
  expect([apply.status, apply.said]).toEqual([0, ''])
  await startAndProtect('nodes')
  const connection = await connect(7070, '10.79.0.3')
  ;[added, sum] = [0, 0n]
  await add(connection)
  expect(await a.agent.client.verify('nodes')).toMatchObject({ equal: true, pages: expect.any(Number) })
  process.kill((await a.agent.client.guest('nodes')).pid!, 'SIGKILL')
  await add(connection)
  expect(await b.agent.client.guest('nodes')).toMatchObject({
    takeover: { reason: expect.stringMatching(/died/) },
  })
  expect(await b.libvirtd.stateOf('nodes')).toBe('running')
})
