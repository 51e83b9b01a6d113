/** Which domains are refused, and that each reason names its part. */
import { expect, test } from 'vitest'
import { refusalsOf } from '../../src/libvirt/domain-policy.ts'
import { parseDomain } from '../../src/libvirt/domain-xml.ts'

const domain = (devices: string, machine = '', type = 'kvm') => `<domain type='${type}'
  xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>web</name><memory unit='KiB'>524288</memory>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>${machine}<devices>${devices}</devices></domain>`
const refused = (devices: string, machine?: string, type?: string) =>
  refusalsOf(parseDomain(domain(devices, machine, type))).map(({ part, reason }) => `${part}: ${reason}`)

const node = (more = '') => `<cell id='0' cpus='0' memory='524288' unit='KiB' ${more}/>`

const dimm = (more = '', source = '') =>
  `<memory model='dimm' ${more}>${source}<target><size unit='KiB'>131072</size><node>0</node></target></memory>`
const room = "<maxMemory slots='1' unit='KiB'>1048576</maxMemory>"

/** As virt-install and virt-manager describe machines. */
const usual = `
  <emulator>/usr/bin/qemu-system-x86_64</emulator>
  <disk type='file' device='cdrom'><target dev='sdb' bus='sata'/><readonly/></disk>
  <disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/><source file='/vm/web.qcow2'/>
    <target dev='vda' bus='virtio'/></disk>
  <disk type='block'><driver name='qemu' cache='none' io='native'/><source dev='/dev/vg/web'/><target dev='sda' bus='scsi'/></disk>
  <disk type='file'><source file='/vm/other'/><target dev='hda' bus='ide'/></disk>
  <controller type='usb' model='qemu-xhci'/><controller type='pci' model='pcie-root'/><controller type='sata' index='0'/>
  <controller type='pci' model='pcie-root-port'><model name='pcie-root-port'/></controller>
  <controller type='scsi' model='virtio-scsi'/><controller type='virtio-serial'/>
  <interface type='network'><mac address='52:54:00:00:00:01'/><model type='virtio'/></interface>
  <interface type='bridge'><mac address='52:54:00:00:00:02'/><model type='e1000e'/></interface>
  <serial type='pty'><target type='isa-serial'/></serial><console type='pty'/>
  <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  <input type='tablet' bus='usb'/><input type='keyboard' bus='ps2'/><input type='mouse' bus='virtio'/>
  <graphics type='vnc' port='-1'/><video><model type='virtio'/></video><video><model type='vga'/></video><audio id='1' type='none'/><sound model='ich9'/><sound model='ac97'/>
  <watchdog model='itco' action='reset'/><memballoon model='virtio'/><memballoon model='none'/>
  <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng><panic model='isa'/>`

test('machines as people have them can be protected', () => {
  expect(refused(usual)).toEqual([])
  expect(refused(usual, '<on_poweroff>destroy</on_poweroff><on_crash>destroy</on_crash>', 'qemu')).toEqual([])
  expect(refused(usual, `<cpu><numa>${node()}</numa></cpu>`)).toEqual([])
  // With room for memory devices, and with some.
  expect(refused(usual, `${room}<cpu><numa>${node()}</numa></cpu>`)).toEqual([])
  expect(
    refused(usual + dimm() + dimm("access='private'"), `${room}<cpu><numa>${node()}</numa></cpu>`),
  ).toEqual([])
})

test.each([
  ["<interface type='user'><model type='virtio'/></interface>", /interface virtio: user-mode networking/],
  ["<interface type='direct'><target dev='macvtap0'/></interface>", /interface macvtap0: .*use a bridge/],
  ["<interface type='bridge'><model type='virtio'/><driver name='vhost'/></interface>", /leave vhost off/],
  [
    "<interface type='bridge'><model type='virtio'/><driver queues='4'/></interface>",
    /interface virtio: .*leave queues out/,
  ],
  ["<interface type='hostdev'/>", /interface hostdev: a passed-through device/],
  ["<interface type='vhostuser'><model type='virtio'/></interface>", /vhost/],
  ["<interface type='bridge'><model type='ne2k_pci'/></interface>", /ne2k_pci is not on the list/],
  [
    "<disk type='network'><source protocol='rbd'/><target dev='vda' bus='virtio'/></disk>",
    /disk vda: its type is network \(rbd\): only files and block devices/,
  ],
  ["<disk type='volume'><target dev='vda' bus='virtio'/></disk>", /disk vda: .*virsh vol-path/],
  ["<disk type='file'><target dev='sdz' bus='usb'/></disk>", /disk sdz: it is on the bus usb/],
  ["<disk type='file'><driver cache='unsafe'/><target dev='vda' bus='virtio'/></disk>", /cache=unsafe/],
  ["<disk type='file'><driver copy_on_read='on'/><target dev='vda' bus='virtio'/></disk>", /copy_on_read/],
  [
    "<disk type='file'><source file='/a'><slices/></source><target dev='vda' bus='virtio'/></disk>",
    /a part of a file/,
  ],
  ["<disk type='file'><target dev='vda' bus='virtio'/><shareable/></disk>", /somebody else would write/],
  ["<disk type='file'><target dev='vda' bus='virtio'/><transient/></disk>", /gone when QEMU ends/],
  ["<disk type='file'><driver type='vmdk'/><target dev='vda' bus='virtio'/></disk>", /format is vmdk/],
  [
    "<disk type='file'><driver error_policy='ignore'/><target dev='a' bus='virtio'/></disk>",
    /error_policy=ignore/,
  ],
  ["<disk type='block' device='lun'><target dev='sda' bus='scsi'/></disk>", /device of this host/],
  ["<disk type='file' device='floppy'><target dev='fda' bus='fdc'/></disk>", /floppy is not on the list/],
  ["<disk type='file'><source><encryption/></source><target dev='a' bus='virtio'/></disk>", /its key/],
  ["<controller type='scsi' model='lsilogic'/>", /lsi53c895a is not on the list/],
  ["<graphics type='sdl'/>", /one host only/],
  ["<video><model type='virtio'><acceleration accel3d='yes'/></model></video>", /outside QEMU/],
  ["<video><model type='ramfb'/></video>", /does not save its state/],
  ["<hostdev mode='subsystem' type='pci'/>", /passed-through/],
  ["<hostdev mode='subsystem' type='usb'/>", /device of this host/],
  ["<redirdev bus='usb' type='tcp'/>", /device of this host/],
  ["<filesystem type='mount'><driver type='virtiofs'/></filesystem>", /vhost device/],
  ["<filesystem type='mount'/>", /opens files of the host/],
  ["<tpm model='tpm-crb'/>", /tpm tpm-crb: the state of a TPM/],
  ["<vsock model='virtio'/>", /vhost device/],
  ["<shmem name='x'/>", /memory is shared/],
  ["<memory model='nvdimm'/>", /memory nvdimm: its memory is a file of this host/],
  ["<memory model='virtio-pmem'/>", /memory virtio-pmem: its memory is a file of this host/],
  ["<memory model='virtio-mem'/>", /memory virtio-mem: .*changes while the guest runs/],
  ["<sound model='usb'/>", /sound usb: QEMU does not save its state/],
  ["<audio id='1' type='pulseaudio'/>", /sound device/],
  ["<serial type='tcp'/>", /connected to \(tcp\)/],
  ["<channel type='unix'><source mode='connect' path='/x'/></channel>", /connected to \(unix\)/],
  ["<channel type='spiceport'/>", /connected to \(spiceport\)/],
  ["<rng model='virtio'><backend model='egd'/></rng>", /program of this host/],
  ["<input type='evdev'/>", /device of this host/],
  ['<novelty/>', /novelty: it is not on the list/],
])('%s', (devices, reason) => {
  expect(refused(devices)).toEqual([expect.stringMatching(reason)])
})

test.each([
  ['<cpu><numa><cell/></numa></cpu>', /cpu\/numa.*KiB/],
  [`<cpu><numa>${node("memAccess='shared'")}</numa></cpu>`, /cpu\/numa: .*shared/],
  [`<cpu><numa>${node()}</numa></cpu><memoryBacking><source type='memfd'/></memoryBacking>`, /leave it out/],
  [`<cpu><numa>${node().repeat(17)}</numa></cpu>`, /16 nodes and memory devices at most/],
  ["<qemu:commandline><qemu:arg value='-numa'/><qemu:arg value='node'/></qemu:commandline>", /under <cpu>/],
  ['<memoryBacking><hugepages/></memoryBacking>', /4 KiB/],
  ["<memoryBacking><allocation mode='immediate'/></memoryBacking>", /twice/],
  ["<launchSecurity type='sev'/>", /encrypted/],
  ['<on_poweroff>restart</on_poweroff>', /on_poweroff: .*destroy/],
  ['<on_crash>preserve</on_crash>', /on_crash/],
  ["<qemu:commandline><qemu:arg value='-s'/></qemu:commandline>", /qemu:commandline: -s: it opens a port/],
  ['<qemu:override/>', /after they were checked/],
])('%s', (machine, reason) => {
  expect(refused('', machine)).toEqual([expect.stringMatching(reason)])
})

test.each([
  [dimm("access='shared'"), /memory dimm: .*shared with another program/],
  [dimm('', "<source><pagesize unit='KiB'>4</pagesize></source>"), /memory dimm: .*leave its source out/],
  [dimm().replace('KiB', 'MiB'), /memory dimm: libvirt does not say its memory in KiB/],
  [dimm().replace('131072', '0'), /memory dimm: libvirt does not say/],
])('%s in a domain with nodes', (devices, reason) => {
  expect(refused(devices, `<cpu><numa>${node()}</numa></cpu>`)).toEqual([expect.stringMatching(reason)])
})

test('memory devices need a node, and are counted with the nodes', () => {
  expect(refused(dimm(), room)).toEqual([expect.stringMatching(/memory dimm: .*needs a NUMA node/)])
  const numa = `<cpu><numa>${node()}</numa></cpu>`
  expect(refused(dimm().repeat(15), numa)).toEqual([])
  expect(refused(dimm().repeat(16), numa)).toEqual([
    expect.stringMatching(/16 nodes and memory devices at most/),
  ])
})

test('other machines', () => {
  expect(refused('', '', 'xen')).toEqual([expect.stringMatching(/domain type xen/)])
  const none = domain('').replace('pc-q35-7.2', 'none')
  expect(refusalsOf(parseDomain(none)).map(({ part }) => part)).toEqual(['os machine none'])
  const arm = domain('').replace('x86_64', 'aarch64')
  expect(refusalsOf(parseDomain(arm)).map(({ part }) => part)).toEqual(['os arch aarch64'])
})
