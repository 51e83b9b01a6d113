/**
 * The writable disks in a domain's description. Both hosts have the same description, which does not say where the disks are: each
 * host puts in its own places.
 */
import { statSync } from 'node:fs'
import type { Document, Element } from '@xmldom/xmldom'
import { SubpageError } from '../errors.ts'
import type { Disk, DiskShape } from '../qemu/disk.ts'
import { append, attribute, childrenOf, find, insertAfter, remove, rootOf } from './domain-xml.ts'

/** Buses of libvirt that writable disks can have; of a disk on IDE the guest sees what it sees of one on SATA. */
const buses: Record<string, DiskShape['bus']> = { virtio: 'virtio', scsi: 'scsi', sata: 'sata', ide: 'sata' }
const namePattern = /^[a-z]{1,8}$/

/** Why a writable disk cannot be mirrored; undefined when it can. */
export function diskRefusal(element: Element): string | undefined {
  const driver = find(element, 'driver')
  const bus = attribute(find(element, 'target'), 'bus') ?? ''
  if (!Object.hasOwn(buses, bus))
    return `it is on the bus ${bus}: writable disks are mirrored on ${Object.keys(buses).join(', ')}`
  if (!namePattern.test(nameOf(element))) return 'its target has another name than vda, sdb and the like'
  if (attribute(driver, 'cache') === 'unsafe') return 'cache=unsafe forgets what the guest has flushed'
  if (attribute(driver, 'copy_on_read') === 'on') return 'copy_on_read=on writes beside the guest'
  if (find(element, 'source/slices')) return 'it is a part of a file; make it a file of its own'
  if (find(element, 'mirror')) return 'libvirt copies it just now (virsh blockjob)'
  return undefined
}

export const isWritable = (disk: Element): boolean =>
  !find(disk, 'readonly') && (attribute(disk, 'device') ?? 'disk') === 'disk'

const writableDisks = (root: Element) => childrenOf(find(root, 'devices'), 'disk').filter(isWritable)

const nameOf = (disk: Element) => attribute(find(disk, 'target'), 'dev') ?? ''

/** @param live the description of the domain that runs @returns without sizes, which QEMU knows */
export function disksOf(live: Document): Disk[] {
  const threaded = childrenOf(find(rootOf(live), 'devices'), 'controller').some(hasThread)
  return writableDisks(rootOf(live)).map((element) => {
    const driver = find(element, 'driver')
    const source = find(element, 'source')
    const bus = buses[attribute(find(element, 'target'), 'bus') ?? ''] ?? 'virtio'
    const cache = attribute(driver, 'cache')
    return {
      name: nameOf(element),
      bytes: 0,
      bus,
      device: attribute(find(element, 'alias'), 'name') ?? '',
      ...(cache !== undefined && cache !== 'default' && { cache: cache as NonNullable<Disk['cache']> }),
      ...((hasThread(element) || (bus === 'scsi' && threaded)) && { iothread: true }),
      path: attribute(source, 'file') ?? attribute(source, 'dev') ?? '',
      format: attribute(driver, 'type') === 'qcow2' ? 'qcow2' : 'raw',
    }
  })
}

/** Newer libvirt spreads the queues of a disk over several. */
const hasThread = (element: Element) =>
  attribute(find(element, 'driver'), 'iothread') !== undefined ||
  find(element, 'driver/iothreads') !== undefined

/** Takes out where the writable disks are, and what belongs to the format in which they are there. */
export function withoutPlaces(document: Document): Document {
  for (const disk of writableDisks(rootOf(document))) {
    for (const name of ['source', 'backingStore']) for (const found of childrenOf(disk, name)) remove(found)
    const driver = find(disk, 'driver')
    for (const found of childrenOf(driver, 'metadata_cache')) remove(found)
    for (const name of ['type', 'discard_no_unref']) driver?.removeAttribute(name)
    disk.setAttribute('type', 'file')
  }
  return document
}

/**
 * Puts in where a host has the disks; other places that there were go.
 * @throws SubpageError PEER_MISMATCH when the description has other writable disks
 */
export function withPlaces(document: Document, disks: readonly Disk[]): Document {
  const elements = writableDisks(rootOf(withoutPlaces(document)))
  const names = elements.map(nameOf)
  const wanted = disks.map(({ name }) => name)
  if (names.length !== wanted.length || names.some((name) => !wanted.includes(name)))
    throw new SubpageError(
      'PEER_MISMATCH',
      `the description of the domain has the writable disks ${names.join(', ') || 'none'}, and the guest has ${wanted.join(', ') || 'none'}`,
    )
  for (const element of elements) {
    const { path, format } = disks.find(({ name }) => name === nameOf(element))!
    const isDevice = statSync(path).isBlockDevice()
    element.setAttribute('type', isDevice ? 'block' : 'file')
    const driver = find(element, 'driver') ?? append(element, 'driver', { name: 'qemu' })
    driver.setAttribute('type', format)
    insertAfter(driver, 'source', { [isDevice ? 'dev' : 'file']: path })
  }
  return document
}
