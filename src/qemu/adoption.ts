/**
 * Takes up a QEMU that somebody else has started, a machine that is managed. Its control sockets, its RAM file and the files of the shim
 * get the names that a guest's have, so that all that comes after is as with a QEMU of our own.
 */

import { linkSync, mkdirSync, rmSync, symlinkSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { SubpageError } from '../errors.ts'
import { Region } from '../memory/region.ts'
import { memoryBytes } from './aux-ram.ts'
import { DeviceStateFile } from './device-state-file.ts'
import type { Disk } from './disk.ts'
import { prepareMaps, removeMaps } from './disk-maps.ts'
import { type GuestFiles, removeFiles } from './guest-files.ts'
import { writeRecord } from './guest-record.ts'
import { assertBackends, type GuestIdentity, type Launched, settleAux } from './launch.ts'
import { settleDisks } from './managed-disks.ts'
import { netdevIds } from './nic.ts'
import { Notes } from './notes.ts'
import type { Machine } from './options.ts'
import { addBuffers } from './output-buffers.ts'
import type { ProcessIdentity } from './process.ts'
import type { QemuProcess } from './qemu-process.ts'
import { Qmp } from './qmp.ts'

const linked = ['qmp', 'qmpEvents', 'guardQmp', 'observerQmp', 'lease', 'forget', 'shimStatus'] as const

/** Where the files of such a QEMU are. */
export type ManagedFiles = Pick<GuestFiles, (typeof linked)[number] | 'ram'>

/** Gives the files of a QEMU the names of a guest's. @throws the file system's own error */
export function linkFiles(files: GuestFiles, there: ManagedFiles): void {
  mkdirSync(files.directory, { recursive: true, mode: 0o700 })
  for (const key of linked) {
    rmSync(files[key], { force: true })
    symlinkSync(there[key], files[key])
  }
  // By another name the file outlasts its first one, which the next start of the machine takes.
  rmSync(files.ram, { force: true })
  linkSync(there.ram, files.ram)
}

/**
 * Takes up a guest that runs, in a QEMU that somebody else has started.
 * @throws SubpageError QEMU_FAILED, GUEST_UNPROTECTABLE. The guest runs on as it did.
 */
export async function adopt(
  { id, name, generation }: GuestIdentity,
  machine: Machine,
  files: GuestFiles,
  there: ManagedFiles,
  process: ProcessIdentity,
): Promise<Launched> {
  linkFiles(files, there)
  let qmp: Qmp | undefined
  let ram: Region | undefined
  try {
    qmp = await Qmp.connect(files)
    await addBuffers(qmp, netdevIds(machine))
    const disks = await settleDisks(qmp, machine.disks, false)
    await prepareMaps(files, { id, name }, disks, false)
    assertBackends(name, machine, files)
    const aux = await settleAux(name, qmp, files, machine.backends)
    ram = Region.map(files.ram, { writable: true, bytes: memoryBytes({ ...machine, aux }) })
    const record = {
      ...({ format: 1, id, generation, arbitrated: false, name } as const),
      ...{ machine: { ...machine, disks, aux }, qemuVersion: qmp.version, process, waiting: false },
    }
    const deviceState = DeviceStateFile.of(process.pid, files.directory)
    writeRecord(files, record)
    return { record, qmp, ram, deviceState, vnc: undefined, notes: new Notes(), made: [] }
  } catch (error) {
    qmp?.close()
    ram?.close()
    removeMaps(files, { id, name }, machine.disks)
    removeFiles(files)
    throw error
  }
}

/**
 * What somebody has plugged in since a machine was taken up, or out, and where its disks are now. Nothing protects it.
 * @param machine as its manager describes it now
 * @param signal aborted when nobody waits for it any more
 * @throws SubpageError QEMU_FAILED, GUEST_UNPROTECTABLE; why the signal was aborted. It is what it was then
 */
export async function refit(qemu: QemuProcess, machine: Machine, signal: AbortSignal): Promise<void> {
  const { qmp, files, record, ram } = qemu
  const { id, name } = record
  // A mirror that a former supervisor has left would be taken for the disk.
  await qemu.devices.disks.end()
  const disks = await settleDisks(qmp, machine.disks, false)
  const aux = await settleAux(name, qmp, files, machine.backends)
  const now = asMade({ ...machine, disks, aux }, record.machine)
  if (memoryBytes(now) !== ram.bytes)
    throw new SubpageError(
      'GUEST_UNPROTECTABLE',
      `${name} has other memory than when it was taken up (a network card brings its ROM): shut it down and start it`,
    )
  signal.throwIfAborted()
  // Those of a card that was plugged out and in again have gone with it, though the machine is the same.
  await addBuffers(qmp, netdevIds(machine))
  signal.throwIfAborted()
  if (isDeepStrictEqual(now, record.machine)) return
  for (const map of qemu.devices.maps.all) map?.forget()
  removeMaps(files, record, record.machine.disks)
  await prepareMaps(files, { id, name }, disks, false)
  signal.throwIfAborted()
  qemu.refit(now)
}

/** What subpage has made, and is still there, stays its own. */
function asMade(now: Machine, { disks, firmware }: Machine): Machine {
  const isMade = ({ name, path }: Disk) =>
    disks.some((disk) => disk.made && disk.name === name && disk.path === path)
  const own = firmware?.made && firmware.nvram === now.firmware?.nvram
  return {
    ...now,
    disks: now.disks.map((disk) => (isMade(disk) ? { ...disk, made: true } : disk)),
    ...(own && { firmware: { ...now.firmware!, made: true } }),
  }
}
