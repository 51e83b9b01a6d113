/**
 * The files of one guest on one host: a directory of its own below the agent's state directory, and its RAM in
 * /dev/shm.
 */
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { SubpageError } from '../errors.ts'
import type { LaunchPaths } from './options.ts'
import { socketPath, stateTag } from './state-path.ts'

export interface GuestFiles extends LaunchPaths {
  directory: string
  record: string
  qemuLog: string
  /** Where QEMU writes a picture of the screen for us. */
  picture: string
  /** Where a waiting QEMU takes its device state. */
  incoming: string
  lease: string
  shimStatus: string
  /** The channel through which accesses are forgotten. */
  forget: string
  /** Locked by whoever maps its RAM to read it (readers-lock.ts). */
  readers: string
  supervisor: SupervisorFiles
  /** Directory of the disks that subpage has made, of all guests of the host: they outlast these. */
  disks: string
  /** Where QEMU finds the endpoint that a disk is mirrored into. */
  mirror: (index: number) => string
  /** Where QEMU lets us read the disks, while we do. */
  disksSocket: string
}

/** Of the process of the guest, which may begin before the guest does. */
export interface SupervisorFiles {
  /** Its part of the API. */
  socket: string
  /** Through which the agent hands it the connections of other hosts. */
  door: string
  settings: string
  log: string
  /** Held as long as it runs; says which process it is. */
  lock: string
}

const supervisorPrefix = 'supervisor.'

export const guestNamePattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/

export function guestFiles(stateDirectory: string, name: string): GuestFiles {
  if (!guestNamePattern.test(name))
    throw new SubpageError(
      'BAD_ARGUMENT',
      `"${name}" cannot be a guest name: use up to 63 letters, digits, dots, dashes and underscores`,
    )
  const directory = join(resolve(stateDirectory), 'guests', name)
  const file = (leaf: string) => join(directory, leaf)
  // The longest name of its sockets.
  const socket = socketPath(stateDirectory, join('guests', name, `${supervisorPrefix}sock`))
  return {
    directory,
    record: file('guest.json'),
    qmp: file('qmp.sock'),
    qmpEvents: file('events.sock'),
    guardQmp: file('guard.sock'),
    observerQmp: file('observer.sock'),
    console: file('console.sock'),
    incoming: file('incoming.sock'),
    mirror: (index) => file(`disk${index}.sock`),
    disksSocket: file('disks.sock'),
    disks: join(resolve(stateDirectory), 'disks'),
    consoleLog: file('console.log'),
    vncSecret: file('vnc.secret'),
    vncTls: file('vnc-tls'),
    picture: file('screen.png'),
    qemuLog: file('qemu.log'),
    lease: file('lease'),
    shimStatus: file('shim.status'),
    forget: file('forget'),
    readers: file('readers'),
    ram: join('/dev/shm', `subpage-${stateTag(stateDirectory)}-${name}.ram`),
    accesses: join('/dev/shm', `subpage-${stateTag(stateDirectory)}-${name}.accesses`),
    supervisor: {
      socket,
      door: file(`${supervisorPrefix}door`),
      settings: file(`${supervisorPrefix}json`),
      log: file(`${supervisorPrefix}log`),
      lock: file(`${supervisorPrefix}lock`),
    },
  }
}

/** Makes the directory anew; whatever a dead guest of this name left goes, but for nothing that still runs. */
export function prepareFiles(files: GuestFiles): void {
  removeFiles(files)
  mkdirSync(files.directory, { recursive: true, mode: 0o700 })
}

/** All that is the guest's; what its supervisor has there stays, for it may have another guest of the name next. */
export function removeFiles(files: GuestFiles): void {
  rmSync(files.ram, { force: true })
  rmSync(files.accesses, { force: true })
  if (!existsSync(files.directory)) return
  const left = readdirSync(files.directory).filter((leaf) => {
    if (leaf.startsWith(supervisorPrefix)) return true
    rmSync(join(files.directory, leaf), { recursive: true, force: true })
    return false
  })
  if (left.length === 0) rmSync(files.directory, { recursive: true, force: true })
}

/** What a supervisor leaves when there is no guest any more. */
export function removeSupervisorFiles({ directory }: GuestFiles): void {
  if (!existsSync(directory)) return
  const leaves = readdirSync(directory)
  for (const leaf of leaves)
    if (leaf.startsWith(supervisorPrefix)) rmSync(join(directory, leaf), { force: true })
  if (leaves.every((leaf) => leaf.startsWith(supervisorPrefix)))
    rmSync(directory, { recursive: true, force: true })
}

/** Names of all guests that have files here. */
export function guestNames(stateDirectory: string): string[] {
  const directory = join(resolve(stateDirectory), 'guests')
  return existsSync(directory)
    ? readdirSync(directory)
        .filter((name) => guestNamePattern.test(name))
        .sort()
    : []
}
