/**
 * The command line that both hosts start a guest with. The user's options in it have passed option-policy.ts. The reasons
 * are facts of QEMU, checked on 7.2 and 10.0.
 */

import { type Static, Type } from '#typebox'
import { Disk, diskOptions, withNodes } from './disk.ts'
import { Firmware, firmwareOfMachine, firmwareOptions } from './firmware.ts'
import { Managed } from './managed.ts'
import { memoryLayout } from './memory-backends.ts'
import { Nic, netdevIds, nicOptions } from './nic.ts'
import { doubleCommas } from './option-syntax.ts'
import { bufferOptions } from './output-buffers.ts'
import { pluginOption, pluginPartNames } from './plugin.ts'
import type { QmpSockets } from './qmp.ts'
import { Screen, type ScreenPaths, vncOptions } from './screen.ts'

export const Machine = Type.Object({
  /** What both hosts must have alike. */
  type: Type.String(),
  ramBytes: Type.Integer(),
  accel: Type.Enum(['kvm', 'tcg']),
  /** Bytes of each memory backend (memory-backends.ts), in order; left out when the RAM is one. */
  backends: Type.Optional(Type.Array(Type.Integer({ minimum: 4096 }))),
  /** The user's options, without -machine. */
  options: Type.Array(Type.String()),
  /** What QEMU's plugin notes of its accesses; nothing when left out. Of this host alone: a standby runs without. */
  track: Type.Optional(Type.Array(Type.Enum(pluginPartNames))),
  /** Network cards by `--net`; the user's options may have others. */
  nics: Type.Array(Nic),
  /** Writable ones, by `--disk` and by the user's options, which may have others to read. */
  disks: Type.Array(Disk),
  /** Without it the one that QEMU brings along (SeaBIOS). */
  firmware: Type.Optional(Firmware),
  /** Where its screen is shown. */
  vnc: Type.Optional(Screen),
  /** Bytes of each block of memory behind the RAM in its file (aux-ram.ts), in order; both hosts have the same. */
  aux: Type.Optional(Type.Array(Type.Integer({ minimum: 4096 }))),
  /** Somebody else starts it, by a description of their own: the options and cards above are empty. */
  managed: Type.Optional(Managed),
})
export type Machine = Static<typeof Machine>

export interface LaunchPaths extends QmpSockets, ScreenPaths {
  directory: string
  ram: string
  /** The file that QEMU's plugin shares. */
  accesses: string
  guardQmp: string
  /** For `subpage record`, which must not take the agent's or the guard's. */
  observerQmp: string
  console: string
  consoleLog: string
}

/** The whole command line of a guest, running or waiting for its state (`incoming`). */
export function commandLine(name: string, machine: Machine, paths: LaunchPaths, incoming: boolean): string[] {
  const { backends, mainBytes, nodes, devices } = memoryLayout(
    machine.type,
    machine.options,
    machine.ramBytes,
  )
  // The main memory is ours, unless it is that of nodes; where it is not all RAM, it is put into the file as the others are.
  const main =
    backends === undefined
      ? `memory-backend-file,id=ram,size=${mainBytes},mem-path=${doubleCommas(paths.ram)},share=on`
      : `memory-backend-ram,id=ram,size=${mainBytes}`
  return [
    ...['-name', name, '-no-user-config', '-nodefaults', '-display', 'none'],
    // Without suppress-vmdesc and send-configuration=off QEMU refuses the stream of xen-save-devices-state.
    ...[
      '-machine',
      `${machine.type}${firmwareOfMachine(machine.firmware)}${nodes > 0 ? '' : ',memory-backend=ram'},suppress-vmdesc=on`,
    ],
    ...['-global', 'migration.send-configuration=off'],
    // As many slots as are taken: nothing can be plugged in beside.
    ...['-accel', machine.accel, '-m'],
    `${mainBytes / 1024}k${devices > 0 ? `,slots=${devices},maxmem=${machine.ramBytes / 1024}k` : ''}`,
    ...(nodes > 0 ? [] : ['-object', main]),
    ...[paths.qmp, paths.qmpEvents, paths.guardQmp, paths.observerQmp].flatMap((path) => [
      '-qmp',
      `unix:${doubleCommas(path)},server=on,wait=off`,
    ]),
    '-chardev',
    `socket,id=subpage-console,path=${doubleCommas(paths.console)},server=on,wait=off,logfile=${doubleCommas(paths.consoleLog)},logappend=on`,
    ...['-serial', 'chardev:subpage-console'],
    // A guest that breaks out of its devices finds a process that starts no programs and gains no rights.
    ...['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    ...nicOptions(machine.nics, paths.directory),
    ...diskOptions(machine.disks),
    ...firmwareOptions(machine.firmware),
    ...vncOptions(machine.vnc, paths, incoming),
    ...withNodes(machine.options, machine.disks),
    ...bufferOptions(netdevIds(machine)),
    ...pluginOption(machine, paths.accesses),
    ...(incoming ? ['-incoming', 'defer'] : []),
  ]
}
