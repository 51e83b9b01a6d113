/**
 * Where a prepared domain has its control sockets and the shim's files: in a directory of its own that QEMU's user owns, for libvirt runs
 * QEMU as a user of less rights. The directory outlasts a reboot, since libvirt starts domains before anybody else is there. The RAM is
 * in /dev/shm.
 */
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  fchownSync,
  lchownSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { SubpageError } from '../errors.ts'
import { guestNamePattern } from '../qemu/guest-files.ts'
import { socketPathBytesMax, stateTag } from '../qemu/state-path.ts'
import { shimPath } from '../tracking/shim.ts'

import type { Virsh } from './virsh.ts'

export const defaultDirectory = '/var/lib/libvirt/qemu/subpage'
/** Of the copies of disks that a standby has: where libvirt keeps images, since QEMU's user reaches them there. */
export const disksDirectory = '/var/lib/libvirt/images/subpage'

export interface DomainFiles {
  directory: string
  qmp: string
  qmpEvents: string
  guardQmp: string
  observerQmp: string
  lease: string
  forget: string
  shimStatus: string
  /** Says why the domain must not be started here; none when it may. */
  held: string
  /** A copy: QEMU's user need not be able to read where subpage is installed. */
  shim: string
  ram: string
}

/** Why a domain's name cannot be a guest's. */
export function nameRefusal(name: string): string | undefined {
  if (!guestNamePattern.test(name))
    return 'a guest has up to 63 letters, digits, dots, dashes and underscores (virsh domrename)'
  // It would answer for another domain, which has that ID.
  return /^\d+$/.test(name)
    ? 'virsh takes a number for an ID: use a name with a letter in it (virsh domrename)'
    : undefined
}

/** @throws SubpageError GUEST_UNPROTECTABLE */
export function assertName(name: string): void {
  const reason = nameRefusal(name)
  if (reason !== undefined)
    throw new SubpageError('GUEST_UNPROTECTABLE', `"${name}" cannot be a guest name: ${reason}`)
}

/** @throws SubpageError GUEST_UNPROTECTABLE for a domain whose name cannot be a guest's */
export function domainFiles(base: string, name: string): DomainFiles {
  assertName(name)
  const directory = join(resolve(base), name)
  const longest = join(directory, 'observer.sock')
  if (Buffer.byteLength(longest) > socketPathBytesMax)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${longest} is longer than the path of a socket may be (${socketPathBytesMax} bytes): choose a shorter --directory`,
    )
  return {
    directory,
    qmp: join(directory, 'qmp.sock'),
    qmpEvents: join(directory, 'events.sock'),
    guardQmp: join(directory, 'guard.sock'),
    observerQmp: longest,
    lease: join(directory, 'lease'),
    forget: join(directory, 'forget'),
    shimStatus: join(directory, 'shim.status'),
    held: join(directory, 'held'),
    shim: join(directory, 'shim.so'),
    ram: join('/dev/shm', `subpage-${stateTag(base)}-${name}.ram`),
  }
}

/** Whether the directory is there, with this release's shim. */
export function hasFiles({ shim }: DomainFiles): boolean {
  return existsSync(shim) && readFileSync(shim).equals(readFileSync(shimPath))
}

/** @throws SubpageError AUTH_REFUSED, NO_SPACE, LIBVIRT_REFUSED */
export async function makeFiles(virsh: Virsh, files: DomainFiles): Promise<void> {
  const owner = await ownerOf(virsh)
  try {
    mkdirSync(dirname(files.directory), { recursive: true })
    // QEMU's user passes through it, and sees nothing; whatever the umask of an agent is.
    chmodSync(dirname(files.directory), 0o711)
    mkdirSync(files.directory, { recursive: true, mode: 0o700 })
    if (owner) chownSync(files.directory, owner.uid, owner.gid)
    // A QEMU that runs has the former one mapped: it is replaced, not written over.
    const fresh = `${files.shim}.new`
    rmSync(fresh, { force: true })
    copyFileSync(shimPath, fresh, constants.COPYFILE_EXCL)
    if (owner) lchownSync(fresh, owner.uid, owner.gid)
    renameSync(fresh, files.shim)
  } catch (cause) {
    throw new SubpageError(
      'LIBVIRT_REFUSED',
      `${files.directory} cannot be made: ${(cause as Error).message}; run the command as root, or choose another --directory`,
      { cause },
    )
  }
}

/** Lets QEMU's user open the files that were made for it. Libvirt does so too, unless its `dynamic_ownership` is off. */
export async function giveDisks(virsh: Virsh, made: readonly string[]): Promise<void> {
  const owner = made.length > 0 ? await ownerOf(virsh) : undefined
  for (const path of made) {
    // It passes through them, and sees nothing.
    for (const directory of [dirname(path), dirname(dirname(path))]) chmodSync(directory, 0o711)
    if (owner) lchownSync(path, owner.uid, owner.gid)
  }
}

/**
 * From now on the shim refuses to start the domain, until `releaseDomain`; also when the host has been started anew.
 * @param why for people; what to do is added
 */
export function holdDomain({ directory, held }: DomainFiles, why: string): void {
  const { uid, gid } = statSync(directory)
  const fresh = `${held}.new`
  rmSync(fresh, { force: true })
  // QEMU's user may have put a link there: it is not followed.
  const fd = openSync(fresh, 'wx', 0o600)
  try {
    writeSync(fd, `${why}; if that is over: rm ${held}`)
    fchownSync(fd, uid, gid)
  } finally {
    closeSync(fd)
  }
  renameSync(fresh, held)
}

/** Nobody but subpage may start it. */
export const isHeld = ({ held }: DomainFiles): boolean => existsSync(held)

export function releaseDomain({ held }: DomainFiles): void {
  rmSync(held, { force: true })
}

/** The RAM of a domain that runs stays until it ends: it has it open. */
export function removeFiles({ directory, ram }: DomainFiles): void {
  rmSync(directory, { recursive: true, force: true })
  rmSync(ram, { force: true })
}

/** The user that libvirt runs QEMU as; undefined: the one that runs libvirt. */
async function ownerOf(virsh: Virsh): Promise<{ uid: number; gid: number } | undefined> {
  const label = /<baselabel type=["'](?:kvm|qemu)["']>\+(\d+):\+(\d+)</.exec(await virsh.run('capabilities'))
  return label ? { uid: Number(label[1]), gid: Number(label[2]) } : undefined
}
