/** A guest that runs in stock QEMU on this host, as replication sees it: pause, device state, resume. */
import { readFileSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import type { Guest, GuestDescription, GuestEnd, Pause } from '../replication/guest.ts'
import { openTracker, type Tracker, type TrackerChoice } from '../tracking/tracker.ts'
import { isRunning } from './process.ts'
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

  get alive(): boolean {
    return !this.qemu.qmp.closed && isRunning(this.qemu.record.process)
  }

  supersede(detail: string): void {
    this.qemu.supersede(detail)
  }

  async pause(holdMs = leaseMs): Promise<Pause> {
    const { qmp, lease, files, outputs, outputWatch } = this.qemu
    const startedAt = performance.now()
    lease.acquire(holdMs)
    const [stopped, ...written] = qmp.pipeline([
      { execute: 'stop' },
      // Relative to QEMU's own directory: it reads its control socket byte by byte, about 5 µs each, in every pause.
      {
        execute: 'xen-save-devices-state',
        arguments: { filename: basename(files.deviceState), live: false },
      },
      ...outputs.seal(),
    ])
    const saved = Promise.all(written)
    // Awaited in deviceState(); a failure before that is not unhandled.
    saved.catch(() => undefined)
    try {
      await stopped
      outputWatch.mark()
    } catch (error) {
      lease.resumed()
      throw error
    }
    return {
      resume: () => this.#resume(startedAt),
      deviceState: async () => {
        await saved
        return readFileSync(files.deviceState)
      },
    }
  }

  holdOutputs(): Promise<void> {
    return this.qemu.outputs.hold()
  }

  freeOutputs(): Promise<void> {
    return this.qemu.outputs.free()
  }

  releaseOutputs(): Promise<void> {
    return this.qemu.outputs.release()
  }

  outputPending(): boolean | undefined {
    return this.qemu.outputWatch.pending
  }

  async #resume(startedAt: number): ReturnType<Pause['resume']> {
    const { qmp, lease } = this.qemu
    const valid = lease.release()
    await qmp.run('cont')
    lease.resumed()
    return { valid, pauseUs: (performance.now() - startedAt) * 1000 }
  }
}

/** What both hosts must have alike for the device state of one to load on the other. */
export function describe({ record }: QemuProcess): GuestDescription {
  const { ramBytes, ...machine } = record.machine
  return { id: record.id, name: record.name, ramBytes, hypervisor: { qemu: record.qemuVersion, ...machine } }
}
