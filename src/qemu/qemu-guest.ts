/** A guest that runs in stock QEMU on this host, as replication sees it: pause, device state, resume. */
import { dataPagesAt } from '../memory/data-pages.ts'
import { pageBytes } from '../memory/page.ts'
import type { PageRanges } from '../memory/page-ranges.ts'
import type { Difference, Guest, GuestDescription, GuestEnd, Pause } from '../replication/guest.ts'
import { type AccessTarget, faultCosts, openAccesses } from '../tracking/accesses.ts'
import { openTracker, type Tracker, type TrackerChoice } from '../tracking/tracker.ts'
import { shapeOf } from './disk.ts'
import { PauseTime } from './pause-time.ts'
import { isEnding, isGone } from './process.ts'
import type { QemuProcess } from './qemu-process.ts'
import { vncOf } from './screen.ts'
import { leaseMs, standStill } from './stand-still.ts'
import { WriteFeed } from './write-feed.ts'

export class QemuGuest implements Guest {
  readonly qemu: QemuProcess
  readonly pauseMsMax = leaseMs
  readonly #writes = new WriteFeed()

  constructor(qemu: QemuProcess) {
    this.qemu = qemu
  }

  get description(): GuestDescription {
    return describe(this.qemu)
  }

  get ram() {
    return this.qemu.ram
  }

  get disks() {
    return this.qemu.devices.disks
  }

  get ended(): Promise<GuestEnd> {
    return this.qemu.ended
  }

  get consoleBytes(): number {
    return this.qemu.console.totalBytes
  }

  dataPages(): PageRanges {
    return dataPagesAt(this.qemu.ramPath, this.ram.bytes)
  }

  track(choice: TrackerChoice): Tracker {
    return this.#writes.observe(openTracker(this.#target, choice))
  }

  /**
   * For whoever watches which pages the guest uses: beside a protection, without taking anything from it.
   * @throws SubpageError TRACKER_UNAVAILABLE
   */
  watchAccesses() {
    // What its devices and firmware use is none of the guest's RAM.
    const ramPages = this.qemu.record.machine.ramBytes / pageBytes
    const accesses = openAccesses({ ...this.#target, ramPages })
    return {
      accesses,
      costs: faultCosts(),
      beginWrites: (pages: PageRanges) => this.#writes.begin(() => accesses.arm(pages)),
      endWrites: (pages: PageRanges) => this.#writes.end(() => accesses.written(pages)),
    }
  }

  get #target(): AccessTarget {
    const { files, record, ram, ramPath } = this.qemu
    return {
      pid: record.process.pid,
      ramPath,
      ramPages: ram.pages,
      shimStatusPath: files.shimStatus,
      forgetPath: files.forget,
    }
  }

  get alive(): boolean {
    const { qmp, record, endAnnounced } = this.qemu
    return !qmp.closed && !endAnnounced && !isGone(record.process) && !isEnding(record.process)
  }

  supersede(detail: string): void {
    this.qemu.supersede(detail)
  }

  async pause(holdMs = leaseMs): Promise<Pause> {
    const { qmp, lease, deviceState, parts } = this.qemu
    const { outputs, outputWatch, flushAhead } = this.qemu.devices
    await flushAhead.run()
    const time = new PauseTime(qmp)
    lease.acquire(holdMs)
    const flushedUs = lease.flushedUs
    const asked = this.#othersCommand ? qmp.pipeline([runState]) : []
    const memory = parts.memory.commands
    const [stopped, ...written] = qmp.pipeline([
      { execute: 'stop' },
      ...memory,
      { execute: 'xen-save-devices-state', arguments: { filename: deviceState.pathInQemu, live: false } },
      ...outputs.seal(),
    ])
    const saved = Promise.all(written).then(([first]) => memory.length > 0 && parts.memory.paused(first))
    // Awaited in deviceState(); a failure before that is not unhandled.
    saved.catch(() => undefined)
    let flushUs = 0
    try {
      const [, before] = (await Promise.all([stopped, ...asked])) as [unknown, RunState?]
      // One that was paused when we asked, and was then stopped by us, has been resumed by somebody in between.
      if (before) this.#noteSuspension(before.status === 'paused' && !time.stopped)
      flushUs = lease.flushedUs - flushedUs
      flushAhead.paused(flushUs)
      outputWatch.mark()
    } catch (error) {
      lease.resumed()
      throw error
    }
    return {
      suspended: this.#suspended,
      lend: (work) => lease.lend(work),
      resume: async () => ({ ...(await this.#resume(time)), flushUs }),
      deviceState: async () => {
        await saved
        return deviceState.read()
      },
    }
  }

  /**
   * The guest stands still while `work` moves pages of its RAM. It is lent our pause lease, and resolves with what that is
   * then. Not beside a protection, whose pauses are its own.
   * @returns microseconds until the guest ran again
   * @throws SubpageError PAUSE_BROKEN, and what `work` throws
   */
  async standStill(work: (held: bigint) => Promise<bigint>): Promise<number> {
    const { lease } = this.qemu
    const startedAt = performance.now()
    await standStill(this.qemu, () => lease.lend(work))
    return (performance.now() - startedAt) * 1000
  }

  holdOutputs(): Promise<void> {
    return this.qemu.devices.outputs.hold()
  }

  freeOutputs(): Promise<void> {
    return this.qemu.devices.outputs.free()
  }

  releaseOutputs(untilMs: number): Promise<void> {
    return this.qemu.devices.outputs.release(untilMs)
  }

  outputPending(): boolean | undefined {
    return this.qemu.devices.outputWatch.pending
  }

  misfit(deviceState: Uint8Array, parts: readonly string[]): Difference | undefined {
    return this.qemu.parts.misfit(
      Buffer.from(deviceState.buffer, deviceState.byteOffset, deviceState.byteLength),
      parts,
    )
  }

  async misfitNow(parts: readonly string[]): Promise<Difference | undefined> {
    await this.qemu.lease.settled()
    const pause = await this.pause()
    await pause.resume()
    const state = await pause.deviceState()
    await this.qemu.parts.look()
    return this.misfit(state, parts)
  }

  async #resume(time: PauseTime): Promise<{ valid: boolean; pauseUs: number; pausingUs: number }> {
    const { qmp, lease } = this.qemu
    const valid = lease.release()
    // QEMU's events come by a way of their own, and may be later than its answers.
    if (this.#suspended && time.stopped) this.#noteSuspension(false)
    const commands = this.#suspended ? [] : [{ execute: 'cont' }]
    const answers = qmp.pipeline(this.#othersCommand ? [runState, ...commands] : commands)
    const [during] = (await Promise.all(answers)) as (RunState | undefined)[]
    lease.resumed()
    // Somebody has let it run in the middle.
    const broken = this.#othersCommand && during?.running === true
    if (broken) this.#noteSuspension(false)
    return { valid: valid && !broken, ...time.ended() }
  }

  /** Somebody else stops and resumes it as well (virsh suspend, resume). */
  get #othersCommand(): boolean {
    return this.qemu.record.machine.managed !== undefined
  }

  get #suspended(): boolean {
    return this.qemu.record.suspended === true
  }

  #noteSuspension(suspended: boolean): void {
    if (this.#suspended !== suspended) this.qemu.noteRecord({ suspended })
  }
}

const runState = { execute: 'query-status' }
interface RunState {
  running: boolean
  status: string
}

/** What both hosts must have alike for the device state of one to load on the other. */
function describe({ record, ram }: QemuProcess): GuestDescription {
  const { track: _, disks, aux = [], firmware, vnc, ...machine } = record.machine
  return {
    id: record.id,
    name: record.name,
    memoryBytes: ram.bytes,
    diskBytes: disks.map(({ bytes }) => bytes),
    hypervisor: {
      qemu: record.qemuVersion,
      ...machine,
      aux,
      disks: disks.map(shapeOf),
      ...(firmware && { firmware: firmware.kind }),
      ...(vnc && { vnc: vncOf(vnc) }),
    },
  }
}
