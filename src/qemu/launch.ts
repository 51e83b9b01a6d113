/**
 * Starts stock QEMU so that its guest can be protected: RAM in a shared file, the shim preloaded, a control socket for
 * us and one for the guard. The process is detached: it outlives the agent.
 */

import { closeSync, openSync, statfsSync } from 'node:fs'
import { setting } from '../environment.ts'
import { errorCode, SubpageError } from '../errors.ts'
import { Region } from '../memory/region.ts'
import { ForgetChannel } from '../tracking/forget.ts'
import { mappingsOf } from '../tracking/mappings.ts'
import {
  openUnnameable,
  readShimStatus,
  type ShimStatus,
  shimEnvironment,
  shimMissing,
} from '../tracking/shim.ts'
import { assertSameBlocks, auxBlocks, blocksLeftOut, memoryBytes } from './aux-ram.ts'
import { lastLines } from './bounded-log.ts'
import { DeviceStateFile } from './device-state-file.ts'
import { assertThreadsHold } from './disk.ts'
import { makeDisks, removeDisks } from './disk-files.ts'
import { prepareMaps, removeMaps } from './disk-maps.ts'
import { type GuestFiles, prepareFiles, removeFiles } from './guest-files.ts'
import { type GuestRecord, writeRecord } from './guest-record.ts'
import { settleDisks } from './managed-disks.ts'
import { netdevIds } from './nic.ts'
import { Notes } from './notes.ts'
import { makeNvram } from './nvram.ts'
import { commandLine, type Machine } from './options.ts'
import { settledType } from './other-version.ts'
import { addBuffers } from './output-buffers.ts'
import { PauseLease } from './pause-lease.ts'
import { identify, isRunning, killProcess, type ProcessIdentity } from './process.ts'
import { Qmp } from './qmp.ts'
import { wantOfRoom } from './room.ts'
import { type VncAddress, vncAddress, writeScreenFiles } from './screen.ts'
import { spawnQemu } from './spawn.ts'
import { joinBridges, prepareBridges } from './tap.ts'

export const qemuBinary = setting('SUBPAGE_QEMU') ?? 'qemu-system-x86_64'

/** How long QEMU may take to open its control socket. */
const startMsMax = 30_000

/** Which guest it is, on whatever host. */
export interface GuestIdentity {
  id: string
  name: string
  generation: number
}

/** What brings up the QEMU of a machine; it may be somebody else, who manages the machines of the host. */
export interface Starter {
  /** Directory of its copies of disks, of all guests, where its QEMU finds them; undefined: the guest's own files say. */
  disks: string | undefined
  /** Its control sockets, RAM and the shim's files are those of `files` then. */
  start(
    name: string,
    machine: Machine,
    files: GuestFiles,
    waiting: boolean,
    diskMaps: readonly string[],
  ): Promise<Started>
  /** A machine that waited in vain is gone. */
  forget(name: string): Promise<void>
}

export interface Started {
  started: ProcessIdentity
  deviceState: DeviceStateFile
  /** Where it can listen for its device state, if not in the guest's directory. */
  incoming?: string
}

export interface Launched {
  incoming?: string
  record: GuestRecord
  qmp: Qmp
  ram: Region
  deviceState: DeviceStateFile
  vnc: VncAddress | undefined
  /** What the operator should know of the start. */
  notes: Notes
  /** Files of disks and firmware that were not there before: whoever cannot go on removes them. */
  made: string[]
}

/**
 * @throws SubpageError NO_SPACE, QEMU_MISSING, QEMU_FAILED (with QEMU's own words), GUEST_UNPROTECTABLE. Nothing is
 * left behind then.
 */
export async function launch(
  { id, name, generation }: GuestIdentity,
  machine: Machine,
  files: GuestFiles,
  waiting: boolean,
  starter: Starter = ownStarter,
): Promise<Launched> {
  const notes = new Notes()
  let ram: Region | undefined
  let deviceState: DeviceStateFile | undefined
  let started: ProcessIdentity | undefined
  let incoming: string | undefined
  let made: string[] = []
  try {
    prepareFiles(files)
    made = makeDisks(machine.disks)
    if (machine.firmware && makeNvram(machine.firmware)) made.push(machine.firmware.nvram)
    if (machine.vnc) writeScreenFiles(machine.vnc, files)
    for (const bridge of await prepareBridges(machine.nics))
      notes.add(`made the bridge ${bridge}, which this host did not have; nothing else is on it`)
    const maps = await prepareMaps(files, { id, name }, machine.disks, waiting)
    ;({ started, deviceState, incoming } = await starter.start(name, machine, files, waiting, maps))
    const record: GuestRecord = {
      format: 1,
      id,
      generation,
      arbitrated: false,
      name,
      machine,
      qemuVersion: '',
      process: started,
      // Until all is well: an agent that finds this record, because we were killed here, ends the process.
      waiting: true,
    }
    writeRecord(files, record)
    const qmp = await connect(files, started)
    assertBackends(name, machine, files)
    if (!usesRam(started.pid, files.ram))
      throw new SubpageError('QEMU_FAILED', `QEMU does not use ${files.ram}: it was removed meanwhile`)
    if (machine.managed) await addBuffers(qmp, netdevIds(machine))
    assertThreadsHold(qmp.version, machine.disks)
    const disks = machine.managed ? await settleDisks(qmp, machine.disks, true) : machine.disks
    const aux = await settleAux(name, qmp, files, machine.backends, waiting ? (machine.aux ?? []) : undefined)
    ram = Region.map(files.ram, { writable: true })
    if (ram.bytes !== memoryBytes({ ...machine, aux }))
      throw new SubpageError(
        'QEMU_FAILED',
        `${files.ram} has ${ram.bytes} bytes, which is not what QEMU made of it`,
      )
    const missing = shimMissing(files.shimStatus)
    if (missing !== undefined) notes.add(missing)
    await joinBridges(machine.nics, files.directory, waiting)
    const type = settledType(machine.type, await qmp.run('qom-get', { path: '/machine', property: 'type' }))
    const whole = { ...record, machine: { ...machine, type, disks, aux }, qemuVersion: qmp.version, waiting }
    writeRecord(files, whole)
    const vnc = machine.vnc ? await vncAddress(qmp) : undefined
    return {
      record: whole,
      qmp,
      ram,
      deviceState,
      vnc,
      notes,
      made,
      ...(incoming !== undefined && { incoming }),
    }
  } catch (error) {
    ram?.close()
    deviceState?.close()
    if (started) killProcess(started)
    await starter.forget(name)
    // A standby may begin anew, with what its disks are.
    if (!waiting) removeMaps(files, { id, name }, machine.disks)
    removeDisks(made)
    removeFiles(files)
    throw wantOfRoom(`the files of ${name} in ${files.directory}`, error)
  }
}

/**
 * Which blocks beside the RAM are in its file.
 * @param backends bytes of those that are its RAM
 * @param wanted those that a waiting QEMU must have
 * @throws SubpageError GUEST_UNPROTECTABLE, PEER_MISMATCH
 */
export async function settleAux(
  name: string,
  qmp: Qmp,
  files: GuestFiles,
  backends: readonly number[] = [],
  wanted?: number[],
): Promise<number[]> {
  // Once this is answered the machine is there; the control socket is before.
  const info = await qmp.run<string>('human-monitor-command', { 'command-line': 'info ramblock' })
  const found = auxBlocks(files.shimStatus)
  if (wanted) assertSameBlocks(found, wanted)
  const leftOut = blocksLeftOut(info, [...backends, ...found])
  if (leftOut.length === 0) return found
  const status = readShimStatus(files.shimStatus)
  throw new SubpageError(
    !status?.reason || found.length > 0 ? 'GUEST_UNPROTECTABLE' : 'NO_SPACE',
    `cannot protect ${name}: memory of its devices (${leftOut.join(', ')}) is not in ${files.ram}: ${whyOutside(status)}`,
  )
}

/** @throws SubpageError GUEST_UNPROTECTABLE when one of its memory backends is not in the RAM file */
export function assertBackends(name: string, machine: Machine, files: GuestFiles): void {
  const wanted = machine.backends?.length ?? 0
  const status = readShimStatus(files.shimStatus)
  const found = status?.backends ?? 0
  if (found === wanted) return
  throw new SubpageError(
    'GUEST_UNPROTECTABLE',
    `cannot protect ${name}: ${wanted - found} of its ${wanted} memory backends are not in ${files.ram}: ${whyOutside(status)}`,
  )
}

/** Why memory of the guest is not in its RAM file. */
const whyOutside = (status: ShimStatus | undefined): string =>
  status?.reason
    ? `${status.failedStep}: ${status.reason}`
    : 'the shim, which puts it there, is not in QEMU (subpage check says why)'

/** Makes the RAM file. A waiting guest's holds what else the primary has; QEMU adds it to the file. */
async function createRam(path: string, machine: Machine): Promise<void> {
  const bytes = memoryBytes(machine)
  const { bavail, bsize } = statfsSync('/dev/shm')
  if (bavail * bsize < bytes)
    throw new SubpageError(
      'NO_SPACE',
      `/dev/shm has ${mib(bavail * bsize)} MiB free, the guest needs ${mib(bytes)} MiB`,
    )
  const made = await Region.create(path, machine.ramBytes)
  made.close()
}

const mib = (bytes: number) => Math.floor(bytes / 2 ** 20)

const ownStarter: Starter = {
  disks: undefined,
  start: async (name, machine, files, waiting, diskMaps) => {
    await createRam(files.ram, machine)
    return start(name, machine, files, waiting, diskMaps)
  },
  // It leaves nothing beside its files.
  forget: async () => undefined,
}

function start(...[name, machine, files, waiting, diskMaps]: Parameters<Starter['start']>): Started {
  PauseLease.create(files.lease)
  ForgetChannel.create(files.forget)
  const log = openSync(files.qemuLog, 'a', 0o600)
  const library = openUnnameable()
  const { file: deviceState, fd } = DeviceStateFile.create()
  try {
    const child = spawnQemu({
      program: qemuBinary,
      args: commandLine(name, machine, files, waiting),
      directory: files.directory,
      log,
      deviceState: fd,
      ...(library !== undefined && { library }),
      environment: {
        ...inherited(),
        ...shimEnvironment({
          ...(library !== undefined && { library: inheritedLibrary }),
          ram: files.ram,
          status: files.shimStatus,
          lease: files.lease,
          guardQmp: files.guardQmp,
          forget: files.forget,
          diskMaps,
          auxRam: !waiting || (machine.aux ?? []).length > 0,
          ...(machine.backends && { backends: machine.backends }),
        }),
      },
      // A disk has any length.
      unlimited: (machine.track ?? []).length > 0 || machine.disks.length > 0,
    })
    child.unref()
    // A failed spawn has no pid and reports the reason later, through `error`; both are handled here.
    child.on('error', () => undefined)
    const started = child.pid === undefined ? undefined : identify(child.pid)
    if (!started) throw new SubpageError('QEMU_FAILED', `QEMU ended at once: ${lastWords(files)}`)
    return { started, deviceState }
  } catch (error) {
    deviceState.close()
    throw error
  } finally {
    closeSync(log)
    if (library !== undefined) closeSync(library)
  }
}

/** As spawn.ts hands it on. */
const inheritedLibrary = '/proc/self/fd/4'

/**
 * What QEMU needs of our environment, and no more: a guest that breaks out of it would find our passwords there. Variables
 * of sanitizers are for tests.
 */
function inherited(): NodeJS.ProcessEnv {
  const wanted = /^(PATH|HOME|TMPDIR|LANG|LC_.*|TZ|LD_LIBRARY_PATH|QEMU_MODULE_DIR|[A-Z]*SAN_OPTIONS)$/
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => wanted.test(name)))
}

/** Waits until QEMU answers on its control socket, or has ended, or has done neither for too long. */
async function connect(files: GuestFiles, started: ProcessIdentity): Promise<Qmp> {
  const deadline = performance.now() + startMsMax
  for (;;) {
    try {
      return await Qmp.connect(files)
    } catch (error) {
      if (!isRunning(started)) throw startFailed(lastWords(files), error)
      // A QEMU that is just ending closes its socket first: its words come with the next look.
      if (performance.now() > deadline)
        throw new SubpageError('QEMU_FAILED', `QEMU does not come up: ${lastWords(files)}`, { cause: error })
    }
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

function startFailed(said: string, cause: unknown): SubpageError {
  if (/\/dev\/net\/tun/.test(said))
    return new SubpageError(
      'NETWORK_FAILED',
      `QEMU could not make a tap: ${said}; the agent needs CAP_NET_ADMIN (root has it) and /dev/net/tun`,
      { cause },
    )
  return new SubpageError('QEMU_FAILED', `QEMU did not start: ${said}`, { cause })
}

/** Had the file been removed before QEMU opened it, QEMU would have made another one, and what we write would not be its RAM. */
function usesRam(pid: number, path: string): boolean {
  try {
    return mappingsOf(pid, path).length > 0
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return false
    // It cannot be seen from here.
    if (errorCode(error) === 'EACCES') return true
    throw error
  }
}

/** The end of QEMU's own log: what it said before it ended. */
export function lastWords(files: GuestFiles): string {
  return lastLines(files.qemuLog, 4).join('; ') || 'it said nothing'
}
