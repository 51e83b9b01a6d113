/**
 * A host: what its disk remembers, and the agent that runs on it. The agent mirrors src/agent/{agent,running-guest,
 * standby-guest}.ts for one guest: what an agent does with the classes of src/replication.
 */
import type { Duplex } from 'node:stream'
import { asSubpageError, SubpageError } from '../../src/errors.ts'
import type { ProtectionSettings } from '../../src/qemu/guest-files.ts'
import { hangTimes } from '../../src/qemu/hang-watch.ts'
import {
  admit,
  greet,
  type Present,
  refuseOurselves,
  sharesArbiter,
} from '../../src/replication/admission.ts'
import type { Arbiter } from '../../src/replication/arbiter.ts'
import { Connection } from '../../src/replication/connection.ts'
import { noJournal } from '../../src/replication/disks.ts'
import type { Faults } from '../../src/replication/fault.ts'
import type { GuestEnd } from '../../src/replication/guest.ts'
import { wholeImage } from '../../src/replication/image.ts'
import { type Hello, protocolVersion } from '../../src/replication/messages.ts'
import { Primary } from '../../src/replication/primary.ts'
import type { PrimaryOptions } from '../../src/replication/primary-options.ts'
import { type Sight, SourceSight } from '../../src/replication/source-sight.ts'
import { Standby } from '../../src/replication/standby.ts'
import type { StandbyOutcome } from '../../src/replication/standby-options.ts'
import { Succession } from '../../src/replication/succession.ts'
import { SimGuest, SimWaiting } from './sim-guest.ts'
import type { Station } from './sim-network.ts'
import { SimProcess } from './sim-process.ts'
import { SimQemu } from './sim-qemu.ts'
import type { SimWorld } from './sim-world.ts'

interface SimRecord {
  arbitrated?: boolean
  peer?: string
  generation: number
  waiting: boolean
  qemu: SimQemu
  protection?: ProtectionSettings
}

export class SimHost implements Station {
  readonly name: string
  readonly world: SimWorld
  alive = true
  listener: Station['listener']
  /** What is on its disk. */
  record: SimRecord | undefined
  agent: SimAgent | undefined

  constructor(world: SimWorld, name: string) {
    this.world = world
    this.name = name
  }

  startAgent(): void {
    // One that takes too long to end is killed.
    if (this.agent && !this.listener) this.crashAgent()
    if (!this.alive || this.agent) return
    this.agent = new SimAgent(this)
    this.agent.start()
  }

  /** kill -9: its QEMUs stay, except that nobody holds the control socket of one that waits. */
  crashAgent(): void {
    const { agent } = this
    if (!agent) return
    this.world.hit(this.name)
    this.agent = undefined
    this.listener = undefined
    agent.process.die()
    this.world.network.ended(agent.process, this)
  }

  /** The agent ends in an orderly way; the guest runs on. */
  async endAgent(forMs: number): Promise<void> {
    const { agent } = this
    if (!agent) return
    this.listener = undefined
    try {
      if (agent.hosted?.kind === 'running') await agent.hosted.primary?.detach()
    } catch (error) {
      agent.say(`does not end well: ${asSubpageError(error).message}`)
    }
    if (this.agent !== agent) return
    this.crashAgent()
    this.world.time.after(forMs, () => this.startAgent())
  }

  loseEverything(): void {
    this.alive = false
    this.crashAgent()
    for (const qemu of this.world.qemus)
      if (qemu.host === this.name) qemu.die({ how: 'died', detail: 'its host died' })
  }

  comeBack(): void {
    if (this.alive) return
    this.alive = true
    this.world.network.retry()
    this.startAgent()
  }
}

/** Every host's agent, seen from its own namespace. */
const agentIdentity = {
  process: { pid: 1_000_000, startTime: '0' },
  token: { descriptor: 3, name: 'presence' },
}

/** As src/agent/unanswered-guest.ts. */
interface UnansweredHere {
  kind: 'unanswered'
  running: RunningHere
}

type Hosted = RunningHere | StandbyHere | UnansweredHere | { kind: 'ended'; qemu: SimQemu; end: GuestEnd }

export class SimAgent {
  readonly host: SimHost
  readonly world: SimWorld
  readonly process: SimProcess
  readonly arbiter: Arbiter
  readonly faults: Faults
  hosted: Hosted | undefined
  #starting = false
  #ready: Promise<void> = Promise.resolve()
  #marks = 0

  constructor(host: SimHost) {
    this.host = host
    this.world = host.world
    this.process = new SimProcess(host.name, host.world.time, host.world.originMs(host.name))
    this.arbiter = host.world.arbiterOf(host.name).from(host.name, this.process)
    this.faults = (point) => host.world.passing(this, point)
  }

  start(): void {
    this.#ready = this.#find()
    this.host.listener = { process: this.process, accept: (stream) => void this.#answer(stream) }
  }

  say(text: string): void {
    if (this.process.state !== 'dead') this.world.note(`${this.host.name}: ${text}`)
  }

  updateRecord(change: Partial<SimRecord> & { qemu: SimQemu }): void {
    this.process.leave(() => {
      const { record } = this.host
      if (record?.qemu === change.qemu) this.host.record = { ...record, ...change }
    })
  }

  async hello({ to: _, ...settings }: ProtectionSettings, running: RunningHere): Promise<Hello> {
    const { chosen } = this.world.settings
    const mark = `${this.host.name}${this.world.time.nowMs}-${this.#marks++}`
    const marked = await this.arbiter.leaveMark(mark).then(
      () => true,
      (error) => {
        if (chosen) throw error
        return false
      },
    )
    return {
      protocol: protocolVersion,
      release: 'simulated',
      guest: running.guest.description,
      source: {
        host: this.host.name,
        claimant: this.host.name,
        address: this.host.name,
        bootId: this.space.bootId,
        process: { pid: this.world.qemus.indexOf(running.guest.qemu) + 1, startTime: '0' },
        supervisor: { ...agentIdentity, pidNamespace: this.space.pidNamespace },
      },
      generation: running.succession.generation,
      ...(marked && { mark }),
      settings,
    }
  }

  get space(): { bootId: string; pidNamespace: string } {
    const { sameMachine, apart } = this.world.settings
    return {
      bootId: sameMachine ? 'one' : this.host.name,
      // Of machines that run at once, the first namespace of each has the same number.
      pidNamespace: sameMachine && apart ? this.host.name : 'first',
    }
  }

  /** What is found under a pid here: in a namespace of its own nothing of the other host. */
  get sight(): Sight {
    const { settings, qemus } = this.world
    const seesAll = settings.sameMachine && !settings.apart
    const space = this.space
    return {
      space: () => space,
      fate: ({ pid }) =>
        pid === agentIdentity.process.pid ? 'runs' : seesAll && qemus[pid - 1]?.alive ? 'runs' : 'gone',
      holds: () => seesAll,
    }
  }

  succession(qemu: SimQemu, generation: number): Succession {
    return new (this.world.broken.Succession ?? Succession)({
      guest: '00000000-0000-4000-8000-000000000001',
      claimant: this.host.name,
      generation,
      arbiter: this.arbiter,
      arbitrated: this.host.record?.arbitrated ?? false,
      ...(this.host.record?.peer !== undefined && { peer: this.host.record.peer }),
      save: async (standing) => this.updateRecord({ qemu, ...standing }),
    })
  }

  // ---- commands

  run(): void {
    const qemu = new SimQemu(this.world, this.host.name)
    this.host.record = { generation: 1, waiting: false, qemu }
    qemu.boot()
    this.#adopt(new RunningHere(this, qemu, 1))
  }

  async protect(settings: ProtectionSettings): Promise<void> {
    await this.running().protect(settings)
  }

  async remove(): Promise<void> {
    const { hosted } = this
    if (hosted?.kind === 'standby') await hosted.standby.discard('removed by command')
    else if (hosted?.kind === 'running') {
      this.world.removed = true
      await hosted.guest.quit()
      await hosted.finished()
    }
    if (this.hosted === hosted) this.hosted = undefined
  }

  async failover(force: boolean): Promise<void> {
    if (this.hosted?.kind !== 'standby')
      throw new SubpageError('STANDBY_NOT_READY', 'it is not a standby on this host')
    await this.hosted.standby.failover('by command', force)
  }

  running(): RunningHere {
    if (this.hosted?.kind !== 'running') throw new SubpageError('GUEST_UNKNOWN', 'it does not run here')
    return this.hosted
  }

  // ---- as src/agent/agent.ts

  #adopt(running: RunningHere): RunningHere {
    this.hosted = running
    void running.guest.ended.then((end) => {
      this.say(`guest ${end.how}: ${end.detail}`)
      void running.finished().then(() => {
        if (this.hosted === running) this.hosted = { kind: 'ended', qemu: running.guest.qemu, end }
      })
    })
    return running
  }

  async #answer(stream: Duplex): Promise<void> {
    const connection = new Connection(stream, this.process.clock)
    try {
      await this.#ready
      const { frames, hello } = await greet(connection)
      refuseOurselves(hello, this.host.name, presentOf(this.hosted))
      const arbitrated = await sharesArbiter(hello, this.arbiter, this.world.settings.chosen)
      const guest = await this.#standbyFor(hello)
      await guest.standby.serve(connection, frames, hello, arbitrated)
    } catch (thrown) {
      const error = asSubpageError(thrown)
      this.say(`refused: ${error.message}`)
      this.world.unexpected(error, this)
      await connection.refuse(error)
    }
  }

  async #standbyFor(hello: Hello): Promise<StandbyHere> {
    return await this.#exclusively(async () => {
      const present = this.hosted
      const admission = await admit(hello, presentOf(present))
      if (present?.kind === 'standby') {
        if (admission === 'again') return present.meet(hello)
        await present.standby.discard('its primary protects the guest anew')
      }
      if (present?.kind === 'running') {
        present.guest.supersede(`${hello.source.host} goes on with it, generation ${hello.generation}`)
        await present.finished()
      }
      if (present?.kind === 'unanswered') {
        present.running.guest.supersede(
          `${hello.source.host} goes on with it, generation ${hello.generation}`,
        )
        await present.running.guest.ended
      }
      if (present?.kind === 'ended' && present.qemu.alive)
        throw new SubpageError('GUEST_EXISTS', 'it may still run')
      const guest = await this.#startStandby(hello)
      this.hosted = guest.meet(hello)
      guest.standby.once('outcome', (outcome) => this.#standbyEnded(guest, outcome))
      void guest.waiting.ended.then((end) => {
        if (this.hosted !== guest) return
        if (!guest.standby.ending) void guest.standby.discard(end.detail)
      })
      return guest
    })
  }

  async #startStandby(hello: Hello): Promise<StandbyHere> {
    const qemu = await this.process.ask<SimQemu>((answer) => {
      this.world.time.after(this.world.random.integer(1, 60), () => {
        if (!this.host.alive || this.process.state === 'dead') return
        const started = new SimQemu(this.world, this.host.name)
        this.host.record = { generation: hello.generation, waiting: true, qemu: started }
        answer(started)
      })
    })
    return new StandbyHere(this, qemu, hello)
  }

  #standbyEnded(guest: StandbyHere, outcome: StandbyOutcome): void {
    if (this.hosted !== guest) return
    if (outcome.how === 'discarded') {
      this.hosted = undefined
      this.say(`standby discarded: ${outcome.reason}`)
      return
    }
    const running = this.#adopt(new RunningHere(this, guest.waiting.qemu, guest.standby.generation))
    this.say(`took over from checkpoint ${outcome.committed.epoch}: ${outcome.reason}`)
    const { settings, source } = guest.standby.hello
    running.resumeProtection({ ...settings, to: source.address }, false)
  }

  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    if (this.#starting) throw new SubpageError('GUEST_EXISTS', 'it is just being started')
    this.#starting = true
    try {
      return await work()
    } finally {
      this.#starting = false
    }
  }

  async #find(): Promise<void> {
    const { record } = this.host
    if (!record) return
    const { qemu } = record
    if (record.waiting) {
      const left = this.succession(qemu, record.generation)
      this.host.record = undefined
      qemu.die({ how: 'stopped', detail: 'left over from a former agent' })
      await left.giveBackLeft().catch((error) => this.say(asSubpageError(error).message))
      return
    }
    if (!qemu.alive) {
      this.hosted = { kind: 'ended', qemu, end: { how: 'died', detail: 'it ended while no agent ran' } }
      return
    }
    const unanswered: UnansweredHere = {
      kind: 'unanswered',
      running: new RunningHere(this, qemu, record.generation),
    }
    this.hosted = unanswered
    await Promise.race([this.#attach(unanswered, record), this.process.clock.sleep(hangTimes.hungMs)])
  }

  async #attach(unanswered: UnansweredHere, record: SimRecord): Promise<void> {
    const { running } = unanswered
    const { qemu } = record
    try {
      await running.guest.attach()
    } catch (error) {
      this.say(`cannot be found again: ${asSubpageError(error).message}`)
      const end: GuestEnd = { how: 'died', detail: 'it could not be found again' }
      if (this.hosted === unanswered) this.hosted = { kind: 'ended', qemu, end }
      return
    }
    if (this.hosted !== unanswered) return
    this.#adopt(running)
    try {
      if (record.protection) running.resumeProtection(record.protection, true)
      else await running.guest.freeOutputs()
    } catch (error) {
      this.say(`cannot go on: ${asSubpageError(error).message}`)
    }
  }
}

export class RunningHere {
  readonly kind = 'running'
  readonly guest: SimGuest
  readonly succession: Succession
  readonly #agent: SimAgent
  primary: Primary | undefined
  #starting = false

  constructor(agent: SimAgent, qemu: SimQemu, generation: number) {
    this.#agent = agent
    this.guest = new SimGuest(agent.world, agent.process, qemu)
    this.succession = agent.succession(qemu, generation)
    this.guest.hang.on('stuck', () => {
      if (!this.primary?.covered || !qemu.alive) return
      agent.world.onFenced()
      this.guest.endHung()
    })
  }

  get present(): Present {
    return {
      kind: 'running',
      id: this.guest.description.id,
      claimant: this.#agent.host.name,
      generation: this.succession.generation,
      successor: () => this.succession.successor(),
    }
  }

  async protect(settings: ProtectionSettings): Promise<void> {
    if (this.primary || this.#starting) throw new SubpageError('ALREADY_PROTECTED', 'it is protected')
    this.#starting = true
    try {
      this.#adopt(await Primary.start(this.#options(settings, false)))
    } finally {
      this.#starting = false
    }
    this.#agent.updateRecord({ qemu: this.guest.qemu, protection: settings })
  }

  resumeProtection(settings: ProtectionSettings, exposed: boolean): void {
    this.#adopt(Primary.resume(this.#options(settings, exposed)))
    this.#agent.updateRecord({ qemu: this.guest.qemu, protection: settings })
  }

  async unprotect(): Promise<void> {
    await this.#protected().stop()
    this.primary = undefined
    this.#agent.process.leave(() => {
      const { record } = this.#agent.host
      if (record?.qemu === this.guest.qemu) delete record.protection
    })
  }

  async switchover(): Promise<void> {
    await this.#protected().switchover()
  }

  async finished(): Promise<void> {
    await this.guest.ended
    await this.primary?.finished
  }

  #protected(): Primary {
    if (!this.primary) throw new SubpageError('NOT_PROTECTED', 'it is not protected')
    return this.primary
  }

  #adopt(primary: Primary): void {
    this.primary = primary
    primary.on('state', (state, reason) => this.#agent.say(`primary ${state} ${reason}`))
    primary.on('alone', (alone) =>
      this.#agent.say(alone ? `alone, generation ${this.succession.generation}` : 'not alone'),
    )
    primary.on('missed', (error) => this.#agent.say(`missed: ${error.message}`))
  }

  #options(settings: ProtectionSettings, exposed: boolean): PrimaryOptions {
    const { world, process, faults, host } = this.#agent
    const { epochMs, pauseShareMax, tracker, codec, outputs, suspicionMs, to, ...sending } = settings
    return {
      guest: this.guest,
      hello: () => this.#agent.hello(settings, this),
      connect: () => world.network.connect(process, host, world.host(to)),
      tracker,
      codec,
      sending,
      pace: { epochMs, ...(pauseShareMax !== undefined && { pauseShareMax }) },
      limits: world.settings.limits,
      suspicionMs,
      outputs,
      succession: this.succession,
      exposed,
      clock: process.clock,
      faults,
    }
  }
}

export class StandbyHere {
  readonly kind = 'standby'
  readonly standby: Standby
  readonly waiting: SimWaiting
  readonly sight: SourceSight

  constructor(agent: SimAgent, qemu: SimQemu, hello: Hello) {
    const { world, process } = agent
    this.waiting = new SimWaiting(world, process, qemu)
    this.sight = new SourceSight(agent.sight)
    this.waiting.onLoaded = () => agent.updateRecord({ qemu, waiting: false })
    this.standby = new Standby({
      guest: this.waiting,
      image: wholeImage(this.waiting.image),
      disks: [],
      journal: noJournal,
      hello,
      succession: agent.succession(qemu, hello.generation),
      sourceGone: (of) =>
        world.broken.trustBootId && of.source.bootId === agent.space.bootId
          ? agent.sight.fate(of.source.process) === 'gone'
          : this.sight.gone(of),
      clock: process.clock,
      faults: agent.faults,
    })
    this.standby.on('state', (state, reason) => agent.say(`standby ${state} ${reason}`))
  }

  meet(hello: Hello): this {
    this.sight.meet(hello)
    return this
  }
}

function presentOf(hosted: Hosted | undefined): Present {
  if (hosted?.kind === 'running') return hosted.present
  if (hosted?.kind === 'unanswered') return hosted.running.present
  return hosted?.kind === 'standby' ? hosted : { kind: 'nothing' }
}
