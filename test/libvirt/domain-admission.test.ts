/** What another host may describe: a domain that lies must reach nothing here. */
import { expect, test } from 'vitest'
import { admissionRefusals, assertAdmissible } from '../../src/libvirt/domain-admission.ts'
import { parseDomain } from '../../src/libvirt/domain-xml.ts'
import { packageRoot } from '../../src/package-root.ts'
import { guestImage } from '../../src/qemu/demo-guest.ts'

const emulator = '/usr/bin/qemu-system-x86_64'
const images = [`${packageRoot}/docs`]
const kernel = `${packageRoot}/docs/cli.md`

function admitted(devices: string, machine = '', os = `<kernel>${kernel}</kernel>`): string {
  const xml = `<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>web</name>
    <memory unit='KiB'>524288</memory><os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>${os}</os>${machine}
    <devices><emulator>${emulator}</emulator>${devices}</devices></domain>`
  try {
    assertAdmissible(parseDomain(xml), { images, emulator })
    return ''
  } catch (error) {
    return (error as Error).message
  }
}

test('what both hosts have is taken', () => {
  expect(admitted("<interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>")).toBe(
    '',
  )
  expect(
    admitted(
      "<graphics type='vnc' listen='127.0.0.1'><listen type='address' address='127.0.0.1'/></graphics>",
    ),
  ).toBe('')
  expect(admitted("<graphics type='vnc' listen='0.0.0.0' passwd='sesame'/>")).toBe('')
  expect(admitted("<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>")).toBe('')
  expect(admitted("<disk type='file'><driver name='qemu'/><target dev='vda' bus='virtio'/></disk>")).toBe('')
  const cd = "<target dev='sda' bus='sata'/><readonly/>"
  expect(admitted(`<disk type='file' device='cdrom'>${cd}</disk>`)).toBe('')
  expect(admitted(`<disk type='file' device='cdrom'><source file='${kernel}'/>${cd}</disk>`)).toBe('')
})

test.each([
  [
    "<disk type='file'><source file='/etc/shadow'/><target dev='vda' bus='virtio'/></disk>",
    /source: \/etc\/shadow: it names a path of the host/,
  ],
  [
    "<disk type='file'><source file='/etc/shadow'/><target dev='vda' bus='virtio'/><readonly/></disk>",
    /not in a directory from which guests may read/,
  ],
  [
    "<disk type='file'><backingStore type='file'><source file='/etc/shadow'/></backingStore><target dev='vda' bus='virtio'/></disk>",
    /names a path of the host/,
  ],
  [
    "<serial type='file'><source path='/etc/cron.d/x'/></serial>",
    /source: \/etc\/cron.d\/x: it names a path/,
  ],
  ["<serial type='pty'><log file='/etc/cron.d/x'/></serial>", /log: .*names a path/],
  ["<channel type='unix'><source mode='bind' path='/run/x'/></channel>", /names a path/],
  ['<emulator>/tmp/program</emulator>', /\/tmp\/program is not the QEMU of this host/],
  ["<interface type='bridge'><script path='up.sh'/></interface>", /run a program of the host/],
  ["<interface type='bridge'><rom file='/etc/shadow'/></interface>", /rom: .*names a path/],
  ["<graphics type='vnc' listen='0.0.0.0'/>", /needs a password/],
  ["<graphics type='vnc'><listen type='network' network='default'/></graphics>", /needs a password/],
  ["<hostdev mode='subsystem' type='pci'/>", /passed-through/],
])('%s', (devices, reason) => {
  expect(admitted(devices)).toMatch(reason)
})

test.each([
  ["<seclabel type='none'/>", /seclabel: it is not on the list/],
  ['<resource><partition>/machine</partition></resource>', /resource: it is not on the list/],
  ["<qemu:commandline><qemu:env name='LD_PRELOAD' value='x.so'/></qemu:commandline>", /can load code/],
  [
    "<qemu:commandline><qemu:arg value='-kernel'/><qemu:arg value='/etc/shadow'/></qemu:commandline>",
    /-kernel/,
  ],
  ["<qemu:commandline><qemu:arg value='-plugin'/><qemu:arg value='x'/></qemu:commandline>", /-plugin/],
])('%s', (machine, reason) => {
  expect(admitted('', machine)).toMatch(reason)
})

test('before a domain is prepared it is known what will be refused, but for directories of images', () => {
  const xml = (devices: string) =>
    parseDomain(
      `<domain type='kvm'><name>web</name><os><kernel>/srv/vmlinuz</kernel></os><devices>${devices}</devices></domain>`,
    )
  const foreseen = (devices: string) =>
    admissionRefusals(xml(devices), { images: undefined, emulator }).map(({ part }) => part)
  expect(foreseen('')).toEqual([])
  expect(foreseen("<serial type='file'><source path='/var/log/web'/></serial>")).toEqual(['source'])
  expect(foreseen("<graphics type='vnc' listen='0.0.0.0'/>")).toEqual(['graphics'])
})

test("what libvirt only keeps is nobody's path", () => {
  const source =
    "<c:install_source xmlns:c='urn:cockpit'>/var/lib/libvirt/images/debian.iso</c:install_source>"
  const notes = `<title>/ is its root</title><description>/srv</description><metadata>${source}</metadata>`
  expect(admitted('', notes)).toBe('')
})

test('kernels come from directories of images', () => {
  expect(admitted('', '', '<kernel>/etc/shadow</kernel>')).toMatch(/kernel: .*may read/)
  expect(admitted('', '', `<initrd>${guestImage('initrd.gz')}x</initrd>`)).toMatch(/initrd: /)
  expect(admitted('', '', "<loader readonly='yes'>/etc/shadow</loader>")).toMatch(/loader: .*names a path/)
  expect(admitted('', '', '<dtb>/etc/shadow</dtb>')).toMatch(/dtb: .*names a path/)
})
