/** The files in which guests keep the variables of their firmware: which one a host has for a guest, and how it is made. */
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { errorCode, SubpageError } from '../errors.ts'
import { assertUnused, type DiskOwner, keptBefore, ownDiskPath } from './disk-places.ts'
import { type Firmware, type FirmwareKind, type FirmwareRequest, findFirmware } from './firmware.ts'
import type { GuestFiles } from './guest-files.ts'

const fileName = (files: GuestFiles, owner: DiskOwner) =>
  ownDiskPath(files, owner, 'nvram').replace(/raw$/, 'fd')

/** As `run` asks for it. @throws SubpageError FIRMWARE_MISSING, DISK_UNUSABLE */
export function firmwareFor(request: FirmwareRequest, files: GuestFiles, owner: DiskOwner): Firmware {
  const { kind, nvram: path } = request
  const { code, template } = findFirmware(kind)
  if (path === undefined) return { kind, code, nvram: fileName(files, owner), made: true }
  const unusable = (why: string, cause?: unknown) =>
    new SubpageError('DISK_UNUSABLE', `the firmware's variables in ${path} cannot be used: ${why}`, { cause })
  if (!path.startsWith('/')) throw unusable('give the whole path, beginning with /')
  let real: string
  try {
    real = realpathSync(path)
  } catch (cause) {
    throw unusable(errorCode(cause) === 'ENOENT' ? 'it does not exist' : (cause as Error).message, cause)
  }
  const [found, wanted] = [statSync(real), statSync(template)]
  if (!found.isFile() || found.size !== wanted.size)
    throw unusable(`it must be a file of ${wanted.size} bytes, as ${template} is, which belongs to ${code}`)
  assertUnused(real, files)
  return { kind, code, nvram: real }
}

/**
 * On a standby, whose QEMU writes the variables when it takes over: where this host kept them before, as after a failover, or in a new file.
 * @throws SubpageError FIRMWARE_MISSING
 */
export function firmwareOfCopy(kind: FirmwareKind, files: GuestFiles, owner: DiskOwner): Firmware {
  const { code, template } = findFirmware(kind)
  const before = keptBefore(files, owner)?.firmware
  if (before?.kind === kind && before.made !== true && sizeOf(before.nvram) === sizeOf(template))
    return { kind, code, nvram: before.nvram }
  return { kind, code, nvram: fileName(files, owner), made: true }
}

/** Undefined: there is no such file. */
function sizeOf(path: string): number | undefined {
  const stats = statSync(path, { throwIfNoEntry: false })
  return stats?.isFile() ? stats.size : undefined
}

/**
 * Makes the file if it is ours and not there, with all its room: a guest that takes over must find it.
 * @returns whether it was made
 */
export function makeNvram({ kind, nvram, made }: Firmware): boolean {
  if (made !== true) return false
  mkdirSync(dirname(nvram), { recursive: true, mode: 0o700 })
  let file: number
  try {
    const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
    file = openSync(nvram, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false
    throw error
  }
  try {
    const content = readFileSync(findFirmware(kind).template)
    for (let at = 0; at < content.length; ) at += writeSync(file, content, at)
    return true
  } catch (error) {
    rmSync(nvram, { force: true })
    throw error
  } finally {
    closeSync(file)
  }
}
