/** A simulated QEMU as replication meets it, running or waiting; mirrors src/qemu/{qemu-guest,waiting-qemu}.ts. */

import type { RunnableGuest, WaitingProcess } from '../../src/agent/supervisor/hypervisor.ts'
import { SubpageError } from '../../src/errors.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import type { GuestRecord } from '../../src/qemu/guest-record.ts'
import type { OutputBuffers } from '../../src/qemu/output-buffers.ts'
import { noDisks } from '../../src/replication/disks.ts'
import type { GuestDescription, GuestEnd, Pause } from '../../src/replication/guest.ts'
import type { EarlyHarvest, Tracker } from '../../src/tracking/tracker.ts'
import { otherThanZeros } from '../replication/scripted-guest.ts'
import type { SimGuestProcess } from './sim-guest-process.ts'
import type { SimQemu, SimQmp } from './sim-qemu.ts'
import type { SimWorld } from './sim-world.ts'

const leaseMs = 2_000

export class SimGuest implements RunnableGuest<SimGuestProcess> {
  readonly qemu: SimGuestProcess
  readonly pauseMsMax = leaseMs
  readonly disks = noDisks
  readonly #world: SimWorld
  readonly #machine: SimQemu
  readonly #qmp: SimQmp
  readonly #outputs: OutputBuffers
  #holdMs = 0

  constructor(qemu: SimGuestProcess) {
    this.qemu = qemu
    this.#world = qemu.world
    this.#machine = qemu.qemu
    this.#qmp = qemu.qmp
    this.#outputs = qemu.outputs
  }

  get description(): GuestDescription {
    return describe(this.qemu.record)
  }

  get ended(): Promise<GuestEnd> {
    return this.qemu.ended
  }

  get ram() {
    return this.qemu.ram
  }

  dataPages = () => otherThanZeros(this.ram)

  get alive(): boolean {
    return !this.#qmp.closed && this.#machine.alive
  }

  get consoleBytes(): number {
    return this.#machine.step.depth
  }

  track(): Tracker {
    const qemu = this.#machine
    if (!qemu.alive) throw new SubpageError('GUEST_DIED', 'no such process')
    const dirty = new Set<number>()
    qemu.tracked.add(dirty)
    let first = true
    const compares = this.#world.settings.tracker === 'compare'
    const early: EarlyHarvest = {
      peek: () => (first ? PageRanges.empty : PageRanges.of([...dirty].map((page) => [page, 1]))),
      harvest: (within) => {
        if (!qemu.alive) throw new SubpageError('GUEST_DIED', 'the process has ended')
        const pages = [...dirty].filter((page) => within.has(page))
        for (const page of pages) dirty.delete(page)
        return PageRanges.of(pages.map((page) => [page, 1]))
      },
    }
    return {
      name: this.#world.settings.tracker,
      fallback: undefined,
      early: compares ? undefined : early,
      harvest: (leave = PageRanges.empty) => {
        if (!qemu.alive) throw new SubpageError('GUEST_DIED', 'the process has ended')
        // A page that is not armed keeps its mark.
        const taken = [...dirty].filter((page) => !leave.has(page))
        for (const page of taken) dirty.delete(page)
        const all = first || compares
        first = false
        this.#world.hotPages += leave.pageCount
        if (all) return PageRanges.all(qemu.ram.pages)
        const pages = PageRanges.of(taken.map((page) => [page, 1]))
        return this.#world.broken.vouchForHot ? pages : pages.union(leave)
      },
      close: () => void qemu.tracked.delete(dirty),
    }
  }

  /** Its memory is watched and held densely by nobody: that needs a keeper, which is not simulated. */
  watchAccesses(): never {
    throw new SubpageError('TRACKER_UNAVAILABLE', 'accesses of a simulated guest cannot be seen')
  }

  standStill(): Promise<never> {
    return Promise.reject(new SubpageError('TRACKER_UNAVAILABLE', 'its pages stay'))
  }

  supersede(detail: string): void {
    this.qemu.supersede(detail)
  }

  async pause(holdMs = leaseMs): Promise<Pause> {
    const startedAt = this.#world.time.nowMs
    this.#holdMs = holdMs
    this.qemu.lease = this.#machine.takeLease(holdMs)
    if (this.qemu.lease === undefined)
      throw new SubpageError('PAUSE_BROKEN', 'the guard is still ending an earlier pause of this guest')
    const [stopped, ...written] = this.#qmp.pipeline([
      { execute: 'stop' },
      { execute: 'xen-save-devices-state' },
      ...this.#outputs.seal(),
    ])
    const saved = Promise.all(written)
    // Awaited in deviceState().
    saved.catch(() => undefined)
    try {
      await stopped
      this.#machine.sentSincePause = false
    } catch (error) {
      this.qemu.resumed()
      throw error
    }
    return {
      suspended: false,
      resume: async () => {
        const { lease } = this.qemu
        this.qemu.lease = lease === undefined ? undefined : this.#machine.renewLease(lease, this.#holdMs)
        const valid = this.qemu.lease !== undefined
        if (this.#world.broken.releaseEarly)
          // It fails when QEMU has ended, which is noticed elsewhere.
          this.#outputs.release(Number.POSITIVE_INFINITY).catch(() => undefined)
        await this.#qmp.run('cont')
        this.qemu.resumed()
        const pauseUs = (this.#world.time.nowMs - startedAt) * 1000
        return {
          valid: valid || this.#world.broken.trustBrokenPause === true,
          ...{ pauseUs, pausingUs: pauseUs, flushUs: 0 },
        }
      },
      lend: async (work) => void (await work(0n)),
      deviceState: async () => {
        await saved
        return encodeStep(this.#machine.saved?.id ?? 0)
      },
    }
  }

  async holdOutputs(): Promise<void> {
    if (this.#world.broken.forgetHolding) return
    await this.#outputs.hold()
  }

  freeOutputs(): Promise<void> {
    return this.#outputs.free()
  }

  releaseOutputs(untilMs: number): Promise<void> {
    return this.#outputs.release(untilMs)
  }

  outputPending(): boolean {
    return this.#machine.sentSincePause
  }

  misfit(): undefined {}

  async misfitNow(): Promise<undefined> {
    return this.misfit()
  }
}

export class SimWaiting implements WaitingProcess<SimGuestProcess> {
  readonly qemu: SimGuestProcess
  readonly parts: readonly string[] = []
  readonly blank = true
  #discarded = false

  constructor(qemu: SimGuestProcess) {
    this.qemu = qemu
  }

  get ended(): Promise<GuestEnd> {
    return this.qemu.ended.then((end) =>
      this.#discarded
        ? { how: 'stopped', detail: 'it was discarded' }
        : { ...end, detail: `the waiting QEMU ended: ${end.detail}` },
    )
  }

  async takeOver(deviceState: Uint8Array, _suspended: boolean, begin: () => void): Promise<void> {
    const { qemu, qmp, hang, process, ended } = this.qemu
    const state = Uint8Array.from(deviceState)
    const stuck = () => this.qemu.endHung('its QEMU hung when it was to take the guest over, and was ended')
    hang.on('stuck', stuck)
    const loaded = process.ask<boolean>((answer) => qemu.load(state, () => answer(true)))
    if (!(await Promise.race([loaded, ended.then(() => false)])))
      throw new SubpageError('QEMU_FAILED', 'QEMU could not load the device state')
    begin()
    this.qemu.updateRecord({ waiting: false })
    await qmp.run('cont')
    hang.removeListener('stuck', stuck)
  }

  async discard(): Promise<void> {
    this.#discarded = true
    await this.qemu.end()
  }

  async abandon(): Promise<void> {
    await this.discard()
  }
}

/** @param settings what the guest is like */
export function simMachine({ settings }: SimWorld): GuestRecord['machine'] {
  return {
    ...{ type: 'simulated', ramBytes: settings.pages * 4096, accel: 'tcg' },
    ...{ options: [], nics: [], disks: [] },
  }
}

function describe({ id, name, machine: { ramBytes } }: GuestRecord): GuestDescription {
  return { id, name, memoryBytes: ramBytes, diskBytes: [], hypervisor: { simulated: true } }
}

function encodeStep(id: number): Uint8Array {
  const state = Buffer.alloc(64)
  state.writeUInt32LE(id, 0)
  return state
}
