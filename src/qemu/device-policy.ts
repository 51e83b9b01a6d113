/**
 * The devices that a protected guest may have: emulated ones whose whole state is in guest RAM and in QEMU's device
 * state, and which touch nothing of the host. Everything else is refused, the usual ones with their reason.
 */
import type { OptionPart } from './option-syntax.ts'

const devices = new Set([
  ...[
    'virtio-net-pci',
    'virtio-net-pci-transitional',
    'virtio-net-pci-non-transitional',
    'virtio-net-device',
  ],
  ...['e1000', 'e1000e', 'rtl8139'],
  ...[
    'virtio-blk-pci',
    'virtio-blk-pci-transitional',
    'virtio-blk-pci-non-transitional',
    'virtio-blk-device',
  ],
  ...['virtio-scsi-pci', 'scsi-hd', 'scsi-cd', 'ahci', 'ich9-ahci', 'ide-hd', 'ide-cd'],
  ...['virtio-rng-pci', 'virtio-rng-device', 'virtio-balloon-pci', 'virtio-balloon-device'],
  ...['virtio-keyboard-pci', 'virtio-mouse-pci', 'virtio-tablet-pci', 'virtio-serial-pci'],
  ...['qemu-xhci', 'nec-usb-xhci', 'usb-ehci', 'ich9-usb-ehci1', 'piix3-usb-uhci'],
  // The companions that libvirt gives the ich9-usb-ehci1.
  ...['ich9-usb-uhci1', 'ich9-usb-uhci2', 'ich9-usb-uhci3'],
  ...['usb-kbd', 'usb-mouse', 'usb-tablet', 'usb-hub', 'usb-storage'],
  ...['pcie-root-port', 'pcie-pci-bridge', 'pci-bridge', 'ioh3420', 'x3130-upstream', 'xio3130-downstream'],
  // Its memory is in the RAM file (memory-backends.ts).
  'pc-dimm',
  ...['pvpanic', 'pvpanic-pci', 'i6300esb', 'ib700', 'vmcoreinfo', 'vmgenid', 'isa-debug-exit'],
  // What they play goes nowhere (-audiodev none): the other host would not have the sound device.
  ...['intel-hda', 'ich9-intel-hda', 'hda-duplex', 'hda-output', 'hda-micro', 'AC97'],
  // Their video memory is in the RAM file (aux-ram.ts). Not ramfb: before QEMU 8.2 it forgets where its screen is.
  ...[
    'VGA',
    'secondary-vga',
    'bochs-display',
    'cirrus-vga',
    'virtio-vga',
    'virtio-gpu-pci',
    'qxl',
    'qxl-vga',
  ],
  // Not amd-iommu: QEMU 7.2 crashes when it saves the state of one.
  ...['intel-iommu', 'virtio-iommu-pci'],
])

const reasons: { driver: RegExp; reason: string }[] = [
  { driver: /^vfio/, reason: 'a passed-through device keeps state that no other host has' },
  {
    driver: /^(usb-host|usb-redir|scsi-block|scsi-generic|u2f-passthru)/,
    reason: 'it is a device of this host',
  },
  { driver: /^vhost-/, reason: 'a vhost device keeps state outside QEMU' },
  {
    driver: /^(virtio-vga-gl|virtio-gpu-gl|vhost-user-(vga|gpu))/,
    reason: 'it keeps what it draws outside QEMU',
  },
  { driver: /^ivshmem/, reason: 'its memory is shared with others' },
  {
    driver: /^(ramfb|vmware-svga|ati-vga)/,
    reason: 'QEMU 7.2 does not save its state; VGA, virtio-vga, qxl-vga and bochs-display are saved',
  },
  { driver: /^usb-audio$/, reason: 'QEMU does not save its state; ich9-intel-hda and AC97 are saved' },
  {
    driver: /^virtio-mem/,
    reason: 'how much of its memory is there changes while the guest runs; pc-dimm has a fixed size',
  },
  { driver: /^(nvdimm|virtio-pmem)/, reason: 'its memory is a file of this host' },
  { driver: /^(loader|guest-loader)$/, reason: 'it reads a file of the host' },
  { driver: /^(usb-mtp|virtio-9p|vhost-user-fs)/, reason: 'it opens files of the host to the guest' },
  {
    driver: /^tpm-/,
    reason:
      'the state of a TPM lies beside QEMU, in a program (swtpm) or a chip of the host, and would not be on the other host',
  },
  {
    driver: /^(isa-serial|pci-serial|usb-serial|virtconsole|virtserialport|isa-debugcon|ipmi-)/,
    reason: 'it needs a channel to the outside, which the other host would not have',
  },
]

/** Properties by which a device reaches outside of QEMU. */
const outward: Record<string, string> = {
  chardev: 'it opens a channel to the outside',
  file: 'it names a file',
  filename: 'it names a file',
  logfile: 'it names a file',
  rootdir: 'it opens files of the host to the guest',
  'kernel-image': 'it names a file',
}

/** Why a device cannot be had; undefined when it can. */
export function deviceRefusal(parts: OptionPart[]): string | undefined {
  const driver = parts.find(({ key }, index) => key === 'driver' || (index === 0 && key === undefined))?.value
  if (driver === undefined || driver.startsWith('{')) return 'write it as DEVICE,property=value'
  const known = reasons.find((entry) => entry.driver.test(driver))
  if (known) return known.reason
  if (!devices.has(driver)) return `${driver} is not on the list of devices that another host can take over`
  // The last one would count for QEMU, so there must be but one.
  if (parts.filter(({ key }, index) => key === 'driver' || (index === 0 && key === undefined)).length > 1)
    return 'it names two devices'
  for (const { key, value } of parts) {
    const reason = key === undefined ? undefined : propertyRefusal(key, value)
    if (reason !== undefined) return reason
  }
  return undefined
}

function propertyRefusal(key: string, value: string): string | undefined {
  if (Object.hasOwn(outward, key)) return `${key}=: ${outward[key]}`
  if (key === 'romfile')
    return value === '' ? undefined : 'romfile=: give it empty; a ROM is a file of the host'
  if (!/^[A-Za-z][\w.-]*$/.test(key)) return `"${key}" is not a property`
  if (!/^[\w.:+@ -]*$/.test(value)) return `${key}=${value}: only letters, digits and .:+@_- may be in it`
  return key === 'id' ? idRefusal(value) : undefined
}

/** Names that subpage's own parts of the machine have. */
export function idRefusal(id: string): string | undefined {
  if (!/^[A-Za-z][\w.-]{0,62}$/.test(id))
    return `id=${id}: begin it with a letter; letters, digits and ._- may follow`
  return /^(ram$|subpage)/.test(id) ? `id=${id}: the name is subpage's own` : undefined
}
