/**
 * Where a host keeps the disks of its guests. Those of `run` are files and devices that the operator names, or new files. A copy
 * on a standby lies in the file or device that the operator named with `protect --disk-to`, if this host lets other hosts name
 * one there; else where this host kept that disk before, as after a failover; else in a new file, `disks/NAME.ID/DISK.raw` in the
 * state directory.
 */
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  realpathSync,
  statSync,
} from 'node:fs'
import { basename, dirname, join, normalize } from 'node:path'
import { assertUnlocked, inUse } from '../disk/disk-lock.ts'
import { errorCode, SubpageError } from '../errors.ts'
import { kindOfFile } from '../input-file.ts'
import { type Disk, type DiskRequest, type DiskShape, diskBytesMax, sectorBytes } from './disk.ts'
import type { GuestFiles } from './guest-files.ts'
import { readRecord } from './guest-record.ts'
import { within } from './image-files.ts'
import type { Machine } from './options.ts'

/** The disks that are asked for, with their sizes and names. @throws SubpageError BAD_ARGUMENT, DISK_UNUSABLE */
export function disksOf(requests: DiskRequest[], files: GuestFiles, owner: DiskOwner): Disk[] {
  const disks = requests.map((request, index) => diskOf(request, index, files, owner))
  const names = new Set(disks.map(({ name }) => name))
  if (names.size < disks.length) throw new SubpageError('BAD_ARGUMENT', 'two disks have the same name')
  if (new Set(disks.map(({ path }) => path)).size < disks.length)
    throw new SubpageError('BAD_ARGUMENT', 'one file cannot be two disks')
  const lonely = disks.find(({ iothread, bus, drive }) => iothread && bus !== 'virtio' && drive === undefined)
  if (lonely)
    throw new SubpageError('BAD_ARGUMENT', `${lonely.name}: only disks on virtio have a thread of their own`)
  return disks
}

/** The guest that they belong to, for ever: another one of its name has other disks. */
export interface DiskOwner {
  id: string
  name: string
}

/** Where this host keeps a disk that subpage has made for a guest. */
export const ownDiskPath = (files: GuestFiles, { id, name }: DiskOwner, disk: string): string =>
  join(files.disks, `${name}.${id.slice(0, 8)}`, `${disk}.raw`)

/** Where a standby keeps what it has acknowledged of a guest's disks. */
export const journalPath = (files: GuestFiles, owner: DiskOwner): string =>
  ownDiskPath(files, owner, 'x').replace(/x\.raw$/, 'journal')

function diskOf(request: DiskRequest, index: number, files: GuestFiles, owner: DiskOwner): Disk {
  const { path, bytes, format: asked, name = `disk${index}`, bus = 'virtio', ...others } = request
  const shape = { name, bus, ...others }
  if (path === undefined)
    return { ...shape, bytes: bytes ?? 0, path: ownDiskPath(files, owner, name), format: 'raw', made: true }
  const { real, size, format } = lookAt(path, asked)
  assertUnused(real, files)
  return { ...shape, bytes: size, path: real, format }
}

const qcow2Magic = 0x514649fb

/** What a disk that is there says of itself. */
function lookAt(path: string, given: Disk['format'] | undefined) {
  const unusable = (why: string, cause?: unknown) =>
    new SubpageError('DISK_UNUSABLE', `the disk ${path} cannot be used: ${why}`, { cause })
  if (!path.startsWith('/')) throw unusable('give its whole path, beginning with /')
  let file: number | undefined
  try {
    const real = realpathSync(path)
    // Some devices act when they are opened.
    const found = statSync(real)
    if (!found.isFile() && !found.isBlockDevice())
      throw unusable(`it is ${kindOfFile(found)}, neither a file nor a block device`)
    file = openSync(real, 'r+')
    const head = Buffer.alloc(32)
    const isQcow2 =
      readSync(file, head, 0, head.length, 0) === head.length && head.readUInt32BE(0) === qcow2Magic
    const format = given ?? (path.endsWith('.qcow2') ? 'qcow2' : 'raw')
    if (format === 'qcow2' && !isQcow2) throw unusable('it is no qcow2 image')
    // The guest of a raw disk can write such a beginning itself, and would read any file of the host as its backing file.
    if (given === undefined && format === 'raw' && isQcow2)
      throw unusable(
        'it begins as a qcow2 image does: say format=qcow2 if it is one, format=raw if a guest may have written that',
      )
    const size = format === 'qcow2' ? Number(head.readBigUInt64BE(24)) : sizeOf(real, file)
    if (size === 0 || size % sectorBytes !== 0 || size > diskBytesMax)
      throw unusable(`its size, ${size} bytes, is not that of a disk: a multiple of ${sectorBytes}`)
    return { real, size, format }
  } catch (error) {
    if (error instanceof SubpageError) throw error
    const code = errorCode(error)
    throw unusable(code === 'ENOENT' ? 'it does not exist' : (error as Error).message, error)
  } finally {
    if (file !== undefined) closeSync(file)
  }
}

/** Of a raw disk, in bytes. */
function sizeOf(path: string, file: number): number {
  const stats = fstatSync(file)
  if (stats.isFile()) return stats.size
  if (!stats.isBlockDevice()) return 0
  // The kernel counts in 512 bytes, whatever the device's sectors are.
  return Number(readFileSync(`/sys/class/block/${basename(path)}/size`, 'utf8')) * sectorBytes
}

/** Directories of `--disks`. @throws SubpageError BAD_ARGUMENT */
export function readDiskDirectories(given: string | undefined): string[] {
  const directories = given ? given.split(':') : []
  for (const directory of directories)
    if (!directory.startsWith('/') || normalize(directory) === '/')
      throw new SubpageError('BAD_ARGUMENT', `--disks: "${directory}" is not the whole path of a directory`)
  return directories
}

export interface DescribedDisk extends DiskShape {
  /** As the operator named it on the primary's host. */
  place?: string
}

/**
 * @param directories in which a peer may name files and devices
 * @throws SubpageError DISK_UNUSABLE
 */
export function copyOf(
  { place, ...shape }: DescribedDisk,
  files: GuestFiles,
  owner: DiskOwner,
  directories: readonly string[],
): Disk {
  if (place !== undefined) return { ...shape, path: named(place, shape, files, directories), format: 'raw' }
  const kept = keptBefore(files, owner)?.disks.find(({ name }) => name === shape.name)
  // Of a qcow2 file the waiting QEMU would keep in mind what it was before.
  if (kept?.format === 'raw' && !kept.made && sizeOfPath(kept.path) === shape.bytes) {
    assertUnused(kept.path, files)
    return { ...shape, path: kept.path, format: 'raw' }
  }
  return { ...shape, path: ownDiskPath(files, owner, shape.name), format: 'raw', made: true }
}

/** The machine of this same guest when it was on this host. */
export function keptBefore(files: GuestFiles, { id }: DiskOwner): Machine | undefined {
  const before = recordOf(files)
  return before?.id === id ? before.machine : undefined
}

/** About files elsewhere nothing is found out, so that a peer cannot ask which ones exist. */
function named(
  place: string,
  { name, bytes }: DiskShape,
  files: GuestFiles,
  directories: readonly string[],
): string {
  const unusable = (why: string) =>
    new SubpageError('DISK_UNUSABLE', `${place} cannot be the copy of disk ${name}: ${why}`)
  const outside = unusable(
    'this host lets other hosts name no file or device there; its agent has to be started with --disks DIRECTORY',
  )
  if (!place.startsWith('/') || place.includes('\0')) throw unusable('give its whole path, beginning with /')
  if (!directories.some((directory) => within(normalize(place), normalize(directory)))) throw outside
  let real: string
  try {
    real = realpathSync(place)
  } catch {
    throw unusable('it does not exist on this host; make it first')
  }
  const allowed = directories.flatMap((directory) => attempt(() => realpathSync(directory)) ?? [])
  // Names of logical volumes are links to /dev/dm-N.
  if (!isDevice(real) && !allowed.some((directory) => within(real, directory))) throw outside
  const size = sizeOfPath(real)
  if (size !== bytes)
    throw unusable(
      size === undefined
        ? 'it is neither a regular file nor a block device'
        : `it has ${size} bytes, the disk has ${bytes}`,
    )
  assertUnused(real, files)
  return real
}

/**
 * That nobody else has it: no guest, no QEMU, no standby, no mount, no other device on top of it.
 * @throws SubpageError DISK_UNUSABLE
 */
export function assertUnused(path: string, files: GuestFiles): void {
  const guests = dirname(files.directory)
  for (const name of attempt(() => readdirSync(guests)) ?? []) {
    const directory = join(guests, name)
    if (directory === files.directory) continue
    if (
      recordOf({ record: join(directory, basename(files.record)) })?.machine.disks.some(
        (disk) => disk.path === path,
      )
    )
      throw inUse(path, `guest ${name} of this host has it (subpage remove ${name}, if that has ended)`)
  }
  let file: number
  try {
    file = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  } catch (cause) {
    throw new SubpageError('DISK_UNUSABLE', `the disk ${path} cannot be used: ${(cause as Error).message}`, {
      cause,
    })
  }
  try {
    assertUnlocked(path, file)
  } finally {
    closeSync(file)
  }
  if (!isDevice(path)) return
  const holders = attempt(() => readdirSync(`/sys/class/block/${basename(path)}/holders`)) ?? []
  if (holders.length > 0) throw inUse(path, `by ${holders.join(', ')}`)
  try {
    // Of a block device this asks the kernel whether somebody else claims it: a mount, swap, a RAID.
    closeSync(openSync(path, constants.O_RDONLY | constants.O_EXCL))
  } catch (error) {
    if (errorCode(error) === 'EBUSY') throw inUse(path, 'it is mounted, or belongs to something that is')
    throw inUse(path, (error as Error).message)
  }
}

const isDevice = (path: string) => attempt(() => statSync(path))?.isBlockDevice() ?? false

/** Undefined: there is none, or it cannot be read; whoever needs the guest finds that out. */
const recordOf = (files: Pick<GuestFiles, 'record'>) => attempt(() => readRecord(files))

/** Undefined: it is no disk. */
function sizeOfPath(path: string): number | undefined {
  return attempt(() => {
    const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      return sizeOf(path, file) || undefined
    } finally {
      closeSync(file)
    }
  })
}

function attempt<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch {
    // Whatever the reason, it is not there for us; the caller says so.
    return undefined
  }
}
