/**
 * A QEMU process: it outlives its supervisor. The guest in it makes steps, each written to memory and sometimes sent to a
 * client through the two buffers of QEMU's filters and the fence. The guard of the pause lease is part of it. Its control
 * socket runs commands in order, a little later. Stopped, it does nothing; then what has waited happens at once.
 */
import { SubpageError } from '../../src/errors.ts'
import { Region } from '../../src/memory/region.ts'
import type { QmpCommand } from '../../src/qemu/qmp.ts'
import type { GuestEnd } from '../../src/replication/guest.ts'
import { type SimClient, type Step, slotsPerPage, Violation } from './sim-client.ts'
import type { SimProcess } from './sim-process.ts'
import type { SimWorld } from './sim-world.ts'

export class SimQemu {
  readonly host: string
  readonly ram: Region
  readonly tracked = new Set<Set<number>>()
  readonly #world: SimWorld
  readonly #client: SimClient
  readonly #connections = new Set<SimQmp>()
  status: 'incoming' | 'loaded' | 'running' | 'paused' | 'dead' = 'incoming'
  /** Why it ended. */
  end: GuestEnd | undefined
  step: Step
  /** Written by the last save. */
  saved: Step | undefined
  sentSincePause = false
  fresh: Step[] | undefined
  held: Step[] | undefined
  leaseUntilMs: number | undefined
  /** What it takes to end when it is told to. */
  quitMs = 0
  #speaksUntilMs = Number.POSITIVE_INFINITY
  #stopped = false
  readonly #waiting: (() => void)[] = []
  #guardActs = false
  #cancelStep: (() => void) | undefined
  #readyAtMs = 0

  constructor(world: SimWorld, host: string) {
    this.#world = world
    this.#client = world.client
    this.host = host
    this.ram = Region.anonymous(world.settings.pages * 4096)
    this.step = world.client.first
    world.qemus.push(this)
  }

  get alive(): boolean {
    return this.status !== 'dead'
  }

  /** It has the guest, not just an image of it. */
  get hasGuest(): boolean {
    return this.status === 'running' || this.status === 'paused' || this.status === 'loaded'
  }

  connect(process: SimProcess): SimQmp {
    const qmp = new SimQmp(this, process)
    this.#connections.add(qmp)
    // A supervisor that stood still meanwhile finds it dead: nobody tells it later.
    if (!this.alive) this.#world.time.after(0, () => qmp.lose())
    return qmp
  }

  /** A new guest. */
  boot(): void {
    const slots = Array.from({ length: this.ram.pages * slotsPerPage }, (_, slot) => slot)
    this.#advance(slots)
    this.#run()
  }

  /** What a waiting machine does with a device state, some time later: from there on it is this guest. */
  load(deviceState: Uint8Array, done: () => void): void {
    const { time, random } = this.#world
    time.after(random.integer(2, 40), () =>
      this.#whenRunning(() => {
        if (!this.alive) return
        this.step = this.#client.find(Buffer.from(deviceState).readUInt32LE(0))
        this.status = 'loaded'
        this.#client.checkWhole(this.step, this.ram)
        done()
      }),
    )
  }

  die(end: GuestEnd): void {
    if (this.status === 'dead') return
    this.#stand()
    this.#world.note(`${this.host}: QEMU ${end.how} at step ${this.step.id} (${end.detail})`)
    this.status = 'dead'
    this.end = end
    for (const qmp of this.#connections) qmp.lose()
  }

  /** SIGSTOP. */
  stop(): void {
    this.#stopped = true
  }

  goOn(): void {
    this.#stopped = false
    for (const run of this.#waiting.splice(0)) run()
  }

  /** As native/shim/fence.c. */
  fence(untilMs: number): void {
    if (!this.#world.broken.openFence) this.#speaksUntilMs = untilMs
  }

  #whenRunning(run: () => void): void {
    if (this.#stopped) this.#waiting.push(run)
    else run()
  }

  /** The supervisor hangs in a pause: the guard lets the guest run, and it makes some steps at once. */
  breakLease(steps: number): void {
    if (this.status !== 'paused' || this.leaseUntilMs === undefined) return
    this.leaseUntilMs = undefined
    this.#run()
    for (let n = 0; n < steps; n++) this.#live()
  }

  // ---- the lease

  /** False while the guard ends an earlier pause. */
  takeLease(holdMs: number): number | undefined {
    if (this.#guardActs) return undefined
    const until = this.#world.time.nowMs + holdMs
    this.leaseUntilMs = until
    this.#world.time.after(holdMs, () => {
      if (this.leaseUntilMs !== until || this.status === 'dead') return
      this.leaseUntilMs = undefined
      this.#guardActs = true
      this.#world.time.after(1, () =>
        this.#whenRunning(() => {
          this.#guardActs = false
          if (this.status === 'paused') this.#run()
        }),
      )
    })
    return until
  }

  /** False when the guard was faster. */
  renewLease(held: number, holdMs: number): number | undefined {
    return this.leaseUntilMs === held ? this.takeLease(holdMs) : undefined
  }

  // ---- its control socket

  execute(commands: QmpCommand[], done: (results: unknown[]) => void): void {
    const { time, random } = this.#world
    const atMs = Math.max(this.#readyAtMs, time.nowMs + random.integer(20, 900) / 1000)
    this.#readyAtMs = atMs
    time.after(atMs - time.nowMs, () =>
      this.#whenRunning(() => {
        if (this.alive) done(commands.map((command) => this.#execute(command)))
      }),
    )
  }

  #execute({ execute, arguments: args }: QmpCommand): unknown {
    switch (execute) {
      case 'stop':
        if (this.status === 'running') {
          this.#stand()
          this.status = 'paused'
        }
        return {}
      case 'cont':
        this.#go()
        return {}
      case 'xen-save-devices-state':
        this.saved = this.step
        return {}
      case 'query-status':
        return { status: this.status === 'loaded' ? 'paused' : this.status }
      case 'qom-get':
        return this[bufferOf(args)] ? 'on' : 'off'
      case 'qom-set':
        this.#switch(bufferOf(args), args?.value === 'on')
        return {}
      case 'quit':
        this.#world.time.after(this.quitMs, () =>
          this.#whenRunning(() => this.die({ how: 'stopped', detail: 'QEMU was told to end' })),
        )
        return {}
      default:
        throw new Error(`the simulated QEMU does not know ${execute}`)
    }
  }

  #go(): void {
    if (this.status === 'loaded') {
      this.#world.tookOver(this)
      this.#run()
    } else if (this.status === 'paused') this.#run()
    else if (this.status === 'incoming')
      throw new Violation('an image without a device state was told to run')
  }

  // ---- the guest

  #run(): void {
    this.status = 'running'
    this.#later()
  }

  #stand(): void {
    this.#cancelStep?.()
  }

  #later(): void {
    this.#cancelStep?.()
    const { time, random, settings } = this.#world
    this.#cancelStep = time.after(random.integer(1, settings.stepMs * 2), () =>
      this.#whenRunning(() => this.status === 'running' && this.#live()),
    )
  }

  #live(): void {
    const { random } = this.#world
    const slots = [0]
    for (let n = random.integer(0, 3); n > 0; n--)
      slots.push(random.integer(0, this.ram.pages * slotsPerPage - 1))
    this.#advance(slots)
    if (random.integer(0, 1)) this.#send(this.step)
    this.#later()
  }

  #advance(slots: number[]): void {
    this.step = this.#client.grow(this.step, slots, this.ram)
    for (const dirty of this.tracked) for (const slot of slots) dirty.add(Math.floor(slot / slotsPerPage))
  }

  #send(step: Step): void {
    this.sentSincePause = true
    if (this.fresh) this.fresh.push(step)
    else this.#pass(step)
  }

  /** Beyond the first buffer. */
  #pass(step: Step): void {
    if (this.held) this.held.push(step)
    else this.#speak(step)
  }

  #speak(step: Step): void {
    if (this.#world.time.nowMs + this.#world.originMs(this.host) < this.#speaksUntilMs)
      this.#world.packet(step, this)
    else this.#world.silenced++
  }

  #switch(buffer: 'held' | 'fresh', on: boolean): void {
    const packets = this[buffer] ?? []
    if (on) this[buffer] ??= []
    else {
      this[buffer] = undefined
      for (const step of packets) buffer === 'fresh' ? this.#pass(step) : this.#speak(step)
    }
  }
}

const bufferOf = (args: Record<string, unknown> | undefined) =>
  String(args?.path).includes('held') ? 'held' : 'fresh'

/** A connection of one supervisor to the control socket, with the face of Qmp. */
export class SimQmp {
  readonly qemu: SimQemu
  readonly process: SimProcess
  readonly #pending = new Set<(error: Error) => void>()
  readonly #onClose: (() => void)[] = []
  closed = false
  answerCount = 0

  constructor(qemu: SimQemu, process: SimProcess) {
    this.qemu = qemu
    this.process = process
  }

  run<T = unknown>(execute: string): Promise<T> {
    return this.pipeline([{ execute }])[0] as Promise<T>
  }

  pipeline(commands: QmpCommand[]): Promise<unknown>[] {
    const waiters: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = []
    const results = commands.map(
      ({ execute }) =>
        new Promise<unknown>((resolve, reject) => {
          if (this.closed) return reject(ended(execute))
          const waiter = { resolve, reject: () => reject(ended(execute)) }
          waiters.push(waiter)
          this.#pending.add(waiter.reject)
        }),
    )
    if (!this.closed)
      this.process.leave(() =>
        this.qemu.execute(commands, (values) =>
          this.process.enter(() =>
            waiters.forEach(({ resolve, reject }, index) => {
              this.#pending.delete(reject)
              this.answerCount++
              resolve(values[index])
            }),
          ),
        ),
      )
    return results
  }

  get pendingCount(): number {
    return this.#pending.size
  }

  ask(): void {
    this.run('query-status').catch(() => {
      // It has ended: whoever has the guest hears of it.
    })
  }

  onClose(run: () => void): void {
    this.#onClose.push(run)
  }

  /** Its end has come to QEMU's own; the supervisor meets it when it looks. */
  lose(): void {
    this.process.enter(() => this.close())
  }

  close(): void {
    if (this.closed) return
    this.closed = true
    for (const reject of this.#pending) reject(ended(''))
    this.#pending.clear()
    for (const run of this.#onClose) run()
  }
}

const ended = (what: string) => new SubpageError('GUEST_DIED', `QEMU ended before it answered ${what}`)
