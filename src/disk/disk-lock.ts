/**
 * Who has a disk, so that nobody writes into what is somebody else's. QEMU says so by locks on bytes of the file, which cluster and
 * network file systems carry to other hosts; a standby that writes its copy holds flock(2), which does not hinder the QEMU that waits
 * to take the copy over.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { SubpageError } from '../errors.ts'
import { addon } from '../memory/native.ts'

/** From here on QEMU locks one byte for each thing that it does, and 100 further on for each that others must not do. */
const qemuLocks = { from: 100, bytes: 200 }

export const inUse = (path: string, why: string) =>
  new SubpageError('DISK_UNUSABLE', `the disk ${path} is in use: ${why}`)

/** Until the descriptor is closed. @throws SubpageError DISK_UNUSABLE */
export function claimCopy(path: string, file: number): void {
  if (!addon.lockFile(file)) throw inUse(path, 'another standby keeps a copy there')
}

/** @param file open for writing @throws SubpageError DISK_UNUSABLE */
export function assertUnlocked(path: string, file: number): void {
  if (addon.rangeLocked(file, qemuLocks.from, qemuLocks.bytes)) throw inUse(path, 'another QEMU has it')
  claimCopy(path, file)
  const device = loopDeviceOf(path)
  if (device !== undefined) throw inUse(path, `${device} is made of it`)
}

function loopDeviceOf(path: string): string | undefined {
  const device = blockDevices().find((name) => backingFile(name) === path)
  return device === undefined ? undefined : `/dev/${device}`
}

function blockDevices(): string[] {
  try {
    return readdirSync('/sys/block')
  } catch {
    // Without sysfs there is nothing to be found out.
    return []
  }
}

function backingFile(device: string): string | undefined {
  if (!device.startsWith('loop')) return undefined
  try {
    return readFileSync(`/sys/block/${device}/loop/backing_file`, 'utf8').trimEnd()
  } catch {
    // It stands on none.
    return undefined
  }
}
