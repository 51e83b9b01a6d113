/**
 * A guest that subpage runs on this host, found by its files: RAM, the shim's tracking, the pause lease, and a monitor of
 * QEMU's that only recordings use. The agent need not run.
 *
 * It is held as a checkpoint holds it, by QMP `stop` under the pause lease: if we die in a pause, the guard inside QEMU
 * ends it. A guest that is protected is not held, since its checkpoints would fail while we hold it, and the marks of its
 * tracker belong to its protection (tracking/userfault.ts): there pages are compared while it runs.
 */
import { errorCode, SubpageError } from 'subpage/errors'
import type { FileLock } from 'subpage/memory/file-lock'
import { ramPathOf } from 'subpage/memory/ram-path'
import { Region } from 'subpage/memory/region'
import { type GuestFiles, guestFiles } from 'subpage/qemu/guest-files'
import { type GuestRecord, readRecord } from 'subpage/qemu/guest-record'
import { PauseLease } from 'subpage/qemu/pause-lease'
import { isGone, isRunning } from 'subpage/qemu/process'
import { Qmp } from 'subpage/qemu/qmp'
import { lockForReading } from 'subpage/qemu/readers-lock'
import type { Harvest, Held, RecordTarget } from './target.ts'
import { openVmTracking, type RecordTracker, type VmTracking } from './vm-tracking.ts'

/** A pause takes milliseconds; after this long the guard ends it. */
const leaseMs = 2_000
/** QEMU answers a second client of a monitor only when the first has gone. */
const connectMsMax = 2_000

/**
 * @param stateDirectory of the agent that started it
 * @throws SubpageError GUEST_UNKNOWN, GUEST_DIED, BAD_ARGUMENT for a standby, TRACKER_UNAVAILABLE
 */
export async function openVm(
  stateDirectory: string,
  name: string,
  choice: RecordTracker,
): Promise<RecordTarget> {
  const files = guestFiles(stateDirectory, name)
  const record = find(files, name, stateDirectory)
  const ramPath = ramPathOf(record.process.pid, files.ram)
  const tracking = openVmTracking(
    {
      pid: record.process.pid,
      ramPath,
      ramPages: record.machine.ramBytes / 4096,
      shimStatusPath: files.shimStatus,
    },
    files.accesses,
    choice,
  )
  let ram: Region | undefined
  let controls: Controls | undefined
  let lock: FileLock | undefined
  try {
    lock = lockForReading(files)
    if (!lock) throw new SubpageError('BAD_ARGUMENT', `${name} is being recorded already`)
    // Made dense before we had the lock: pages may have left.
    refuseDense(readRecord(files))
    // Without what its devices and firmware have behind it.
    ram = Region.map(ramPath, { writable: false, bytes: record.machine.ramBytes })
    if (!record.protection)
      controls = { qmp: await connect(files, name), lease: PauseLease.open(files.lease) }
    const target = new VmTarget({ record, files, ram, lock }, tracking, controls)
    await tracking.begin(async () => {
      await target.hold(() => undefined)
    })
    return target
  } catch (error) {
    tracking.close()
    controls?.lease.close()
    controls?.qmp.close()
    ram?.close()
    lock?.release()
    throw error
  }
}

function find(files: GuestFiles, name: string, stateDirectory: string): GuestRecord {
  const record = readRecord(files)
  if (record === undefined)
    throw new SubpageError(
      'GUEST_UNKNOWN',
      `no guest ${name} below ${stateDirectory}: \`subpage status\` lists them, --state names another directory`,
    )
  if (record.waiting)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${name} is a standby here and does not run: record it where it runs${record.protection ? ` (${record.protection.to})` : ''}`,
    )
  refuseDense(record)
  if (!isRunning(record.process))
    throw new SubpageError(
      'GUEST_DIED',
      isGone(record.process)
        ? `the QEMU of ${name} has ended`
        : `the QEMU of ${name} cannot be seen from here: run this in the PID namespace of its agent`,
    )
  return record
}

/** Read through a mapping, pages that are elsewhere would become zeros in the guest. */
function refuseDense(record: GuestRecord | undefined): void {
  if (record?.density)
    throw new SubpageError(
      'GUEST_DENSE',
      `${record.name} cannot be recorded while its memory is held densely`,
    )
}

async function connect(files: GuestFiles, name: string): Promise<Qmp> {
  try {
    const qmp = await Qmp.connect(files.observerQmp, connectMsMax)
    const { status } = await qmp.run<{ status: string }>('query-status')
    if (status === 'running') return qmp
    qmp.close()
    // A recording would let it run.
    throw new SubpageError('BAD_ARGUMENT', `${name} does not run, it is ${status}: nothing to record`)
  } catch (cause) {
    if (errorCode(cause) === 'ENOENT')
      throw new SubpageError(
        'BAD_ARGUMENT',
        `${name} was started by a release whose guests have no monitor for recordings: start it again`,
        { cause },
      )
    if (cause instanceof SubpageError && cause.code === 'QEMU_FAILED')
      throw new SubpageError('BAD_ARGUMENT', `${name} is being recorded already, or its QEMU hangs`, {
        cause,
      })
    throw cause
  }
}

interface Memory {
  record: GuestRecord
  files: GuestFiles
  ram: Region
  /** While we have it no page leaves. */
  lock: FileLock
}

interface Controls {
  qmp: Qmp
  lease: PauseLease
}

class VmTarget implements RecordTarget {
  readonly kind = 'vm'
  /** QEMU takes its reason with it. */
  readonly endedHow = undefined
  readonly ended = undefined
  /** Its memory is not copied to begin with. */
  readonly startPauseUs = 0
  readonly tracker: RecordTarget['tracker']
  readonly guesses: boolean
  readonly written: boolean
  readonly counters: readonly string[]
  readonly notes: readonly string[]
  readonly ram: Region
  readonly #memory: Memory
  readonly #tracking: VmTracking
  /** None when it must not be held. */
  readonly #controls: Controls | undefined

  constructor(memory: Memory, tracking: VmTracking, controls: Controls | undefined) {
    this.#memory = memory
    this.ram = memory.ram
    this.#tracking = tracking
    this.#controls = controls
    this.tracker = tracking.tracker
    this.guesses = tracking.guesses
    this.written = tracking.written
    this.counters = tracking.counters
    this.notes = [
      controls
        ? 'The guest was paused at the end of each epoch.'
        : 'The guest is protected, so it was not paused: epochs are not sharp.',
      ...tracking.notes,
    ]
  }

  get name(): string {
    return this.#memory.record.name
  }

  get memoryBytes(): number {
    return this.ram.bytes
  }

  get areas() {
    return [{ firstPage: 0, pageCount: this.ram.pages, address: 0, name: 'ram' }]
  }

  /** Each hold looks at the guest's own memory: there is no copy that could be behind. */
  async catchUp(): Promise<void> {}

  assertReadable(): void {
    refuseDense(readRecord(this.#memory.files))
  }

  async hold<T>(look: () => T): Promise<Held<T> | undefined> {
    this.assertReadable()
    if (!this.#controls) {
      const now = performance.now()
      return { value: look(), heldAt: now, resumedAt: now, pauseUs: 0, torn: undefined }
    }
    const { qmp, lease } = this.#controls
    try {
      lease.acquire(leaseMs)
    } catch (error) {
      // A pause of the agent's, or one that the guard is ending.
      if (error instanceof SubpageError && error.code === 'PAUSE_BROKEN') return undefined
      throw error
    }
    const askedAt = performance.now()
    let valid = false
    let value: T
    let heldAt: number
    try {
      await qmp.run('stop')
      heldAt = performance.now()
      value = look()
    } finally {
      valid = lease.release()
      await this.#resume(qmp)
      lease.resumed()
    }
    const resumedAt = performance.now()
    return {
      value,
      heldAt,
      resumedAt,
      pauseUs: 1000 * (resumedAt - askedAt),
      torn: valid ? undefined : 'the pause took so long that the guard ended it',
    }
  }

  /** When QEMU has gone there is nothing to resume, and what failed first says so. */
  async #resume(qmp: Qmp): Promise<void> {
    if (!qmp.closed) await qmp.run('cont')
  }

  harvest(): Harvest {
    return { ...this.#tracking.harvest(), newAreas: [] }
  }

  close(): void {
    this.#tracking.close()
    this.#controls?.lease.close()
    this.#controls?.qmp.close()
    this.ram.close()
    this.#memory.lock.release()
  }
}
