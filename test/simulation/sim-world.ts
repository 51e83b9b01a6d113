/** Two hosts, what is between them, and what is known of the guest from outside: everything of one simulation. */
import { SubpageError as Failure, type SubpageError } from '../../src/errors.ts'
import type { FaultPoint } from '../../src/replication/fault.ts'
import type { PauseLimits } from '../../src/replication/pause-limits.ts'
import type { Sending } from '../../src/replication/sending.ts'
import type { HotPageCosts } from '../../src/tracking/hot-pages.ts'
import { type SeededRandom, seededRandom } from '../support/random.ts'
import { SimArbiter } from './sim-arbiter.ts'
import { SimClient, type Step, Violation } from './sim-client.ts'
import { SimTime } from './sim-clock.ts'
import { SimHost } from './sim-host.ts'
import { SimNetwork } from './sim-network.ts'
import { Killed } from './sim-process.ts'
import type { SimQemu } from './sim-qemu.ts'
import type { SimSupervisor } from './sim-supervisor.ts'

export interface SimSettings {
  pages: number
  /** Mean time between two steps of the guest. */
  stepMs: number
  epochMs: number
  pauseShareMax: number | undefined
  suspicionMs: number
  outputs: 'held' | 'free'
  /** The hosts have one arbiter; otherwise each asks its own, and only people decide. */
  chosen: boolean
  /** The hosts are on one machine, which dies with neither. */
  sameMachine: boolean
  /** On one machine: whether each supervisor is in a PID namespace of its own, where processes of the other are not found. */
  apart: boolean
  tracker: 'userfault' | 'compare'
  codec: 'line' | 'page' | 'xor-rle' | 'masked'
  sending: Sending
  /** Small ones: what gigabytes of unsynced pages do to a real pause, some pages do here. */
  limits: PauseLimits
  hotPages: HotPageCosts | undefined
}

/** For the tests that prove that the judge sees what goes wrong. */
export interface Broken {
  releaseEarly?: boolean
  trustBrokenPause?: boolean
  forgetHolding?: boolean
  /** Deltas go as they are: what reduces them would notice these defects by itself. */
  plain?: boolean
  openFence?: boolean
  /** Pages that are not armed are reported only when they are next armed. */
  vouchForHot?: boolean
  /** In place of what is drawn. */
  settings?: Partial<SimSettings>
  /** Happens beside what is drawn: what a defect needs to show, and chance brings together too rarely. */
  disturb?: (world: SimWorld) => void
}

export interface PlannedFault {
  host: string
  point: FaultPoint
  passingsLeft: number
  action: 'kill' | 'stop' | 'throw' | 'stall'
  /** Until a stopped supervisor goes on, or a killed one is started again. */
  forMs: number
}

export class SimWorld {
  readonly seed: number
  readonly random: SeededRandom
  readonly time = new SimTime()
  readonly network: SimNetwork
  readonly settings: SimSettings
  readonly broken: Broken
  readonly client: SimClient
  readonly hosts: SimHost[]
  readonly qemus: SimQemu[] = []
  readonly planned: PlannedFault[] = []
  readonly log: string[] = []
  readonly #arbiters: SimArbiter[]
  /** The guest has been ended by command. */
  removed = false
  /** A host was hit between the decision for it and the guest's first step there. */
  hitMidway = false
  /** The operator has said that the primary is gone. */
  forced = false
  /** Somebody has asked for a failover or a switchover, which may leave two copies while it is under way. */
  commanded = false
  takeovers = 0
  /** The copy that took over last: whoever had the guest before must not speak any more. */
  #speaker: SimQemu | undefined
  /** Packets that a fence has dropped. */
  silenced = 0
  /** Pages that harvests were asked not to arm. */
  hotPages = 0
  /** A planned fault has happened; its effect lasts for so long. */
  /** A copy that hangs is about to be ended, so that its standby goes on. */
  onFenced: () => void = () => undefined
  onFault: (host: SimHost, forMs: number) => void = () => undefined
  failure: Error | undefined

  constructor(seed: number, settings: (random: SeededRandom) => SimSettings, broken: Broken = {}) {
    this.seed = seed
    this.random = seededRandom(seed)
    this.broken = broken
    this.settings = { ...settings(this.random), ...broken.settings }
    this.network = new SimNetwork(this.time, this.random)
    this.client = new SimClient(this.settings.pages)
    this.#arbiters = [new SimArbiter(this.time, this.random), new SimArbiter(this.time, this.random)]
    for (const arbiter of this.#arbiters) arbiter.note = (text) => this.note(text)
    this.hosts = [new SimHost(this, 'a'), new SimHost(this, 'b')]
  }

  /** The one that counts. */
  get arbiter(): SimArbiter {
    return this.#arbiters[0]!
  }

  arbiterOf(host: string): SimArbiter {
    return this.#arbiters[this.settings.chosen || host === 'a' ? 0 : 1]!
  }

  /** Of a host's clock: a time of one means nothing to the other. */
  originMs(host: string): number {
    return (host === 'a' ? 86_400_000 : 3_600_000) * (this.seed % 97)
  }

  host(name: string): SimHost {
    return this.hosts[name === 'a' ? 0 : 1]!
  }

  /** Its number among all processes. */
  pidOf(qemu: SimQemu): number {
    return this.qemus.indexOf(qemu) + 1
  }

  /** Copies that have the guest. */
  get copies(): SimQemu[] {
    return this.qemus.filter((qemu) => qemu.hasGuest)
  }

  note(text: string): void {
    this.log.push(`${this.time.nowMs.toFixed(1).padStart(8)} ${text}`)
  }

  fail(error: Error): void {
    this.failure ??= error
  }

  /** What nobody should ever be told. */
  unexpected(error: SubpageError, supervisor: SimSupervisor): void {
    if (error.code !== 'INTERNAL' || supervisor.process.state === 'dead') return
    if (error.cause instanceof Killed || /^(the other host: )?fault point/.test(error.message)) return
    this.fail(error)
  }

  /** Something on this host is killed. */
  hit(host: string): void {
    const runs = this.copies.some((qemu) => qemu.host === host && qemu.status !== 'loaded')
    if (this.arbiter.newest === host && !runs) this.hitMidway = true
  }

  packet(step: Step, from: SimQemu): void {
    if (this.settings.outputs === 'free') {
      // They may be taken back; only the copy that serves now is looked at.
      if (from === this.copies.at(-1)) this.client.seen = step
      this.client.packets++
      return
    }
    if (this.#speaker && from !== this.#speaker)
      throw new Violation(
        `${from.host} speaks for the guest, at step ${step.id}, after ${this.#speaker.host} took it over`,
      )
    try {
      this.client.receive(step)
    } catch (error) {
      throw error instanceof Violation ? new Violation(`${error.message}; it came from ${from.host}`) : error
    }
  }

  /** A standby's QEMU runs for the first time. */
  tookOver(qemu: SimQemu): void {
    this.takeovers++
    this.note(`${qemu.host}: its copy runs from step ${qemu.step.id}`)
    this.#speaker = qemu
    const other = this.copies.find((copy) => copy !== qemu)
    if (this.settings.outputs === 'free' && other && !this.commanded && !this.forced)
      throw new Violation(`${qemu.host} took the guest over by itself while it runs on ${other.host}`)
    if (this.settings.outputs === 'free' || this.forced) {
      this.forced = false
      this.client.seen = qemu.step
    } else if (!this.client.includesSeen(qemu.step))
      throw new Violation(
        `${qemu.host} took over at step ${qemu.step.id}, without step ${this.client.seen.id} that a client has seen`,
      )
  }

  /** A supervisor passes a fault point. */
  passing(supervisor: SimSupervisor, point: FaultPoint): void {
    if (supervisor.process.state === 'dead') throw new Killed()
    for (const fault of this.planned) {
      if (fault.host !== supervisor.host.name || fault.point !== point || --fault.passingsLeft !== 0) continue
      this.note(`${fault.host}: ${fault.action} at ${point}`)
      this.#act(supervisor, fault)
    }
  }

  #act(supervisor: SimSupervisor, { action, forMs, point }: PlannedFault): void {
    const { host } = supervisor
    this.onFault(host, forMs)
    if (point === 'before-load' || point === 'after-load') this.hit(host.name)
    if (action === 'throw') throw new Failure('INTERNAL', `fault point ${point}`)
    if (action === 'kill') {
      host.crashSupervisor()
      this.time.after(forMs, () => host.startSupervisor())
      throw new Killed()
    }
    // The guard resumes the guest in the middle of what the supervisor just does.
    if (action === 'stall' && host.disk)
      this.qemus[host.disk.process.pid - 1]?.breakLease(this.random.integer(1, 4))
    supervisor.process.stop()
    this.time.after(forMs, () => supervisor.process.goOn())
  }
}
