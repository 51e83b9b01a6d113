/** What is known of a guest whose supervisor does not answer: what its record says. */
import { memoryBytes } from '../qemu/aux-ram.ts'
import { diskStatus } from './disk-status.ts'
import { type GuestStatus, unprotected } from './status.ts'
import type { SupervisedGuest } from './supervised-guest.ts'

/** Undefined when there is no guest yet. */
export function unansweredStatus({
  name,
  files,
  record,
  alive,
  process,
  failure,
}: SupervisedGuest): GuestStatus | undefined {
  if (!record) return undefined
  const { machine, qemuVersion, generation, waiting } = record
  return {
    ...unprotected,
    name,
    role: waiting ? 'Standby' : 'Alone',
    state: alive ? 'Hung' : 'Failed',
    reason: alive
      ? `its supervisor (process ${process?.pid ?? 'unknown'}) gives no answer`
      : (failure ?? 'its supervisor has ended, and the next one is started'),
    reasonCode: 'SUPERVISOR_FAILED',
    ramBytes: machine.ramBytes,
    auxBytes: memoryBytes(machine) - machine.ramBytes,
    accel: machine.accel,
    qemu: qemuVersion,
    pid: record.process.pid,
    console: files.consoleLog,
    consoleSocket: files.console,
    firmware: null,
    vnc: null,
    disks: machine.disks.map((disk) => diskStatus(disk, waiting)),
    shimMissing: null,
    generation,
    supervisor: null,
  }
}
