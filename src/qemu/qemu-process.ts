/**
 * A QEMU process with its control socket: found or started, watched, ended. Knows why it ended: an end that QEMU did not
 * announce is a death (guest-ends.ts).
 */

import { asSubpageError, SubpageError } from '../errors.ts'
import { isRamUnlinked, ramPathOf } from '../memory/ram-path.ts'
import { Region } from '../memory/region.ts'
import { realClock } from '../replication/clock.ts'
import type { GuestEnd } from '../replication/guest.ts'
import { memoryBytes } from './aux-ram.ts'
import { BoundedLog } from './bounded-log.ts'
import { CardsAndDisks } from './cards-and-disks.ts'
import { DeviceStateFile } from './device-state-file.ts'
import { DiskErrors } from './disk-errors.ts'
import { ShimFence } from './fence.ts'
import { Announcement } from './guest-ends.ts'
import { type GuestFiles, removeFiles } from './guest-files.ts'
import type { GuestRecord } from './guest-record.ts'
import { HangWatch } from './hang-watch.ts'
import { KeptRecord } from './kept-record.ts'
import type { Launched } from './launch.ts'
import { isServed } from './leftover.ts'
import { MachineParts } from './machine-parts.ts'
import { withoutLinks } from './managed.ts'
import { Notes } from './notes.ts'
import type { Machine } from './options.ts'
import { PauseLease } from './pause-lease.ts'
import { fateOf, killProcess, untilGone } from './process.ts'
import type { Qmp } from './qmp.ts'
import { untilConnected } from './qmp-connect.ts'
import { reloadCertificate, type VncAddress, vncAddress } from './screen.ts'
import { openTaps } from './tap.ts'

/** Long enough for QEMU to answer a `cont`. */
const inheritMs = 5_000
/** What finding a process again waits for: its control socket, an answer, or the end of a pause that the keeper holds. */
export type AttachStep = 'connect' | 'answer' | 'unlock'

/** A QEMU that was told to quit and still runs after this is killed. */
const quitMs = 5_000
/** The same for one that has announced its end: 7.2 can wait for ever when commands reach it while it shuts down. */
const shutdownMs = 2_000

/** So often the logs and the RAM file are looked at. */
const lookMs = 1_000

export class QemuProcess {
  readonly files: GuestFiles
  readonly qmp: Qmp
  readonly ram: Region
  readonly deviceState: DeviceStateFile
  /** Of its serial console. */
  readonly console: BoundedLog
  readonly #log: BoundedLog
  readonly #looking: NodeJS.Timeout
  readonly lease: PauseLease
  readonly hang: HangWatch
  /** Settles once, when the process has ended or let go of its control socket. */
  readonly ended: Promise<GuestEnd>
  readonly fence: ShimFence
  readonly diskErrors = new DiskErrors()
  #devices: CardsAndDisks
  readonly parts: MachineParts
  /** What the operator should know. */
  readonly notes: Notes
  readonly #kept: KeptRecord
  /** Settles when they are as the guest has left them. */
  #mapsLeft: Promise<void> = Promise.resolve()
  readonly #announcement = new Announcement()
  #vnc: VncAddress | undefined
  #ramUnlinked = false
  #noteUnlinked!: () => void
  /** Resolves when its RAM file is found to have no name any more; what follows goes through its process. */
  readonly ramUnlinked = new Promise<void>((resolve) => {
    this.#noteUnlinked = () => {
      this.#ramUnlinked = true
      resolve()
    }
  })
  #released = false
  #superseded: string | undefined
  #endedHung: string | undefined
  /** Of a machine that is managed: asks the manager whether an end by a signal was meant, if QEMU has spoken of one. */
  explainEnd: ((end: GuestEnd) => Promise<GuestEnd>) | undefined
  /** By a command of ours: however its process ends now, the guest has not failed. */
  #toldToEnd = false

  constructor(named: GuestFiles, { record, qmp, ram, deviceState, vnc, notes }: Launched) {
    const files = withoutLinks(named)
    this.files = files
    this.#vnc = vnc
    this.#kept = new KeptRecord(files, record, (text) => notes.add(text))
    this.qmp = qmp
    this.ram = ram
    this.deviceState = deviceState
    this.console = new BoundedLog(files.consoleLog, record.consoleDropped ?? 0)
    this.#log = new BoundedLog(files.qemuLog, 0)
    this.#looking = setInterval(() => void this.#look(), lookMs).unref()
    this.lease = PauseLease.open(files.lease)
    this.notes = notes
    this.hang = new HangWatch({ of: qmp, what: `QEMU (process ${record.process.pid})`, clock: realClock })
    this.fence = new ShimFence(files.lease)
    this.parts = new MachineParts(qmp, files.shimStatus)
    this.#devices = new CardsAndDisks(this)
    this.ended = this.#watch()
    void this.ended.then((end) => {
      this.#mapsLeft = this.#leaveMaps(end)
    })
  }

  /**
   * Finds a process again that another agent started, however long that takes: one that hangs answers when it goes on. Undefined
   * when it has ended.
   * @param doing hears what it waits for
   * @throws SubpageError QEMU_FAILED when it runs where this agent cannot see it, GUEST_DIED when it ends meanwhile
   */
  static async attach(
    files: GuestFiles,
    record: GuestRecord,
    doing: (step: AttachStep) => void = () => undefined,
  ): Promise<QemuProcess | undefined> {
    const fate = fateOf(record.process)
    if (fate === 'gone' || (fate === 'unseen' && !(await isServed(files)))) return undefined
    if (fate === 'unseen')
      throw new SubpageError(
        'QEMU_FAILED',
        `its process ${record.process.pid} runs in another PID namespace, or is hidden by the options of /proc: start the agent where it can be seen`,
      )
    doing('connect')
    const qmp = await untilConnected(files, record.process)
    if (!qmp) return undefined
    let found: QemuProcess
    try {
      const ram = ramPathOf(record.process.pid, files.ram)
      // The file that goes with the guest is the one that it has.
      const own = isRamUnlinked(record.process.pid, files.ram) ? files : { ...files, ram }
      found = new QemuProcess(own, {
        record,
        qmp,
        // What was plugged in since is behind it, and none of the machine's.
        ram: Region.map(ram, { writable: true, bytes: memoryBytes(record.machine) }),
        deviceState: DeviceStateFile.of(record.process.pid, files.directory),
        vnc: undefined,
        notes: new Notes(),
        made: [],
      })
    } catch (error) {
      qmp.close()
      throw error
    }
    try {
      await found.#takeUp(doing)
    } catch (error) {
      found.release()
      throw error
    }
    return found
  }

  async #takeUp(doing: (step: AttachStep) => void): Promise<void> {
    doing('answer')
    await this.#devices.outputs.readBack()
    if (this.record.machine.vnc) this.#vnc = await vncAddress(this.qmp)
    // An agent that died within a checkpoint leaves its pause behind, with or without a lease on it.
    doing('unlock')
    await Promise.race([this.lease.unlocked(), this.ended])
    doing('answer')
    this.lease.inherit(inheritMs)
    const { status } = await this.qmp.run<{ status: string }>('query-status')
    if (status === 'paused' && this.record.suspended !== true) await this.qmp.run('cont')
    this.lease.resumed()
  }

  /** At a takeover: lets in what the bridge kept from a guest that did not run. The guest runs without that, too. */
  async openNetwork(): Promise<void> {
    try {
      await openTaps(this.record.machine.nics, this.files.directory)
    } catch (error) {
      this.notes.add(`broadcasts do not reach the guest: ${asSubpageError(error).message}`)
    }
  }

  get devices(): CardsAndDisks {
    return this.#devices
  }

  /** Somebody has changed its disks or cards, while nothing protects it. @param machine as QEMU has it now */
  refit(machine: Machine): void {
    if (this.#released) return
    this.#devices.close()
    this.updateRecord({ machine })
    this.#devices = new CardsAndDisks(this)
  }

  /** Where its screen is shown, on this host. */
  get vnc(): VncAddress | undefined {
    return this.#vnc
  }

  /** The host has a new one. */
  async reloadCertificate(): Promise<void> {
    if (this.record.machine.vnc?.certificate) await reloadCertificate(this.qmp)
  }

  /** QEMU has said that it ends, though its process may still be there; it may yet run on (guest-ends.ts). */
  get endAnnounced(): boolean {
    return this.#announcement.end !== undefined
  }

  get ramIsUnlinked(): boolean {
    return this.#ramUnlinked
  }

  /** By which its memory can be opened, now. */
  get ramPath(): string {
    return ramPathOf(this.record.process.pid, this.files.ram)
  }

  get record(): GuestRecord {
    return this.#kept.record
  }

  updateRecord(change: Partial<GuestRecord>): void {
    this.#kept.update(change)
  }

  /** Of what has happened: a disk that is full or read-only changes nothing about it. */
  noteRecord(change: Partial<GuestRecord>): void {
    this.#kept.note(change)
  }

  /** The same, and a loss of power must not undo it. */
  async writeDown(change: Partial<GuestRecord>): Promise<void> {
    await this.#kept.writeDown(change)
  }

  replaceRecord(record: GuestRecord): void {
    this.#kept.replace(record)
  }

  /** Ends the process, if it still runs, and frees its memory and files. */
  async end(): Promise<void> {
    this.#toldToEnd = true
    // A QEMU that does not answer is killed below.
    if (!this.qmp.closed) this.qmp.run('quit').catch(() => undefined)
    await untilGone(this.record.process, quitMs)
    this.kill()
    await untilGone(this.record.process)
    if (!this.qmp.closed) await this.ended
    this.release()
    this.#kept.forget()
    removeFiles(this.files)
  }

  /** Ends this copy at once, because another host goes on with the guest. */
  supersede(detail: string): void {
    this.#superseded = detail
    this.kill()
  }

  /** Ends a copy that hangs, so that another one goes on with the guest: that counts as a death. */
  endHung(detail: string): void {
    this.#endedHung ??= detail
    this.kill()
  }

  kill(): void {
    try {
      killProcess(this.record.process)
    } catch (error) {
      // Whoever waits for its end goes on waiting.
      this.notes.add(
        `process ${this.record.process.pid} cannot be ended: ${asSubpageError(error).message}; end it by hand`,
      )
    }
  }

  /** Lets go of what this agent holds of the guest; the guest itself runs on. */
  release(): void {
    if (this.#released) return
    this.#released = true
    this.hang.close()
    this.#devices.close(this.#mapsLeft)
    this.qmp.close()
    this.ram.close()
    this.deviceState.close()
    clearInterval(this.#looking)
    this.lease.close()
    this.fence.close()
  }

  /** A guest that has died, or goes on elsewhere, may come back. What a standby has is known without it. */
  async #leaveMaps({ how }: GuestEnd): Promise<void> {
    if (this.record.waiting) return
    const { maps } = this.#devices
    if (how === 'died' || how === 'superseded') await maps.settle().catch(() => maps.remove())
    else maps.remove()
  }

  async #look(): Promise<void> {
    if (!this.#ramUnlinked && isRamUnlinked(this.record.process.pid, this.files.ram)) this.#noteUnlinked()
    await this.#log.turn()
    if ((await this.console.turn()) && !this.#released)
      this.noteRecord({ consoleDropped: this.console.droppedBytes })
  }

  #watch(): Promise<GuestEnd> {
    return new Promise((resolve) => {
      let patience: NodeJS.Timeout | undefined
      let shutDown = false
      this.qmp.on('event', (event) => {
        this.#announcement.heard(event)
        this.parts.memory.heard(event)
        this.#devices.disks.heard(event)
        this.diskErrors.heard(event, this.record.machine.disks)
        if (event.event === 'SHUTDOWN') {
          shutDown = true
          patience ??= setTimeout(() => this.kill(), shutdownMs)
        } else if (!this.endAnnounced) {
          clearTimeout(patience)
          patience = undefined
        }
      })
      this.qmp.on('close', () => {
        clearTimeout(patience)
        this.hang.close()
        // A dying process closes its files when its last thread is done with the guest. Should it live, without a control
        // socket, it must not: it could serve beside the copy that takes over.
        if (!this.#released) this.kill()
        const { end } = this.#announcement
        if (this.#superseded !== undefined) resolve({ how: 'superseded', detail: this.#superseded })
        else if (this.#toldToEnd) resolve({ how: 'stopped', detail: 'it was told to end' })
        else {
          const died = {
            how: 'died' as const,
            detail: this.#endedHung ?? 'its QEMU process ended without a shutdown',
          }
          const found = end ?? died
          // The end of a checkpoint that was under way looks as if the guest ran on.
          const asked = found.how === 'died' && shutDown && this.#endedHung === undefined
          resolve(asked && this.explainEnd ? this.explainEnd(found) : found)
        }
      })
    })
  }
}
