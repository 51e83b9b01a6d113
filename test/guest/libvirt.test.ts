/** `subpage libvirt` with a real libvirtd, and a domain that virt-install has described and that runs as it was prepared. */
import { rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { guestImage } from '../../src/qemu/demo-guest.ts'
import type { ShimStatus } from '../../src/tracking/shim.ts'
import { Libvirtd } from '../support/libvirt.ts'
import { subpage } from '../support/subpage.ts'

let libvirtd: Libvirtd
const description = join(tmpdir(), `subpage-libvirt-${process.pid}.xml`)
const directory = '/var/lib/libvirt/qemu/subpage/web'

beforeAll(async () => {
  libvirtd = await Libvirtd.start()
  const [kernel, initrd] = [guestImage('vmlinuz'), guestImage('initrd.gz')]
  const { status, out, said } = await libvirtd.run(
    ...['virt-install', '--name', 'web', '--memory', '128', '--virt-type', 'qemu', '--machine', 'q35'],
    ...[
      '--disk',
      'none',
      '--network',
      'none',
      '--graphics',
      'vnc,password=sesame',
      '--noautoconsole',
      '--print-xml',
    ],
    ...['--osinfo', 'detect=off,require=off'],
    ...['--boot', `kernel=${kernel},initrd=${initrd},kernel_args=console=ttyS0`],
  )
  expect([status, said]).toEqual([0, ''])
  writeFileSync(description, out)
  await libvirtd.virsh('define', description)
})

afterAll(async () => {
  await libvirtd[Symbol.asyncDispose]()
  rmSync(description, { force: true })
})

const prepare = async (...flags: string[]) => {
  const { status, out, said } = await libvirtd.subpage('libvirt', 'prepare', 'web', '--json', ...flags)
  expect([status, said]).toEqual([0, ''])
  return JSON.parse(out)
}
const listed = async () => JSON.parse((await libvirtd.subpage('libvirt', 'list', '--json')).out).domains[0]
const described = () => libvirtd.virsh('dumpxml', '--inactive', '--security-info', 'web')
const holds = async (file: string, text: string) =>
  (await libvirtd.run('grep', '--quiet', '--text', text, file)).status === 0
const shimStatus = async (): Promise<ShimStatus> =>
  JSON.parse((await libvirtd.run('cat', `${directory}/shim.status`)).out)

test('a domain of virt-install runs as it was prepared, start after start, and is taken back exactly', async () => {
  const original = await described()
  expect(await listed()).toEqual({
    name: 'web',
    running: false,
    protectable: 'after-prepare',
    refusals: [],
    changes: [],
  })

  // Seen first, and nothing changed.
  const shown = await prepare()
  expect(shown).toMatchObject({ changed: true, applied: false })
  expect(shown.diff).toMatch(/^--- web\.xml\n\+\+\+ /)
  expect(shown.diff).toMatch(/^\+ {4}<qemu:env name="LD_PRELOAD"/m)
  expect(await described()).toBe(original)

  await libvirtd.virsh('start', 'web')
  expect(await prepare('--apply')).toMatchObject({ changed: true, applied: true, running: true })
  expect(await listed()).toMatchObject({ running: true, protectable: 'after-restart' })
  expect(await described()).toContain("passwd='sesame'")
  expect(await prepare('--apply')).toMatchObject({ changed: false, diff: '' })

  const ram = /mem-path=([^,']+)/.exec(await described())![1]!
  const starts: ShimStatus[] = []
  for (let start = 0; start < 2; start++) {
    await libvirtd.virsh('destroy', 'web')
    await libvirtd.virsh('start', 'web')
    await expect.poll(() => holds(ram, 'Linux version')).toBe(true)
    starts.push(await shimStatus())
    expect(starts[start]).toMatchObject({ tracking: 'ok', guard: 'on', fence: 'on', forget: 'on' })
  }
  // What the first had added to its RAM file is not in that of the second.
  expect(starts[1]!.pid).not.toBe(starts[0]!.pid)
  expect(starts[1]!.aux).toEqual(starts[0]!.aux)
  const size = 128 * 2 ** 20 + starts[1]!.aux.reduce((sum, bytes) => sum + bytes, 0)
  expect(await libvirtd.run('stat', '--format', '%s %a', ram)).toMatchObject({ out: `${size} 600\n` })
  expect(await listed()).toMatchObject({ running: true, protectable: 'yes' })

  // The guest keeps what it runs with.
  expect(await prepare('--undo')).toMatchObject({ changed: true, running: true })
  expect((await libvirtd.run('test', '-e', ram)).status).toBe(0)
  expect(await described()).toBe(original)
  await libvirtd.virsh('destroy', 'web')
  expect(await prepare('--undo')).toMatchObject({ changed: false })
  expect((await libvirtd.run('test', '-e', directory)).status).toBe(1)
  expect((await libvirtd.run('test', '-e', ram)).status).toBe(1)
})

test('a machine with SPICE is prepared with VNC, starts so, and gets its SPICE back', async () => {
  const spice = ['--graphics', 'spice,password=sesame', '--video', 'qxl', '--channel', 'spicevmc']
  const { out } = await libvirtd.run(
    ...['virt-install', '--name', 'desk', '--memory', '64', '--virt-type', 'qemu', '--machine', 'q35'],
    ...[
      ...spice,
      '--redirdev',
      'usb,type=spicevmc',
      '--sound',
      'default',
      '--disk',
      'none',
      '--network',
      'none',
    ],
    ...['--osinfo', 'detect=off,require=off', '--noautoconsole', '--print-xml', '--boot', 'hd'],
  )
  writeFileSync(description, out)
  await libvirtd.virsh('define', description)
  const ofDesk = () => libvirtd.virsh('dumpxml', '--inactive', '--security-info', 'desk')
  const original = await ofDesk()
  const list = JSON.parse((await libvirtd.subpage('libvirt', 'list', '--json')).out).domains
  expect(list.find(({ name }: { name: string }) => name === 'desk')).toMatchObject({
    protectable: 'after-prepare',
    refusals: [],
    changes: expect.arrayContaining([
      { part: 'graphics spice', reason: expect.stringMatching(/makes VNC of it/) },
      { part: 'channel spicevmc', reason: expect.stringMatching(/takes it out/) },
    ]),
  })
  const applied = await libvirtd.subpage('libvirt', 'prepare', 'desk', '--apply', '--json')
  expect(applied.status).toBe(0)
  expect(JSON.parse(applied.out).diff).toMatch(
    /^- {4}<graphics type="spice"[\s\S]*^\+ {4}<graphics type="vnc"/m,
  )
  await libvirtd.virsh('start', 'desk')
  expect(await libvirtd.virsh('domdisplay', 'desk')).toMatch(/^vnc:/)
  expect(await ofDesk()).toMatch(/type='vnc'[^>]*passwd='sesame'/)
  await libvirtd.virsh('destroy', 'desk')
  // As people do meanwhile: one device more, one less.
  await libvirtd.run('truncate', '--size', '1M', '/var/lib/libvirt/images/more.raw')
  const more = ['desk', '/var/lib/libvirt/images/more.raw', 'vdb', '--config']
  await libvirtd.virsh('attach-disk', ...more)
  const prepared = await libvirtd.subpage('libvirt', 'prepare', 'desk', '--apply', '--json')
  expect(JSON.parse(prepared.out)).toMatchObject({ changed: false, diff: '' })
  expect((await libvirtd.subpage('libvirt', 'prepare', 'desk', '--undo')).status).toBe(0)
  await libvirtd.virsh('detach-disk', 'desk', 'vdb', '--config')
  expect(await ofDesk()).toBe(original)
  await libvirtd.virsh('undefine', 'desk')
})

test('a domain that must not be started here keeps what refuses it', async () => {
  await prepare('--apply')
  const why = 'web is a standby here: its guest runs on b'
  await libvirtd.run('sh', '-c', `echo '${why}' > ${directory}/held`)
  const before = await described()
  for (const flags of [['--undo'], ['--apply', '--directory', '/var/lib/libvirt/qemu/other']]) {
    const { status, said } = await libvirtd.subpage('libvirt', 'prepare', 'web', ...flags)
    expect([status, said.replaceAll(/\s+/g, ' ')]).toEqual([11, expect.stringContaining(why)])
  }
  expect(await described()).toBe(before)
  expect((await libvirtd.run('virsh', 'start', 'web')).said).toContain(why)
  await libvirtd.run('rm', `${directory}/held`)
  await prepare('--undo')
})

test('a number for a name is refused: virsh would show another domain, which has it for an ID', async () => {
  await libvirtd.virsh('start', 'web')
  const id = (await libvirtd.virsh('domid', 'web')).trim()
  const description = '/var/lib/libvirt/images/number.xml'
  const xml = `virsh dumpxml --inactive web | sed 's|<name>web|<name>${id}|; /<uuid>/d' > ${description}`
  await libvirtd.run('sh', '-c', xml)
  await libvirtd.virsh('define', description)
  const { domains } = JSON.parse((await libvirtd.subpage('libvirt', 'list', '--json')).out)
  expect(domains.find(({ name }: { name: string }) => name === id)).toMatchObject({
    protectable: 'no',
    refusals: [{ part: 'name', reason: expect.stringContaining('virsh domrename') }],
  })
  const { status, said } = await libvirtd.subpage('libvirt', 'prepare', id, '--apply')
  expect([status, said]).toEqual([1, expect.stringContaining('cannot be a guest name')])
  await libvirtd.virsh('destroy', 'web')
})

test('a guest without room for its RAM does not start, and libvirt says why', async () => {
  await prepare('--apply')
  const described = await libvirtd.virsh('dumpxml', '--inactive', 'web')
  const bytes = String(2 ** 50)
  writeFileSync(description, described.replace(/(SUBPAGE_FRESH_RAM' value=')\d+/, `$1${bytes}`))
  await libvirtd.virsh('define', description)
  await expect(libvirtd.virsh('start', 'web')).rejects.toThrow(`with ${bytes} bytes: No space left on device`)
  await prepare('--undo')
})

test('whoever cannot be asked is named', async () => {
  const unknown = await libvirtd.subpage('libvirt', 'prepare', 'nobody')
  expect(unknown.said).toContain('has no domain nobody (GUEST_UNKNOWN)')
  const without = await subpage(['libvirt', 'list'], { PATH: '/nowhere' })
  expect([without.status, without.said]).toEqual([
    13,
    expect.stringContaining('apt-get install libvirt-clients'),
  ])
  // Where no libvirtd is: the namespace without it.
  const silent = await libvirtd.run(
    'unshare',
    '--mount',
    'sh',
    '-c',
    `mount -t tmpfs none /run/libvirt; exec "$0" "$@"`,
    process.execPath,
    join(process.cwd(), 'dist/src/cli/main.js'),
    'libvirt',
    'list',
  )
  expect([silent.status, silent.said]).toEqual([
    1,
    expect.stringMatching(/does not answer.*LIBVIRT_UNREACHABLE/s),
  ])
})
