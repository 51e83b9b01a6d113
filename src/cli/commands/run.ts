/** The command that starts a guest. */
import { resolve } from 'node:path'
import type { RunBody } from '../../agent/api.ts'
import { SubpageError } from '../../errors.ts'
import { type PluginPart, pluginPartNames } from '../../qemu/plugin.ts'
import type { Vnc } from '../../qemu/screen.ts'
import { agentFlags, agentOf } from '../agent-of.ts'
import { type Command, type Invocation, read, text } from '../command.ts'
import { guestName } from '../guest-name.ts'
import { ifSlow } from '../progress.ts'
import { formatBytes, parseSize, within } from '../sizes.ts'
import { vncText } from '../status-text.ts'
import { warnOfMissing } from '../warn-of-missing.ts'

/** Options of QEMU whose value is a file. */
const fileOptions = new Set(['-kernel', '-initrd', '-dtb', '-bios', '-cdrom'])

export const runCommand: Command = {
  name: 'run',
  args: ['<name>'],
  summary: 'start a guest that can be protected',
  rest: 'QEMU options',
  help: 'Example:\n  subpage run web --ram 1G --net bridge=br0 -- -smp 2 -kernel /var/lib/subpage/images/vmlinuz -append console=ttyS0\n\nThe machine type defaults to q35. A bridge that a host does not have is made there and stays; put a network card of the host on it.\nThe address of a card follows from the name of the guest unless it is given: guests of the same name on one network need mac=. The serial console goes to a log that `status` names.',
  flags: [
    ...agentFlags,
    { form: '--ram <size>', summary: 'guest memory', default: '512M' },
    {
      form: '--accel <accel>',
      summary: 'how the guest is executed',
      default: 'auto',
      choices: ['auto', 'kvm', 'tcg'],
    },
    {
      form: '--track <parts>',
      summary:
        'let QEMU note every access, for `record` and studies: lines, pml, prl, accesses, separated by commas; with tcg only',
      many: true,
    },
    {
      form: '--net <card>',
      summary: 'a network card: bridge=NAME[,mac=ADDRESS]; the bridge must have this name on both hosts',
      many: true,
    },
    {
      form: '--firmware <firmware>',
      summary:
        'uefi or secure-boot, with ,nvram=PATH for a file of variables that is there; without it SeaBIOS, or what -bios names',
    },
    {
      form: '--vnc <display>',
      summary:
        'a screen, shown by VNC on the host where the guest runs: auto or a number, with an address before it ([0.0.0.0:]auto) if not for this machine alone',
    },
    { form: '--vnc-password-file <file>', summary: 'file with the password for it, up to 8 characters' },
    { form: '--vnc-tls', summary: 'encrypt it, with the certificate of the host where the guest runs' },
    {
      form: '--disk <disk>',
      summary:
        'a writable disk: the path of a file or device, or size=SIZE for a new one; with name=NAME, bus=virtio|scsi|sata, format=raw|qcow2, cache=writeback|none|writethrough|directsync, iothread=on, bootindex=N, discard=unmap, werror=report|enospc|stop, rerror=report|stop, aio=threads|native|io_uring',
      many: true,
    },
  ],
  async run(invocation) {
    const { parseNics } = await import('../../qemu/nic.ts')
    const { parseFirmware } = await import('../../qemu/firmware.ts')
    const { parseDisks } = await import('../../qemu/disk.ts')
    const accel = text(invocation, 'accel') as RunBody['accel']
    using _ = accel === 'auto' ? ifSlow(invocation.output, kvmIsTried) : undefined
    const status = await agentOf(invocation).run({
      name: guestName(String(invocation.args[0])),
      ramBytes: read(invocation, 'ram', guestSize),
      accel,
      options: absolutePaths(invocation.rest),
      ...(invocation.flags.firmware !== undefined && {
        firmware: read(invocation, 'firmware', parseFirmware),
      }),
      ...(await readVnc(invocation)),
      ...(invocation.flags.track !== undefined && { track: read(invocation, 'track', parseTrack) }),
      nics: invocation.flags.net === undefined ? [] : read(invocation, 'net', parseNics),
      disks:
        invocation.flags.disk === undefined
          ? []
          : read(invocation, 'disk', (value) => parseDisks(value, parseSize)),
    })
    warnOfMissing(invocation, status)
    const screen = status.vnc ? `\nscreen: ${vncText(status.vnc)}` : ''
    invocation.output.data(
      status,
      () =>
        `${status.name} runs: ${formatBytes(status.ramBytes)}, ${status.accel}, QEMU ${status.qemu}, process ${status.pid}\nconsole: ${status.console}${screen}`,
    )
  },
}

/** @throws SubpageError BAD_ARGUMENT */
async function readVnc(invocation: Invocation): Promise<{ vnc?: Vnc }> {
  const { parseVnc, readPassword } = await import('../../qemu/screen.ts')
  const { readSecretFile } = await import('../../agent/secret-file.ts')
  const { vncPasswordFile: file, vncTls: tls, vnc: display } = invocation.flags
  if (display === undefined && (file !== undefined || tls !== undefined))
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${file === undefined ? '--vnc-tls' : '--vnc-password-file'} is for a screen: give --vnc auto as well`,
    )
  if (display === undefined) return {}
  const vnc = { ...read(invocation, 'vnc', parseVnc), ...(tls !== undefined && { tls: true }) }
  if (file === undefined) return { vnc }
  const password = readPassword(readSecretFile(String(file), 'the VNC password'), String(file))
  return { vnc: { ...vnc, password } }
}

const kvmIsTried =
  'starting; the first time after a boot the agent tries whether KVM runs a guest here before, which takes 8 s at most (--accel tcg or kvm does without)'

/** @throws SubpageError BAD_ARGUMENT */
function parseTrack(value: string): PluginPart[] {
  return value.split(',').map((word) => {
    const part = pluginPartNames.find((name) => name === word.trim())
    if (part) return part
    throw new SubpageError('BAD_ARGUMENT', `cannot track "${word}": choose of ${pluginPartNames.join(', ')}`)
  })
}

/** As the agent takes it (src/agent/api.ts). */
const guestSize = within(
  (value) => {
    const bytes = parseSize(value)
    if (bytes % 4096 === 0) return bytes
    throw new SubpageError('BAD_ARGUMENT', `${value} is not a multiple of 4 KiB`)
  },
  16 * 2 ** 20,
  Number.MAX_SAFE_INTEGER,
  formatBytes,
)

/** The agent has a working directory of its own: files are named from the root. */
function absolutePaths(options: string[]): string[] {
  return options.map((value, i) => (fileOptions.has(options[i - 1] ?? '') ? resolve(value) : value))
}
