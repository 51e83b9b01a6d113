/**
 * The files of one guest on one host: a directory of its own below the agent's state directory, and its RAM in
 * /dev/shm. guest.json is the record from which a restarted agent finds its guests again; it is always whole, and has its
 * room (room.ts).
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import type { CodecName } from '../delta/capture.ts'
import { errorCode, SubpageError } from '../errors.ts'
import type { Durability, Sending } from '../replication/sending.ts'
import type { TrackerChoice } from '../tracking/tracker.ts'
import { Disk } from './disk.ts'
import { Nic } from './nic.ts'
import type { LaunchPaths, Machine } from './options.ts'
import { pluginPartNames } from './plugin.ts'
import type { ProcessIdentity } from './process.ts'
import { replaceInPlace, syncToDisk } from './room.ts'
import { Vnc } from './screen.ts'
import { socketPath, stateTag } from './state-path.ts'

export interface GuestRecord {
  format: 1
  /** Unique for ever, on every host: the arbiter knows the guest by it. */
  id: string
  /** Of the guest; written down before anything is done in it. */
  generation: number
  /** Whether its hosts have found that they see the same arbiter. */
  arbitrated: boolean
  /** The other host of its pair, when they last met: it may hold a checkpoint. */
  peer?: string
  name: string
  machine: Machine
  qemuVersion: string
  process: ProcessIdentity
  /** True while QEMU waits for its state as a standby. */
  waiting: boolean
  /** How the guest is to be protected; kept so that a restarted agent protects it again. */
  protection?: ProtectionSettings
  /** How its memory is held densely; written before the first page leaves its RAM file, kept until all are back. */
  density?: DensitySettings
  /** Of its console's output, what is not in the log any more. */
  consoleDropped?: number
}

export interface DensitySettings {
  /** Memory that the guest shall take, the store's part not counted; without it, whatever is cold goes. */
  targetBytes?: number
  /** Guests of one domain share pages; without it the guest shares with itself only. */
  trustDomain?: string
  /** What was accessed within this time stays. */
  recentMs: number
  /** What was not accessed for this long may go whole; before, only if it is shared or becomes a patch. */
  coldMs: number
  /** Share of one core that moving pages may take, and of the guest's time that watching its memory may. */
  budget: number
}

export interface ProtectionSettings extends Sending {
  /** Replication address of the other host, host:port. */
  to: string
  epochMs: number
  /** Share of time that pauses may take; makes the epoch automatic, with epochMs as the longest. */
  pauseShareMax?: number
  suspicionMs: number
  outputs: 'held' | 'free'
  tracker: TrackerChoice
  codec: CodecName
  /** Files or devices of the other host for the copies of disks, by the disk's name. */
  diskTo?: Record<string, string>
  /** Guest and standby are compared so often. */
  verifyEveryMs?: number
  /** What a checkpoint outlasts. */
  durability?: Durability
}

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

const guestName = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/

export function guestFiles(stateDirectory: string, name: string): GuestFiles {
  if (!guestName.test(name))
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
    picture: file('screen.png'),
    qemuLog: file('qemu.log'),
    lease: file('lease'),
    shimStatus: file('shim.status'),
    forget: file('forget'),
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

/** Once it was written, however full the file system is. @throws SubpageError NO_SPACE the first time */
export function writeRecord(files: GuestFiles, record: GuestRecord): void {
  // As a cleaner of old files may have removed it.
  mkdirSync(files.directory, { recursive: true, mode: 0o700 })
  replaceInPlace(files.record, `${JSON.stringify(record, undefined, 2)}\n`)
}

/** Resolves when the record outlasts a loss of power. */
export async function syncRecord(files: GuestFiles): Promise<void> {
  await syncToDisk(files.record)
}

const recordForm = Type.Object({
  format: Type.Literal(1),
  id: Type.String(),
  generation: Type.Integer({ minimum: 1 }),
  arbitrated: Type.Boolean(),
  peer: Type.Optional(Type.String()),
  name: Type.String(),
  machine: Type.Object({
    type: Type.String(),
    ramBytes: Type.Integer(),
    accel: Type.String(),
    options: Type.Array(Type.String()),
    nics: Type.Array(Nic),
    disks: Type.Array(Disk),
    track: Type.Optional(Type.Array(Type.Enum(pluginPartNames))),
    vnc: Type.Optional(Vnc),
    aux: Type.Optional(Type.Array(Type.Integer({ minimum: 4096 }))),
  }),
  qemuVersion: Type.String(),
  process: Type.Object({
    pid: Type.Integer({ minimum: 1 }),
    startTime: Type.String(),
    within: Type.Optional(Type.Object({ bootId: Type.String(), pidNamespace: Type.String() })),
  }),
  waiting: Type.Boolean(),
  consoleDropped: Type.Optional(Type.Integer({ minimum: 0 })),
})

/** Undefined when the directory has no record: a start that was cut short. @throws SubpageError STATE_DAMAGED, AUTH_REFUSED */
export function readRecord(files: Pick<GuestFiles, 'record'>): GuestRecord | undefined {
  const text = textOf(files.record)
  if (text === undefined) return undefined
  try {
    const read = JSON.parse(text)
    // An earlier release has written it.
    if (read.machine) read.machine.disks ??= []
    return Value.Parse(recordForm, read) as GuestRecord
  } catch (cause) {
    throw new SubpageError(
      'STATE_DAMAGED',
      `its record ${files.record} is damaged, or of another release than this one, which reads format 1`,
      { cause },
    )
  }
}

/** Only what is not there is no record: one that cannot be read is there. */
function textOf(record: string): string | undefined {
  try {
    return readFileSync(record, 'utf8')
  } catch (cause) {
    const code = errorCode(cause)
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    if (code === 'EACCES')
      throw new SubpageError(
        'AUTH_REFUSED',
        `this user may not read ${record}: run the command as the user of the agent, or name an agent of your own with --state`,
        { cause },
      )
    throw new SubpageError(
      'STATE_DAMAGED',
      `its record ${record} cannot be read: ${(cause as Error).message}`,
      { cause },
    )
  }
}

/** Names of all guests that have files here. */
export function guestNames(stateDirectory: string): string[] {
  const directory = join(resolve(stateDirectory), 'guests')
  return existsSync(directory)
    ? readdirSync(directory)
        .filter((name) => guestName.test(name))
        .sort()
    : []
}
