/**
 * What is behind an element of a domain's description in QEMU, and why another host could not take it over: the rules are those of
 * `run` (qemu/device-policy.ts, qemu/disk-policy.ts), asked with the names that libvirt's elements have in QEMU.
 */
import type { Element } from '@xmldom/xmldom'
import { deviceRefusal } from '../qemu/device-policy.ts'
import { netdevRefusal } from '../qemu/disk-policy.ts'
import { parseOption } from '../qemu/option-syntax.ts'
import { dimmRefusal } from './domain-backends.ts'
import { diskRefusal, isWritable } from './domain-disks.ts'
import { attribute, find } from './domain-xml.ts'

/** Undefined: it can be had. */
export type ElementRule = (element: Element) => string | undefined

const possible: ElementRule = () => undefined

/** As `-device` would be refused. */
const device = (driver: string) => deviceRefusal(parseOption(driver))

const byModel =
  (names: Record<string, string>, at = 'model'): ElementRule =>
  (element) => {
    const model = attribute(find(element, at) ?? element, 'type') ?? attribute(element, at) ?? ''
    return model === 'none' ? undefined : device(names[model] ?? model)
  }

const screens: ElementRule = (element) => {
  const is3d = attribute(find(element, 'model/acceleration'), 'accel3d') === 'yes'
  return byModel({
    vga: 'VGA',
    cirrus: 'cirrus-vga',
    qxl: 'qxl-vga',
    virtio: is3d ? 'virtio-vga-gl' : 'virtio-vga',
    bochs: 'bochs-display',
    vmvga: 'vmware-svga',
  })(element)
}

/** Part of each machine, as QEMU makes it. */
const builtIn = /^(pci\/(pci|pcie)-root|sata\/|ide\/|usb\/none)/
const controllers: Record<string, string> = {
  'usb/': 'piix3-usb-uhci',
  'usb/piix3-uhci': 'piix3-usb-uhci',
  'usb/nec-xhci': 'nec-usb-xhci',
  'usb/ich9-ehci1': 'ich9-usb-ehci1',
  'usb/ich9-uhci1': 'ich9-usb-uhci1',
  'usb/ich9-uhci2': 'ich9-usb-uhci2',
  'usb/ich9-uhci3': 'ich9-usb-uhci3',
  'scsi/': 'lsi53c895a',
  'scsi/lsilogic': 'lsi53c895a',
  'scsi/virtio-scsi': 'virtio-scsi-pci',
  'virtio-serial/': 'virtio-serial-pci',
  'fdc/': 'isa-fdc',
  'ccid/': 'usb-ccid',
}

const controller: ElementRule = (element) => {
  const model = attribute(element, 'model') ?? ''
  const name = `${attribute(element, 'type')}/${model}`
  if (builtIn.test(name)) return undefined
  return device(attribute(find(element, 'model'), 'name') ?? controllers[name] ?? (model || name))
}

const input: ElementRule = (element) => {
  const [type, bus] = [attribute(element, 'type') ?? '', attribute(element, 'bus')]
  if (type === 'evdev' || type === 'passthrough') return 'it is a device of this host'
  if (bus === 'ps2') return undefined
  return device(bus === 'virtio' ? `virtio-${type}-pci` : `usb-${type === 'keyboard' ? 'kbd' : type}`)
}

const diskDevices: Record<string, string> = { virtio: 'virtio-blk-pci', usb: 'usb-storage', fdc: 'floppy' }
const diskDevice = (bus: string, isCd: boolean) =>
  bus === 'scsi'
    ? `scsi-${isCd ? 'cd' : 'hd'}`
    : bus === 'sata' || bus === 'ide'
      ? `ide-${isCd ? 'cd' : 'hd'}`
      : (diskDevices[bus] ?? bus)

const disk: ElementRule = (element) => {
  const kind = attribute(element, 'device') ?? 'disk'
  const bus = attribute(find(element, 'target'), 'bus') ?? ''
  const driver = find(element, 'driver')
  const format = attribute(driver, 'type') ?? 'raw'
  if (kind === 'lun') return device('scsi-block')
  const type = attribute(element, 'type') ?? ''
  if (!/^(file|block)$/.test(type)) return placeRefusal(type, find(element, 'source'))
  if (find(element, 'shareable')) return 'somebody else would write to the disk as well'
  if (find(element, 'transient')) return 'what is written to it is gone when QEMU ends'
  if (find(element, 'encryption') ?? find(element, 'source/encryption'))
    return 'the other host would not have its key'
  if (!/^(raw|qcow2)$/.test(format)) return `its format is ${format}: raw and qcow2 can be mirrored`
  for (const key of ['error_policy', 'rerror_policy'])
    if (attribute(driver, key) === 'ignore') return `${key}=ignore: what is lost would not be noticed`
  const refused = device(diskDevice(bus, kind === 'cdrom'))
  return refused ?? (isWritable(element) ? diskRefusal(element) : undefined)
}

function placeRefusal(type: string, source: Element | undefined): string {
  if (type === 'volume')
    return 'it is a volume of a pool: name it by its path (virsh vol-path), as a disk of type file or block'
  const protocol = type === 'network' ? ` (${attribute(source, 'protocol') ?? 'no protocol'})` : ''
  return `its type is ${type}${protocol}: only files and block devices of a host can be mirrored`
}

/** As -netdev would have it. */
const netdevs: Record<string, string> = {
  bridge: 'tap,script=no,downscript=no',
  network: 'tap,script=no,downscript=no',
  vhostuser: 'vhost-user',
  vdpa: 'vhost-vdpa',
  server: 'socket',
  client: 'socket',
  mcast: 'socket',
  udp: 'socket',
}

const card: ElementRule = (element) => {
  const type = attribute(element, 'type') ?? ''
  if (type === 'hostdev') return device('vfio-pci')
  if (type === 'direct') return 'it is a macvtap of a card of this host; use a bridge'
  const driver = find(element, 'driver')
  if (attribute(driver, 'name') === 'vhost') return netdevRefusal('tap,vhost=on')
  if (Number(attribute(driver, 'queues') ?? 1) > 1)
    return 'QEMU cannot hold back what a card with several queues sends; leave queues out'
  const model = attribute(find(element, 'model'), 'type') ?? 'rtl8139'
  return netdevRefusal(netdevs[type] ?? type) ?? device(model === 'virtio' ? 'virtio-net-pci' : model)
}

/** Libvirt makes the other end anew on each host. */
const channel: ElementRule = (element) => {
  const type = attribute(element, 'type') ?? ''
  const ours = /^(pty|null|file)$/.test(type) || (type === 'unix' && !connects(element))
  return ours ? undefined : `the other host would not have what it is connected to (${type})`
}
const connects = (element: Element) => attribute(find(element, 'source'), 'mode') === 'connect'

const graphics: ElementRule = (element) => {
  const type = attribute(element, 'type')
  if (type === 'vnc') return undefined
  return type === 'spice'
    ? 'it has a screen of VNC as well, and the SPICE server has a state that is not in the device state: take this one out'
    : 'a display would be on one host only; use VNC'
}

const random: ElementRule = (element) =>
  /^(random|builtin)$/.test(attribute(find(element, 'backend'), 'model') ?? '')
    ? undefined
    : 'it takes its numbers from a program of this host'

const hostDevices: Record<string, string> = { usb: 'usb-host', scsi: 'scsi-generic' }

const sound: ElementRule = (element) =>
  attribute(element, 'type') === 'none'
    ? undefined
    : "the other host would not have the sound device: a silent one (type='none') is on every host"

/** By the names of elements in <devices>. */
export const elementRules: Record<string, ElementRule> = {
  emulator: possible,
  hub: possible,
  disk,
  controller,
  input,
  graphics,
  interface: card,
  video: screens,
  serial: channel,
  console: channel,
  parallel: channel,
  channel,
  rng: random,
  audio: sound,
  sound: byModel({ ich6: 'intel-hda', ich9: 'ich9-intel-hda', ac97: 'AC97', usb: 'usb-audio' }),
  hostdev: (element) => device(hostDevices[attribute(element, 'type') ?? ''] ?? 'vfio-pci'),
  redirdev: () => device('usb-redir'),
  filesystem: (element) =>
    device(attribute(find(element, 'driver'), 'type') === 'virtiofs' ? 'vhost-user-fs-pci' : 'virtio-9p-pci'),
  tpm: () => device('tpm-tis'),
  vsock: () => device('vhost-vsock-pci'),
  shmem: () => device('ivshmem-plain'),
  smartcard: () => device('usb-ccid'),
  memory: (element) =>
    attribute(element, 'model') === 'dimm'
      ? dimmRefusal(element)
      : byModel({ 'virtio-pmem': 'virtio-pmem-pci', 'virtio-mem': 'virtio-mem-pci' })(element),
  // The itco watchdog is part of q35.
  watchdog: byModel({ itco: 'i6300esb' }),
  memballoon: byModel({ virtio: 'virtio-balloon-pci' }),
  panic: byModel({ '': 'pvpanic', isa: 'pvpanic', pvpanic: 'pvpanic-pci' }),
  iommu: byModel({ intel: 'intel-iommu', virtio: 'virtio-iommu-pci' }),
}
