/**
 * The writable disks of a guest: their form, how `run` and `protect` are asked for them, and what QEMU is told. Where a host keeps
 * them: disk-places.ts.
 */

import { statSync } from 'node:fs'
import { resolve } from 'node:path'
import { type Static, Type } from '#typebox'
import { diskNamePattern } from '../disk/disk-name.ts'
import { SubpageError } from '../errors.ts'
import { doubleCommas, splitAtCommas } from './option-syntax.ts'

export const sectorBytes = 512
/** As far as all arithmetic goes. */
export const diskBytesMax = 64 * 2 ** 40

const buses = ['virtio', 'scsi', 'sata'] as const
const formats = ['raw', 'qcow2'] as const
/** As QEMU's -drive names them; `unsafe`, which forgets the guest's flushes, is none of them. */
const caches = ['writeback', 'none', 'writethrough', 'directsync'] as const
/** What QEMU does with an error of the host's. To ignore one is to lose a write, or to read what is not there. */
const writeErrors = ['report', 'enospc', 'stop'] as const
const readErrors = ['report', 'stop'] as const
const aios = ['threads', 'native', 'io_uring'] as const

/** What both hosts have alike: it decides what the guest sees. */
export const DiskShape = Type.Object(
  {
    name: Type.String({ pattern: diskNamePattern }),
    bytes: Type.Integer({ minimum: sectorBytes, multipleOf: sectorBytes, maximum: diskBytesMax }),
    bus: Type.Enum([...buses]),
    cache: Type.Optional(Type.Enum([...caches])),
    /** A thread of QEMU's for this disk alone. */
    iothread: Type.Optional(Type.Boolean()),
    bootindex: Type.Optional(Type.Integer({ minimum: 0, maximum: 255 })),
    /** What the guest discards is given back to the host, while the disk is not mirrored. */
    discard: Type.Optional(Type.Boolean()),
    werror: Type.Optional(Type.Enum([...writeErrors])),
    rerror: Type.Optional(Type.Enum([...readErrors])),
    aio: Type.Optional(Type.Enum([...aios])),
    /** The name by which a -device of the guest's options has it; without one its device is ours. */
    drive: Type.Optional(Type.String({ pattern: '^[A-Za-z][A-Za-z0-9_.-]{0,62}$' })),
    /** QEMU's name of its device, where somebody else starts QEMU (managed.ts). */
    device: Type.Optional(Type.String({ pattern: '^[A-Za-z][A-Za-z0-9_.-]{0,62}$' })),
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
    /** QEMU's name of what its device reads and writes, where somebody else has named it. */
    node: Type.Optional(Type.String()),
  },
  { additionalProperties: false },
)
export type Disk = Static<typeof Disk>

/** As `run` gets it: a file or device, or a size for a new one. */
export const DiskRequest = Type.Object(
  {
    ...Type.Partial(DiskShape).properties,
    path: Type.Optional(Type.String({ maxLength: 4096 })),
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
  const { path, size, name, bus, format, cache, iothread, bootindex, ...others } = words
  const { discard, werror, rerror, aio, ...unknown } = others
  for (const key of Object.keys(unknown))
    wrong(
      `${key}= is not known; it takes path, size, name, bus, format, cache, iothread, bootindex, discard, werror, rerror, aio`,
    )
  if (path !== undefined && size !== undefined)
    wrong('a path is that of a disk that is there, and a size makes a new one: give one of them')
  if (path === undefined && size === undefined) wrong('give a path, or size= for a new disk')
  if (name !== undefined && !new RegExp(diskNamePattern).test(name))
    wrong('a name has up to 16 letters, digits, dashes and underscores')
  const bytes = size === undefined ? undefined : parseSize(size)
  if (bytes !== undefined && (bytes < sectorBytes || bytes % sectorBytes !== 0))
    wrong(`its size is not a multiple of ${sectorBytes} bytes`)
  if ((bytes ?? 0) > diskBytesMax) wrong('a disk has at most 64 TiB')
  const choice = <T extends string>(key: string, values: readonly T[], value: string): T =>
    values.find((known) => known === value) ?? wrong(`${key} is one of ${values.join(', ')}`)
  const boot = bootindex === undefined ? undefined : Number(bootindex)
  if (boot !== undefined && !(/^\d+$/.test(bootindex ?? '') && boot <= 255))
    wrong('bootindex is a number up to 255; the lowest is tried first')
  return {
    ...(path !== undefined && { path: resolve(path) }),
    ...(bytes !== undefined && { bytes }),
    ...(name !== undefined && { name }),
    ...(bus !== undefined && { bus: choice('bus', buses, bus) }),
    ...(format !== undefined && { format: choice('format', formats, format) }),
    ...(cache !== undefined && { cache: choice('cache', caches, cache) }),
    ...(iothread !== undefined && { iothread: choice('iothread', ['on', 'off'], iothread) === 'on' }),
    ...(boot !== undefined && { bootindex: boot }),
    ...(discard !== undefined && { discard: choice('discard', ['unmap', 'ignore'], discard) === 'unmap' }),
    ...(werror !== undefined && { werror: choice('werror', writeErrors, werror) }),
    ...(rerror !== undefined && { rerror: choice('rerror', readErrors, rerror) }),
    ...(aio !== undefined && { aio: choice('aio', aios, aio) }),
  }
}

/** Names of the nodes and devices of a disk in QEMU. */
export const diskNode = ({ name, node }: Pick<Disk, 'name' | 'node'>) => node ?? ownNode(name)
const ownNode = (name: string) => `subpage-disk-${name}`
/** While it is mirrored, on top of the other. */
export const mirrorNode = (name: string) => `subpage-top-${name}`

/** QEMU's options for the disks: the same on both hosts, but for file and format. */
export function diskOptions(disks: Disk[]): string[] {
  const scsi = disks.some(({ bus }) => bus === 'scsi') ? ['-device', 'virtio-scsi-pci,id=subpage-scsi'] : []
  return [...scsi, ...disks.flatMap((disk, index) => optionsOf(disk, index))]
}

function optionsOf(disk: Disk, index: number): string[] {
  const thread = disk.drive === undefined && disk.iothread === true
  return [
    ...(thread ? ['-object', `iothread,id=subpage-io-${disk.name}`] : []),
    ...['-blockdev', nodeOf(disk)],
    ...(disk.drive === undefined ? ['-device', deviceOf(disk, index)] : []),
  ]
}

/**
 * What the guest discards goes to the host only while the disk is not mirrored: QEMU's mirror passes no discard on, so nothing that
 * it has copied changes by one.
 */
function nodeOf({ name, path, format, cache = 'writeback', discard: unmaps, aio }: Disk): string {
  const driver = isBlockDevice(path) ? 'host_device' : 'file'
  const direct = cache === 'none' || cache === 'directsync' ? ',cache.direct=on,file.cache.direct=on' : ''
  const discard = unmaps === true ? 'unmap' : 'ignore'
  const way = aio === undefined ? '' : `,file.aio=${aio}`
  return `driver=${format},node-name=${ownNode(name)},discard=${discard}${direct},file.driver=${driver},file.discard=${discard}${way},file.filename=${doubleCommas(path)}`
}

function deviceOf(disk: Disk, index: number): string {
  const { name, bus, cache, iothread, bootindex, werror, rerror } = disk
  const node = ownNode(name)
  const device = {
    // As network cards: the modern form of virtio has registers for 1,024 queues, all of which go into each device state.
    virtio: `virtio-blk-pci,drive=${node},serial=${name},disable-legacy=off,disable-modern=on`,
    scsi: `scsi-hd,bus=subpage-scsi.0,drive=${node},serial=${name}`,
    sata: `ide-hd,bus=ide.${index},drive=${node},serial=${name}`,
  }[bus]
  const words = [
    ...(writesThrough(cache) ? ['write-cache=off'] : []),
    ...(iothread === true ? [`iothread=subpage-io-${name}`] : []),
    ...(bootindex === undefined ? [] : [`bootindex=${bootindex}`]),
    ...(werror === undefined ? [] : [`werror=${werror}`]),
    ...(rerror === undefined ? [] : [`rerror=${rerror}`]),
    `id=subpage-dev-${name}`,
  ]
  return [device, ...words].join(',')
}

/** Without a cache in the device's eyes, each write of the guest is safe when it is done. */
export const writesThrough = (cache: DiskShape['cache']): boolean =>
  cache === 'writethrough' || cache === 'directsync'

/**
 * With QEMU 10.0 a guest's writes to a mirrored disk with a thread of its own end after some hundred (seen; not with 7.2).
 * @throws SubpageError GUEST_UNPROTECTABLE
 */
export function assertThreadsHold(version: string, disks: readonly Disk[]): void {
  const threaded = disks.find(({ iothread }) => iothread === true)
  if (threaded && Number.parseInt(version, 10) > 7)
    throw new SubpageError(
      'GUEST_UNPROTECTABLE',
      `the disk ${threaded.name} cannot have a thread of its own with QEMU ${version}: while it is mirrored its writes would hang; leave iothread out`,
    )
}

/** The guest's options, with its -device on the nodes that are ours. */
export function withNodes(options: string[], disks: Disk[]): string[] {
  const nodes = new Map(disks.flatMap(({ name, drive }) => (drive === undefined ? [] : [[drive, name]])))
  return options.map((value, index) => {
    if (options[index - 1] !== '-device') return value
    return value.replace(/(^|,)drive=([\w.-]+)(?=,|$)/, (whole, before, drive) => {
      const name = nodes.get(drive)
      return name === undefined ? whole : `${before}drive=${ownNode(name)}`
    })
  })
}

const isBlockDevice = (path: string): boolean =>
  statSync(path, { throwIfNoEntry: false })?.isBlockDevice() ?? false

/** What both hosts have alike. */
export const shapeOf = ({ path: _, format: __, made: ___, node: ____, ...shape }: Disk): DiskShape => shape
