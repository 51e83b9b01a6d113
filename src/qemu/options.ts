/**
 * The QEMU options a user gives to `run`: what is refused because a standby could not take it over, and the command
 * line that both hosts start from them. The reasons are facts of QEMU, checked on 7.2 and 10.0.
 */
import { SubpageError } from '../errors.ts'

export interface Machine {
  /** What both hosts must have alike. */
  type: string
  ramBytes: number
  accel: 'kvm' | 'tcg'
  /** The user's options, without -machine. */
  options: string[]
}

export interface LaunchPaths {
  ram: string
  qmp: string
  guardQmp: string
  console: string
  consoleLog: string
}

/** Options that subpage sets itself: two of one kind would contradict each other. */
const ours: Record<string, string> = {
  '-m': 'give the size with --ram',
  '-accel': 'give it with --accel',
  '-enable-kvm': 'give it with --accel kvm',
  '-incoming': 'subpage sets it on the standby',
  '-daemonize': 'subpage keeps the process itself',
  '-mem-path': 'guest RAM is a file of subpage',
  '-mem-prealloc': 'guest RAM is a file of subpage',
  '-pidfile': 'subpage keeps the process itself',
  '-loadvm': 'start the guest without it',
  '-preconfig': 'start the guest without it',
}

const refusals: { flag: RegExp; value: RegExp; reason: string }[] = [
  {
    flag: /^-(netdev|nic)$/,
    value: /^user\b/,
    reason:
      "user-mode networking ends the guest's TCP connections inside the QEMU process, so they die with it; use a tap",
  },
  {
    flag: /^-(netdev|nic)$/,
    value: /vhost=(on|true|force)|^vhost-/,
    reason: 'vhost moves packets past the buffers that hold output back until it is safe; leave vhost off',
  },
  {
    flag: /^-device$/,
    value: /^vfio/,
    reason: 'a passed-through device keeps state that no other host has',
  },
  {
    flag: /^-device$/,
    value: /^vhost-/,
    reason: 'a vhost device keeps state outside QEMU',
  },
  {
    flag: /^-device$/,
    value: /^(VGA|qxl|virtio-vga|virtio-gpu|cirrus-vga|ivshmem|bochs-display|vmware-svga|secondary-vga)/i,
    reason: 'it has writable memory of its own, outside the guest RAM that is protected',
  },
  {
    flag: /^-(hda|hdb|hdc|hdd|pflash|mtdblock|sd|fda|fdb|virtfs|fsdev)$/,
    value: /.*/,
    reason: 'its contents would not be on the other host',
  },
  {
    flag: /^-(drive|blockdev)$/,
    value: /^(?!.*(readonly|read-only)=(on|true)).*$/,
    reason: 'a writable disk would not be on the other host; add readonly=on (read-only=on with -blockdev)',
  },
]

/** Options without a value that users meet; every other option is taken to have one. */
const flagsWithoutValue = new Set(['-S', '-no-reboot', '-no-shutdown', '-no-hpet', '-no-acpi', '-nographic'])

/**
 * Checks the options after `--` and takes the machine type out of them.
 * @throws SubpageError GUEST_UNPROTECTABLE, naming the option and the reason.
 */
export function readOptions(given: string[]): { type: string; options: string[] } {
  let type = 'q35'
  const options: string[] = []
  for (let i = 0; i < given.length; i++) {
    const flag = (given[i] ?? '').replace(/^--/, '-')
    if (!flag.startsWith('-')) refuse(given[i] ?? '', 'it is not an option (disk images go with -drive)')
    const value = flagsWithoutValue.has(flag) ? undefined : given[++i]
    const shown = value === undefined ? flag : `${flag} ${value}`
    const hint = ours[flag]
    if (hint !== undefined) refuse(shown, hint)
    for (const { flag: f, value: v, reason } of refusals)
      if (f.test(flag) && v.test(value ?? '')) refuse(shown, reason)
    if (flag === '-M' || flag === '-machine') type = machineType(value ?? '')
    else options.push(flag, ...(value === undefined ? [] : [value]))
  }
  return { type, options }
}

function machineType(value: string): string {
  if (/memory-backend=/.test(value)) refuse(`-machine ${value}`, 'guest RAM is a file of subpage')
  return value.replace(/^type=/, '')
}

function refuse(option: string, reason: string): never {
  throw new SubpageError('GUEST_UNPROTECTABLE', `cannot protect a guest with ${option}: ${reason}`)
}

/** The whole command line of a guest, running or waiting for its state (`incoming`). */
export function commandLine(name: string, machine: Machine, paths: LaunchPaths, incoming: boolean): string[] {
  return [
    ...['-name', name, '-no-user-config', '-nodefaults', '-display', 'none'],
    // Without suppress-vmdesc and send-configuration=off QEMU refuses the stream of xen-save-devices-state.
    ...['-machine', `${machine.type},memory-backend=ram,suppress-vmdesc=on`],
    ...['-global', 'migration.send-configuration=off'],
    ...['-accel', machine.accel, '-m', `${machine.ramBytes / 1024}k`],
    ...[
      '-object',
      `memory-backend-file,id=ram,size=${machine.ramBytes},mem-path=${doubleCommas(paths.ram)},share=on`,
    ],
    ...['-qmp', `unix:${doubleCommas(paths.qmp)},server=on,wait=off`],
    ...['-qmp', `unix:${doubleCommas(paths.guardQmp)},server=on,wait=off`],
    '-chardev',
    `socket,id=subpage-console,path=${doubleCommas(paths.console)},server=on,wait=off,logfile=${doubleCommas(paths.consoleLog)},logappend=on`,
    ...['-serial', 'chardev:subpage-console'],
    ...machine.options,
    ...(incoming ? ['-incoming', 'defer'] : []),
  ]
}

/** In QEMU's option syntax a comma in a value is doubled. */
function doubleCommas(path: string): string {
  return path.replaceAll(',', ',,')
}

/** Memory that `info ramblock` may list beside the guest RAM: read-only for the guest, the same on both hosts. */
const harmlessBlocks = [/^pc\.(bios|rom)$/, /^\/rom@/, /\.rom$/, /\/rom$/, /^ram$/]

/** Names of RAM blocks with contents of their own that a standby would lack. Input: QEMU's `info ramblock`. */
export function foreignRamBlocks(infoRamblock: string): string[] {
  return infoRamblock
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/)[0] ?? '')
    .filter((name) => name !== '' && !harmlessBlocks.some((pattern) => pattern.test(name)))
}
