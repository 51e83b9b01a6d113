/** A guest that runs in stock QEMU on this host, as replication sees it: pause, device state, resume. */
import { readFileSync, statSync } from 'node:fs'
import type { Guest, GuestDescription, GuestEnd, Pause, PauseResult } from '../replication/guest.ts'
import { openTracker, type Tracker, type TrackerChoice } from '../tracking/tracker.ts'
import type { QemuProcess } from './qemu-process.ts'

/** A checkpoint's pause takes milliseconds; a pause of this length means that this agent hangs. */
const leaseMs = 2_000

export class QemuGuest implements Guest {
  readonly qemu: QemuProcess

  constructor(qemu: QemuProcess) {
    this.qemu = qemu
  }

  get description(): GuestDescription {
    return describe(this.qemu)
  }

  get ram() {
    return this.qemu.ram
  }

  get ended(): Promise<GuestEnd> {
    return this.qemu.ended
  }

  get consoleBytes(): number {
    return statSync(this.qemu.files.consoleLog).size
  }

  track(choice: TrackerChoice): Tracker {
    const { files, record, ram } = this.qemu
    return openTracker(
      {
        pid: record.process.pid,
        ramPath: files.ram,
        ramPages: ram.pages,
        shimStatusPath: files.shimStatus,
      },
      choice,
    )
  }

  async pause(): Promise<Pause> {
    const { qmp, lease, files } = this.qemu
    const startedAt = performance.now()
    lease.acquire(leaseMs)
    const [stopped, saved] = qmp.pipeline([
      { execute: 'stop' },
      { execute: 'xen-save-devices-state', arguments: { filename: files.deviceState, live: false } },
    ])
    // Awaited in resume(); a failure before that is not unhandled.
    saved?.catch(() => undefined)
    try {
      await stopped
    } catch (error) {
      lease.resumed()
      throw error
    }
    return { resume: () => this.#resume(startedAt, saved) }
  }

  async #resume(startedAt: number, saved: Promise<unknown> | undefined): Promise<PauseResult> {
    const { qmp, lease, files } = this.qemu
    const valid = lease.release()
    await qmp.run('cont')
    lease.resumed()
    const pauseUs = (performance.now() - startedAt) * 1000
    await saved
    return { valid, deviceState: readFileSync(files.deviceState), pauseUs }
  }
}

/** What both hosts must have alike for the device state of one to load on the other. */
export function describe({ record }: QemuProcess): GuestDescription {
  const { ramBytes, ...machine } = record.machine
  return { name: record.name, ramBytes, hypervisor: { qemu: record.qemuVersion, ...machine } }
}
