/**
 * Which QEMU options a guest may have. They are given on one host and executed on another, so a peer that lies must not
 * reach anything of the host it speaks to: there is a list of options that are harmless, with the form of their values,
 * and files only from the image directories and only to be read. Everything else is refused, on `run` already, so that
 * what one host accepts the other accepts too. docs/security.md gives the reasoning; the facts are QEMU's, 7.2 and 10.0.
 */
import { printable, SubpageError } from '../errors.ts'
import { deviceRefusal } from './device-policy.ts'
import { blockdevRefusal, driveRefusal, netdevRefusal, propertiesRefusal } from './disk-policy.ts'
import { imageDirectories, imageRefusal } from './image-files.ts'
import { parseOption } from './option-syntax.ts'

const optionsMax = 256
const valueLengthMax = 4096

/** Why a value is not possible; undefined when it is. `alone` is an option without a value. */
type Rule = 'alone' | ((value: string, images: readonly string[]) => string | undefined)

const word = /^[\w-]+$/
const onOff = /^(on|off)$/
const watchdogAction = /^(reset|shutdown|poweroff|inject-nmi|none)$/
const text = /^[\w .:+@()/-]*$/

const form =
  (pattern: RegExp): Rule =>
  (value) =>
    pattern.test(value) ? undefined : 'its value has a form that is not on the list'

const list =
  (implied: string, properties: Parameters<typeof propertiesRefusal>[1]): Rule =>
  (value, images) =>
    propertiesRefusal(parseOption(value), properties, implied, images)

/** QEMU splits what it is given here at commas and spaces when the kernel is of the multiboot kind. */
const bootFile: Rule = (value, images) =>
  /[\s,]/.test(value) ? 'the path must be without spaces and commas' : imageRefusal(value, images)

const smbios = 'vendor version date release product serial uuid sku family manufacturer asset location value'
const numa = 'nodeid node-id socket-id die-id cluster-id core-id thread-id src dst val'
const globals =
  /^((ICH9-LPC|PIIX4_PM)\.disable_s[34]|ICH9-LPC\.noreboot|kvm-pit\.lost_tick_policy|mc146818rtc\.lost_tick_policy)=\w+$/

const noSoundDevice = 'the other host would not have the sound device'

const rules: Record<string, Rule> = {
  '-S': () => 'a guest is started at once',
  '-no-reboot': 'alone',
  '-no-hpet': 'alone',
  '-no-acpi': 'alone',
  '-usb': 'alone',
  '-smp': form(/^\w+(=\d+)?(,\w+=\d+)*$/),
  '-cpu': form(/^[\w.:+-]+(,[\w.:+=-]+)*$/),
  '-uuid': form(/^[0-9a-fA-F-]{36}$/),
  '-append': form(/^[^\0]*$/),
  '-kernel': bootFile,
  '-initrd': bootFile,
  '-bios': (value, images) => (/^[\w-][\w.-]*$/.test(value) ? undefined : imageRefusal(value, images)),
  '-cdrom': (value, images) => imageRefusal(value, images),
  '-drive': driveRefusal,
  '-blockdev': blockdevRefusal,
  '-netdev': netdevRefusal,
  '-nic': (value) =>
    value === 'none' ? undefined : (netdevRefusal(value) ?? 'write it as -netdev and -device'),
  '-net': (value) => (value === 'none' ? undefined : 'write it as -netdev and -device'),
  '-device': (value) => deviceRefusal(parseOption(value)),
  '-usbdevice': form(/^(tablet|mouse|keyboard)$/),
  '-vga': form(/^(none|std|cirrus|virtio|qxl)$/),
  '-object': objectRefusal,
  '-numa': list('type', {
    type: /^(node|cpu|dist)$/,
    memdev: 'id',
    cpus: /^\d+(-\d+)?$/,
    ...Object.fromEntries(numa.split(' ').map((key) => [key, /^\d+$/])),
  }),
  '-audiodev': (value) =>
    /^(driver=)?none,/.test(value)
      ? propertiesRefusal(parseOption(value), { driver: /^none$/, id: 'id' }, 'driver', [])
      : `${noSoundDevice}; a silent one (none,id=ID) is on every host`,
  '-global': form(globals),
  '-rtc': list('base', {
    base: /^(utc|localtime|\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d)?)$/,
    clock: /^(host|rt|vm)$/,
    driftfix: /^(none|slew)$/,
  }),
  '-boot': list('order', {
    order: /^[a-d n-p]+$/,
    once: /^[a-d n-p]+$/,
    menu: onOff,
    strict: onOff,
    'splash-time': /^\d+$/,
    'reboot-timeout': /^-?\d+$/,
  }),
  '-smbios': list('type', {
    type: /^\d+$/,
    uefi: onOff,
    ...Object.fromEntries(smbios.split(' ').map((key) => [key, text])),
  }),
  '-fw_cfg': list('name', { name: /^opt\/[\w./-]+$/, string: /^[^\0]*$/ }),
  // Nothing may leave a guest standing that shut down or panicked: its end must be the end of QEMU.
  '-action': list('', {
    reboot: /^(reset|shutdown)$/,
    shutdown: /^poweroff$/,
    panic: /^(shutdown|exit-failure|none)$/,
    watchdog: watchdogAction,
  }),
  '-watchdog-action': form(watchdogAction),
  '-msg': list('', { timestamp: onOff, 'guest-name': onOff }),
}

/** Options that subpage sets itself, and the usual ones that are refused: what to do, or why. */
const reasons: Record<string, string> = {
  '-m': 'give the size with --ram',
  '-accel': 'give it with --accel',
  '-enable-kvm': 'give it with --accel kvm',
  '-name': 'the guest has the name that `run` gives it',
  '-incoming': 'subpage sets it on the standby',
  '-daemonize': 'subpage keeps the process itself',
  '-pidfile': 'subpage keeps the process itself',
  '-mem-path': 'guest RAM is a file of subpage',
  '-mem-prealloc': 'guest RAM is a file of subpage',
  '-no-shutdown':
    'QEMU must end when the guest shuts itself down: this is how that is told apart from a death',
  '-loadvm': 'start the guest without it',
  '-preconfig': 'start the guest without it',
  '-nodefaults': 'subpage sets it already',
  '-no-user-config': 'subpage sets it already',
  '-nographic': 'there is no display anyway; the serial console goes to a log',
  '-display': 'a display would be on one host only',
  '-vnc': 'it opens a port on the host: give it with --vnc',
  '-spice': 'it opens a port on the host',
  '-gdb': 'it opens a port on the host',
  '-s': 'it opens a port on the host',
  '-serial': 'the serial console is that of subpage; see `status`',
  '-parallel': 'it opens a channel to the outside',
  '-debugcon': 'it opens a channel to the outside',
  '-chardev': 'it opens a channel to the outside: a file, a socket, a program',
  '-monitor': 'whoever speaks to the monitor rules the host process; subpage has it',
  '-qmp': 'whoever speaks to the monitor rules the host process; subpage has it',
  '-qmp-pretty': 'whoever speaks to the monitor rules the host process; subpage has it',
  '-mon': 'whoever speaks to the monitor rules the host process; subpage has it',
  '-plugin': 'it loads code into the host process',
  '-readconfig': 'it brings in options that nobody has checked',
  '-writeconfig': 'it writes a file of the host',
  '-set': 'it changes options after they were checked',
  '-runas': 'it changes the rights of the host process',
  '-run-with': 'it changes the rights of the host process',
  '-chroot': 'it changes the rights of the host process',
  '-sandbox': 'subpage sets it already',
  '-add-fd': 'the other host would not have the descriptor',
  '-tpmdev':
    'the state of a TPM lies in a program beside QEMU (swtpm) or in a chip of the host, and would not be on the other host',
  '-acpitable': 'it reads a file of the host',
  '-L': 'it makes QEMU read files of the host',
  '-D': 'it writes a file of the host',
  '-d': 'it writes a log without bounds on the host',
  '-trace': 'it writes a file of the host',
  '-audio': `${noSoundDevice}; write it as -audiodev none and -device`,
}

const contents = 'its contents would not be on the other host; a writable disk goes with --disk'
for (const flag of ['hda', 'hdb', 'hdc', 'hdd', 'pflash', 'mtdblock', 'sd', 'fda', 'fdb', 'virtfs', 'fsdev'])
  reasons[`-${flag}`] = contents
reasons['-pflash'] = 'give --firmware uefi, or two drives with if=pflash'

/**
 * Checks the options after `--` and takes the machine type out of them.
 * @param images the directories that files must lie in, of this host
 * @throws SubpageError GUEST_UNPROTECTABLE, naming the option and the reason.
 */
export function readOptions(
  given: string[],
  images: readonly string[] = imageDirectories,
): { type: string; options: string[] } {
  let type = 'q35'
  const options: string[] = []
  for (const { flag, value } of splitOptions(given)) {
    const isMachine = flag === '-M' || flag === '-machine'
    if (value === undefined) {
      options.push(flag)
      continue
    }
    const rule = rules[flag]
    const reason = isMachine ? machineRefusal(value) : rule === 'alone' ? undefined : rule?.(value, images)
    if (reason !== undefined) refuse(`${flag} ${value}`, reason)
    if (isMachine) type = value.replace(/^type=/, '')
    else options.push(flag, value)
  }
  return { type, options }
}

export interface GivenOption {
  /** With one dash. */
  flag: string
  /** Undefined: it has none. */
  value: string | undefined
}

/** @throws SubpageError GUEST_UNPROTECTABLE for an option that is not known, or whose value has no possible form */
export function splitOptions(given: string[]): GivenOption[] {
  const split: GivenOption[] = []
  if (given.length > optionsMax) refuse('so many options', `${optionsMax} at most`)
  for (let i = 0; i < given.length; i++) {
    const flag = (given[i] ?? '').replace(/^--/, '-')
    if (!flag.startsWith('-')) refuse(given[i] ?? '', 'it is not an option (disk images go with -drive)')
    const isMachine = flag === '-M' || flag === '-machine'
    const rule = Object.hasOwn(rules, flag) ? rules[flag] : undefined
    if (rule === undefined && !isMachine) refuse(flag, reasonFor(flag))
    const value = rule === 'alone' ? undefined : given[++i]
    if (value === undefined && rule !== 'alone') refuse(flag, 'its value is missing')
    if (value !== undefined && value.length > valueLengthMax)
      refuse(flag, `its value is longer than ${valueLengthMax} characters`)
    if (value !== undefined && (printable(value) !== value || value.includes('\n')))
      refuse(flag, 'its value has control characters in it')
    split.push({ flag, value })
  }
  return split
}

function reasonFor(flag: string): string {
  return (
    (Object.hasOwn(reasons, flag) ? reasons[flag] : undefined) ??
    'it is not on the list of options that another host can take over safely (docs/security.md)'
  )
}

/** x86 machines, also by the names that distributions give them. */
const machineType = /^(pc|q35|microvm|isapc|ubuntu(-q35)?|pc-(q35|i440fx)-[\w.]+)$/
const machineSwitches =
  'acpi hpet smm vmport usb i8042 sata pit pic rtc smbus isa-serial mem-merge dump-guest-core kernel-irqchip pcie'

function machineRefusal(value: string): string | undefined {
  if (/memory-backend=/.test(value)) return 'guest RAM is a file of subpage'
  if (/\baccel=/.test(value)) return 'give it with --accel'
  return propertiesRefusal(
    parseOption(value),
    { type: machineType, ...Object.fromEntries(machineSwitches.split(' ').map((key) => [key, word])) },
    'type',
    [],
  )
}

const objects: Record<string, Parameters<typeof propertiesRefusal>[1]> = {
  // Of a NUMA node, or a memory device (memory-backends.ts).
  'memory-backend-ram': { size: /^\d+[KMGTkmgt]?$/, merge: onOff, dump: onOff },
  'rng-builtin': {},
  'rng-random': { filename: /^\/dev\/u?random$/ },
  iothread: { 'poll-max-ns': /^\d+$/ },
}

function objectRefusal(value: string): string | undefined {
  const parts = parseOption(value)
  const kind = (parts[0]?.key ?? 'qom-type') === 'qom-type' ? (parts[0]?.value ?? '') : ''
  if (/^memory-backend-(?!ram$)/.test(kind))
    return 'guest RAM is a file of subpage: memory of NUMA nodes and memory devices goes with memory-backend-ram'
  if (!Object.hasOwn(objects, kind)) return 'it may open files or connections of the host'
  return propertiesRefusal(parts, { 'qom-type': /^[\w-]+$/, id: 'id', ...objects[kind] }, 'qom-type', [])
}

/** @throws SubpageError GUEST_UNPROTECTABLE */
export function refuse(option: string, reason: string): never {
  throw new SubpageError('GUEST_UNPROTECTABLE', `cannot protect a guest with ${option}: ${reason}`)
}
