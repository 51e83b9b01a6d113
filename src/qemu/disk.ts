/**
 * The writable disks of a guest: what both hosts have alike, and where each host keeps its own. A guest's disk on its first host
 * is a file or device of the operator's; on a standby it is a raw file that subpage makes, `disks/NAME.ID/DISK.raw` in the state
 * directory, so a peer names no path.
 */
import { closeSync, fstatSync, openSync, readFileSync, readSync, realpathSync, statSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { type Static, Type } from 'typebox'
import { errorCode, SubpageError } from '../errors.ts'
import { kindOfFile } from '../input-file.ts'
import type { GuestFiles } from './guest-files.ts'
import { doubleCommas, splitAtCommas } from './option-syntax.ts'

const namePattern = '^[A-Za-z0-9][A-Za-z0-9_-]{0,15}$'
export const disksMax = 16
const sectorBytes = 512
/** As far as all arithmetic goes. */
const diskBytesMax = 64 * 2 ** 40

const buses = ['virtio', 'scsi', 'sata'] as const
const formats = ['raw', 'qcow2'] as const

/** What both hosts have alike: it decides what the guest sees. */
export const DiskShape = Type.Object(
  {
    /** Also its serial number, by which the guest finds it: /dev/disk/by-id/virtio-NAME. */
    name: Type.String({ pattern: namePattern }),
    bytes: Type.Integer({ minimum: sectorBytes, multipleOf: sectorBytes, maximum: diskBytesMax }),
    bus: Type.Enum([...buses]),
  },
  { additionalProperties: false },
)
export type DiskShape = Static<typeof DiskShape>

/** With where this host keeps it. */
export const Disk = Type.Object(
  {
    ...DiskShape.properties,
    path: Type.String(),
    format: Type.Enum([...formats]),
    /** By subpage, in its own directory of disks. */
    made: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
)
export type Disk = Static<typeof Disk>

/** As `run` gets it: a file or device, or a size for a new one. */
export const DiskRequest = Type.Object(
  {
    path: Type.Optional(Type.String({ maxLength: 4096 })),
    bytes: Type.Optional(DiskShape.properties.bytes),
    name: Type.Optional(DiskShape.properties.name),
    bus: Type.Optional(DiskShape.properties.bus),
    format: Type.Optional(Disk.properties.format),
  },
  { additionalProperties: false },
)
export type DiskRequest = Static<typeof DiskRequest>

/**
 * Reads any number of `PATH[,KEY=VALUE…]` and `size=SIZE[,KEY=VALUE…]`, separated by commas; a key that comes again begins the
 * next disk.
 * @param parseSize of a size with its unit
 * @throws SubpageError BAD_ARGUMENT
 */
export function parseDisks(text: string, parseSize: (text: string) => number): DiskRequest[] {
  const disks: Record<string, string>[] = []
  for (const { key, value } of text === '' ? [] : splitAtCommas(text).map(wordOf)) {
    const present = disks.at(-1)
    const source = key === 'path' || key === 'size'
    if (!present || key in present || (source && ('path' in present || 'size' in present)))
      disks.push({ [key]: value })
    else present[key] = value
  }
  return disks.map((words) => parseDisk(words, parseSize))
}

const wordOf = (word: string) => {
  const at = word.indexOf('=')
  return at < 0 ? { key: 'path', value: word } : { key: word.slice(0, at), value: word.slice(at + 1) }
}

function parseDisk(words: Record<string, string>, parseSize: (text: string) => number): DiskRequest {
  const wrong = (why: string): never => {
    const given = Object.entries(words).map(([key, value]) => `${key}=${value}`)
    throw new SubpageError('BAD_ARGUMENT', `${given.join(',')}: ${why}`)
  }
  const { path, size, name, bus, format, ...unknown } = words
  for (const key of Object.keys(unknown))
    wrong(`${key}= is not known; it takes path, size, name, bus, format`)
  if (path !== undefined && size !== undefined)
    wrong('a path is that of a disk that is there, and a size makes a new one: give one of them')
  if (path === undefined && size === undefined) wrong('give a path, or size= for a new disk')
  if (name !== undefined && !new RegExp(namePattern).test(name))
    wrong('a name has up to 16 letters, digits, dashes and underscores')
  const bytes = size === undefined ? undefined : parseSize(size)
  if (bytes !== undefined && (bytes < sectorBytes || bytes % sectorBytes !== 0))
    wrong(`its size is not a multiple of ${sectorBytes} bytes`)
  if ((bytes ?? 0) > diskBytesMax) wrong('a disk has at most 64 TiB')
  return {
    ...(path !== undefined && { path: resolve(path) }),
    ...(bytes !== undefined && { bytes }),
    ...(name !== undefined && { name }),
    ...(bus !== undefined && { bus: oneOf(buses, bus) ?? wrong(`bus is one of ${buses.join(', ')}`) }),
    ...(format !== undefined && {
      format: oneOf(formats, format) ?? wrong(`format is one of ${formats.join(', ')}`),
    }),
  }
}

const oneOf = <T extends string>(values: readonly T[], value: string): T | undefined =>
  values.find((known) => known === value)

/** The disks that are asked for, with their sizes and names. @throws SubpageError BAD_ARGUMENT, DISK_UNUSABLE */
export function disksOf(requests: DiskRequest[], files: GuestFiles, owner: DiskOwner): Disk[] {
  const disks = requests.map((request, index) => diskOf(request, index, files, owner))
  const names = new Set(disks.map(({ name }) => name))
  if (names.size < disks.length) throw new SubpageError('BAD_ARGUMENT', 'two disks have the same name')
  if (new Set(disks.map(({ path }) => path)).size < disks.length)
    throw new SubpageError('BAD_ARGUMENT', 'one file cannot be two disks')
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

function diskOf(request: DiskRequest, index: number, files: GuestFiles, owner: DiskOwner): Disk {
  const { path, bytes, bus = 'virtio' } = request
  const name = request.name ?? `disk${index}`
  if (path === undefined)
    return { name, bytes: bytes ?? 0, bus, path: ownDiskPath(files, owner, name), format: 'raw', made: true }
  const { real, size, format } = lookAt(path, request.format)
  return { name, bytes: size, bus, path: real, format }
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
    const format = given ?? (isQcow2 ? 'qcow2' : 'raw')
    if (format === 'qcow2' && !isQcow2) throw unusable('it is no qcow2 image')
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

/** Names of the nodes and devices of a disk in QEMU. */
export const diskNode = (name: string) => `subpage-disk-${name}`

/** QEMU's options for the disks: the same on both hosts, but for file and format. */
export function diskOptions(disks: Disk[]): string[] {
  const scsi = disks.some(({ bus }) => bus === 'scsi') ? ['-device', 'virtio-scsi-pci,id=subpage-scsi'] : []
  return [...scsi, ...disks.flatMap((disk, index) => optionsOf(disk, index))]
}

function optionsOf({ name, bus, path, format }: Disk, index: number): string[] {
  const node = diskNode(name)
  const device = {
    // As network cards: the modern form of virtio has registers for 1,024 queues, all of which go into each device state.
    virtio: `virtio-blk-pci,drive=${node},serial=${name},disable-legacy=off,disable-modern=on`,
    scsi: `scsi-hd,bus=subpage-scsi.0,drive=${node},serial=${name}`,
    sata: `ide-hd,bus=ide.${index},drive=${node},serial=${name}`,
  }[bus]
  const driver = isBlockDevice(path) ? 'host_device' : 'file'
  return [
    '-blockdev',
    // What the guest discards is not passed on: the two copies would differ in what nobody may read.
    `driver=${format},node-name=${node},discard=ignore,file.driver=${driver},file.discard=ignore,file.filename=${doubleCommas(path)}`,
    '-device',
    `${device},id=subpage-dev-${name}`,
  ]
}

const isBlockDevice = (path: string): boolean =>
  statSync(path, { throwIfNoEntry: false })?.isBlockDevice() ?? false

/** What both hosts have alike. */
export const shapeOf = ({ name, bytes, bus }: Disk): DiskShape => ({ name, bytes, bus })
