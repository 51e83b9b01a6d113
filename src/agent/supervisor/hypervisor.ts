/**
 * What a supervisor needs of a hypervisor, beside what replication needs of it (replication/guest.ts): processes of guests that
 * are started, found again and ended, and what they leave on this host. qemu-hypervisor.ts is the one for QEMU; a simulated one
 * runs all decisions of a supervisor through schedules of failures (test/simulation/).
 */
import type { EventEmitter } from 'node:events'
import type { DiskError } from '../../qemu/disk-errors.ts'
import type { GuestFiles } from '../../qemu/guest-files.ts'
import type { GuestRecord } from '../../qemu/guest-record.ts'
import type { HangWatch } from '../../qemu/hang-watch.ts'
import type { QemuGuest } from '../../qemu/qemu-guest.ts'
import type { AttachStep, QemuProcess } from '../../qemu/qemu-process.ts'
import type { Guest, GuestDescription, GuestEnd, WaitingGuest } from '../../replication/guest.ts'
import type { Hello } from '../../replication/messages.ts'
import type { ProtectionSettings } from '../../replication/protection-settings.ts'
import type { StandbyOptions } from '../../replication/standby-options.ts'

/** The process of a guest, which outlives its supervisor. */
export interface GuestProcess
  extends Pick<
    QemuProcess,
    | 'files'
    | 'ram'
    | 'notes'
    | 'record'
    | 'ramUnlinked'
    | 'updateRecord'
    | 'replaceRecord'
    | 'writeDown'
    | 'end'
    | 'endHung'
    | 'release'
  > {
  readonly hang: HangWatch
  readonly diskErrors: EventEmitter<{ failed: [DiskError] }>
  /** Of a machine that is managed: asks the manager whether an end by a signal was meant. */
  explainEnd: ((end: GuestEnd) => Promise<GuestEnd>) | undefined
}

/** It runs: the source of checkpoints. */
export interface RunnableGuest<P extends GuestProcess>
  extends Guest,
    Pick<QemuGuest, 'watchAccesses' | 'standStill'> {
  readonly qemu: P
}

/** It waits for a device state, its RAM being the image. */
export interface WaitingProcess<P extends GuestProcess> extends WaitingGuest {
  readonly qemu: P
  /** It cannot be used: it goes, with what its start has made. */
  abandon(): Promise<void>
}

/** Where a standby writes what its primary's disks are told. */
export interface StandbyStorage extends Pick<StandbyOptions, 'disks' | 'journal'> {
  readonly spill: StandbyOptions['spill'] & { readonly bytes: number; readonly totalBytes: number }
  close(): Promise<unknown>
}

export interface Hypervisor<P extends GuestProcess = QemuProcess> {
  guestOf(process: P): RunnableGuest<P>
  /** @throws SubpageError NO_SPACE, QEMU_FAILED, PEER_MISMATCH, … Nothing is left behind then. */
  startWaiting(hello: Hello, files: GuestFiles): Promise<WaitingProcess<P>>
  /**
   * Looks again at a machine that somebody else manages, before it is protected: its disks and cards may have been changed.
   * @param signal aborted when nobody waits for it any more: it stays what it was then
   * @throws SubpageError GUEST_UNPROTECTABLE, GUEST_DIED, LIBVIRT_UNREACHABLE, …; it is what it was then
   */
  refit(process: P, signal: AbortSignal): Promise<void>
  /** Nothing protects such a machine any more: nothing of ours stays on its disks. @throws SubpageError QEMU_FAILED, GUEST_DIED */
  leave(process: P): Promise<void>
  /** @param diskTo where the copies of its disks are to lie on the other host */
  withPlaces(description: GuestDescription, diskTo: ProtectionSettings['diskTo']): GuestDescription
  /** @throws SubpageError DISK_UNUSABLE, the file system's own error; nothing is left open then */
  storageOf(process: P): StandbyStorage
  /** Undefined when there is none: a start that was cut short. @throws SubpageError STATE_DAMAGED, AUTH_REFUSED */
  readRecord(files: GuestFiles): GuestRecord | undefined
  /**
   * Finds a process again that a former supervisor has left, however long that takes. Undefined when it has ended.
   * @param doing hears what it waits for
   * @throws SubpageError QEMU_FAILED, GUEST_DIED
   */
  attach(files: GuestFiles, record: GuestRecord, doing: (step: AttachStep) => void): Promise<P | undefined>
  /** False: it runs, or may run where it cannot be seen from here. */
  isGone(record: GuestRecord): boolean
  /** Ends a process that nobody holds, and removes its files. @throws SubpageError QEMU_FAILED */
  endLeftover(files: GuestFiles, record: GuestRecord | undefined): Promise<void>
  /**
   * Brings the disks of a standby that is no more up to what it had acknowledged.
   * @returns of which checkpoint they are now; undefined when there was nothing to do
   * @throws SubpageError DISK_FAILED
   */
  playBack(files: GuestFiles, record: GuestRecord): Promise<number | undefined>
  /** The memory of a guest that has ended; its logs stay. */
  freeMemory(files: GuestFiles): void
  /** What a process said last that has ended. */
  lastWords(files: GuestFiles): string
}
