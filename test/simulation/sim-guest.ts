/** The seam between replication and a simulated QEMU; mirrors src/qemu/{qemu-guest,qemu-process,waiting-qemu}.ts. */
import { SubpageError } from '../../src/errors.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { HangWatch } from '../../src/qemu/hang-watch.ts'
import { OutputBuffers } from '../../src/qemu/output-buffers.ts'
import type { Qmp } from '../../src/qemu/qmp.ts'
import { noDisks } from '../../src/replication/disks.ts'
import type { Guest, GuestDescription, GuestEnd, Pause, WaitingGuest } from '../../src/replication/guest.ts'
import type { EarlyHarvest, Tracker } from '../../src/tracking/tracker.ts'
import type { SimProcess } from './sim-process.ts'
import type { SimQemu, SimQmp } from './sim-qemu.ts'
import type { SimWorld } from './sim-world.ts'

const leaseMs = 2_000
const inheritMs = 5_000

export class SimGuest implements Guest {
  readonly qemu: SimQemu
  readonly pauseMsMax = leaseMs
  readonly disks = noDisks
  readonly description: GuestDescription
  readonly ended: Promise<GuestEnd>
  readonly #world: SimWorld
  readonly #process: SimProcess
  readonly #qmp: SimQmp
  readonly #outputs: OutputBuffers
  readonly hang: HangWatch
  #lease: number | undefined
  #holdMs = 0
  #superseded: string | undefined

  constructor(world: SimWorld, process: SimProcess, qemu: SimQemu) {
    this.#world = world
    this.#process = process
    this.qemu = qemu
    this.description = describe(world)
    this.#qmp = qemu.connect(process)
    this.hang = new HangWatch({ of: this.#qmp, what: 'QEMU', clock: process.clock })
    this.#outputs = new OutputBuffers(this.#qmp as unknown as Qmp, 1, {
      speakUntil: (ms) => process.leave(() => qemu.fence(ms)),
    })
    this.ended = new Promise((resolve) =>
      this.#qmp.onClose(() => {
        this.hang.close()
        resolve(
          this.#superseded === undefined
            ? (qemu.end ?? { how: 'died', detail: '' })
            : { how: 'superseded', detail: this.#superseded },
        )
      }),
    )
  }

  /** Takes up what another agent left. */
  async attach(): Promise<void> {
    await this.#outputs.readBack()
    const { leaseUntilMs } = this.qemu
    this.#lease = leaseUntilMs === undefined ? undefined : this.qemu.renewLease(leaseUntilMs, inheritMs)
    const { status } = await this.#qmp.run<{ status: string }>('query-status')
    if (status === 'paused') await this.#qmp.run('cont')
    this.#resumed()
  }

  get ram() {
    return this.qemu.ram
  }

  get alive(): boolean {
    return !this.#qmp.closed && this.qemu.alive
  }

  get consoleBytes(): number {
    return this.qemu.step.depth
  }

  track(): Tracker {
    const { qemu } = this
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
      harvest: () => {
        if (!qemu.alive) throw new SubpageError('GUEST_DIED', 'the process has ended')
        const pages = PageRanges.of([...dirty].map((page) => [page, 1]))
        dirty.clear()
        const all = first || compares
        first = false
        return all ? PageRanges.all(qemu.ram.pages) : pages
      },
      close: () => void qemu.tracked.delete(dirty),
    }
  }

  supersede(detail: string): void {
    this.#superseded = detail
    this.#process.leave(() => this.qemu.die({ how: 'superseded', detail }))
  }

  /** It hangs, and its standby can go on. */
  endHung(): void {
    this.#process.leave(() => this.qemu.die({ how: 'died', detail: 'it hung and was ended' }))
  }

  /** Ends the process by command. */
  async quit(): Promise<void> {
    this.#qmp.run('quit').catch(() => {
      // It has ended before it answered.
    })
    await this.ended
  }

  async pause(holdMs = leaseMs): Promise<Pause> {
    const startedAt = this.#world.time.nowMs
    this.#holdMs = holdMs
    this.#lease = this.qemu.takeLease(holdMs)
    if (this.#lease === undefined)
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
      this.qemu.sentSincePause = false
    } catch (error) {
      this.#resumed()
      throw error
    }
    return {
      resume: async () => {
        this.#lease = this.#lease === undefined ? undefined : this.qemu.renewLease(this.#lease, this.#holdMs)
        const valid = this.#lease !== undefined
        if (this.#world.broken.releaseEarly) void this.#outputs.release(Number.POSITIVE_INFINITY)
        await this.#qmp.run('cont')
        this.#resumed()
        const pauseUs = (this.#world.time.nowMs - startedAt) * 1000
        return { valid: valid || this.#world.broken.trustBrokenPause === true, pauseUs, flushUs: 0 }
      },
      deviceState: async () => {
        await saved
        return encodeStep(this.qemu.saved?.id ?? 0)
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
    return this.qemu.sentSincePause
  }

  #resumed(): void {
    if (this.#lease !== undefined && this.qemu.leaseUntilMs === this.#lease)
      this.qemu.leaseUntilMs = undefined
    this.#lease = undefined
  }
}

export class SimWaiting implements WaitingGuest {
  readonly qemu: SimQemu
  readonly #world: SimWorld
  readonly #process: SimProcess
  readonly #qmp: SimQmp
  readonly ended: Promise<GuestEnd>
  /** Writes down that this is no standby any more. */
  onLoaded: () => void = () => undefined
  #discarded = false

  constructor(world: SimWorld, process: SimProcess, qemu: SimQemu) {
    this.#world = world
    this.#process = process
    this.qemu = qemu
    this.#qmp = qemu.connect(process)
    this.ended = new Promise((resolve) =>
      this.#qmp.onClose(() =>
        resolve(
          this.#discarded
            ? { how: 'stopped', detail: 'it was discarded' }
            : { how: 'died', detail: 'the waiting QEMU ended' },
        ),
      ),
    )
  }

  get image() {
    return this.qemu.ram
  }

  async takeOver(deviceState: Uint8Array, begin: () => void): Promise<void> {
    const state = Uint8Array.from(deviceState)
    await this.#process.ask<void>((answer, fail) => {
      this.#world.time.after(this.#world.random.integer(2, 40), () => {
        if (!this.qemu.alive) return fail(new SubpageError('QEMU_FAILED', 'the waiting QEMU is gone'))
        this.qemu.load(state)
        answer()
      })
    })
    begin()
    this.onLoaded()
    await this.#qmp.run('cont')
  }

  async discard(): Promise<void> {
    this.#discarded = true
    await this.#process.ask<void>((answer) => {
      this.qemu.die({ how: 'stopped', detail: 'discarded' })
      this.#world.time.after(1, answer)
    })
  }
}

function describe({ settings }: SimWorld): GuestDescription {
  return {
    id: '00000000-0000-4000-8000-000000000001',
    name: 'guest',
    memoryBytes: settings.pages * 4096,
    diskBytes: [],
    hypervisor: { simulated: true },
  }
}

function encodeStep(id: number): Uint8Array {
  const state = Buffer.alloc(64)
  state.writeUInt32LE(id, 0)
  return state
}
