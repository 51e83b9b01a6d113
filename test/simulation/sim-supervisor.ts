/**
 * A supervisor of the guest on a simulated host: the real one (src/agent/supervisor/), but for the process around it, its HTTP
 * server, and the door of the agent. What it touches outside itself is the simulation's.
 */
import { ArbiterHealth } from '../../src/agent/arbiter-health.ts'
import { EventLog } from '../../src/agent/event-log.ts'
import { GuestCommands } from '../../src/agent/supervisor/guest-commands.ts'
import type { Host } from '../../src/agent/supervisor/host.ts'
import { HostDensity } from '../../src/agent/supervisor/host-density.ts'
import type { HostedGuest } from '../../src/agent/supervisor/hosted-guest.ts'
import { Hosting } from '../../src/agent/supervisor/hosting.ts'
import type { Presence } from '../../src/agent/supervisor/presence.ts'
import { RunningGuest } from '../../src/agent/supervisor/running-guest.ts'
import type { SubpageError } from '../../src/errors.ts'
import type { ProtectionSettings } from '../../src/replication/protection-settings.ts'
import { type SimGuestProcess, simFiles } from './sim-guest-process.ts'
import type { SimHost } from './sim-host.ts'
import { SimHypervisor } from './sim-hypervisor.ts'
import { SimProcess } from './sim-process.ts'
import type { SimWorld } from './sim-world.ts'

const guestName = 'guest'
const guestId = '00000000-0000-4000-8000-000000000001'

/** Every host's supervisor, seen from its own namespace. */
const ownIdentity = { pid: 1_000_000, startTime: '0' }
const token = { descriptor: 3, name: 'presence' }

/** What people are told of it; it is not the simulation's, and another one in each run. */
const realTime = / (in [\d.]+ ms(?= from checkpoint)|since \d{4}-[\d:.T-]+Z)/

class SimHosting extends Hosting<SimGuestProcess> {
  #world: SimWorld
  #supervisor: SimSupervisor

  constructor(supervisor: SimSupervisor, host: Host<SimGuestProcess>) {
    super(guestName, simFiles, host)
    this.#supervisor = supervisor
    this.#world = supervisor.world
  }

  override refused(from: string, error: SubpageError): void {
    super.refused(from, error)
    this.#world.unexpected(error, this.#supervisor)
  }
}

export class SimSupervisor {
  readonly host: SimHost
  readonly world: SimWorld
  readonly process: SimProcess
  readonly hosting: Hosting<SimGuestProcess>
  readonly commands: GuestCommands<SimGuestProcess>
  readonly #hypervisor: SimHypervisor

  constructor(host: SimHost) {
    const { world, name } = host
    this.host = host
    this.world = world
    this.process = new SimProcess(name, world.time, world.originMs(name))
    this.#hypervisor = new SimHypervisor(host, this.process)
    this.hosting = new SimHosting(this, this.#hostFacts())
    this.commands = new GuestCommands(this.hosting)
  }

  start(): void {
    const { hosting } = this
    // What it finds wrong it tells.
    void hosting.begin()
    this.host.listener = {
      process: this.process,
      accept: (stream, from) => void hosting.answer({ stream, peer: { name: from, address: from }, accept }),
    }
  }

  get hosted(): HostedGuest<SimGuestProcess> | undefined {
    return this.hosting.guest
  }

  say(text: string): void {
    if (this.process.state !== 'dead') this.world.note(`${this.host.name}: ${text}`)
  }

  // ---- commands

  run(): void {
    this.hosting.adopt(new RunningGuest(this.#hypervisor.boot(guestId), this.hosting.host))
  }

  async protect(settings: ProtectionSettings): Promise<void> {
    await this.commands.protect(guestName, settings)
  }

  async unprotect(): Promise<void> {
    await this.commands.unprotect(guestName, false)
  }

  async switchover(): Promise<void> {
    await this.commands.switchover(guestName)
  }

  async remove(): Promise<void> {
    if (this.hosted?.kind === 'running') this.world.removed = true
    await this.commands.remove(guestName, true)
  }

  async failover(force: boolean): Promise<void> {
    await this.commands.failover(guestName, force)
  }

  // ----

  #hostFacts(): Host<SimGuestProcess> {
    const { host, world, process } = this
    const { name } = host
    const events = new EventLog()
    events.follow(({ text }) => this.say(text.replace(realTime, '')))
    const arbiter = world.arbiterOf(name).from(name, process)
    return {
      ...{ name, claimant: name, arbiter, arbiterChosen: world.settings.chosen, events },
      health: new ArbiterHealth(arbiter, events, process.clock),
      addressFor: () => name,
      transport: {
        credentials: undefined,
        connect: (to) => world.network.connect(process, host, world.host(to)),
      },
      places: { images: [], disks: [] },
      faults: (point) => world.passing(this, point),
      density: new HostDensity('/simulated', events, undefined),
      presence: this.#presence,
      clock: process.clock,
      pauseLimits: world.settings.limits,
      hotPageCosts: () => world.settings.hotPages,
      hypervisor: this.#hypervisor,
    }
  }

  get #presence(): Presence {
    const { settings, qemus } = this.world
    const { sameMachine, apart } = settings
    const space = {
      bootId: sameMachine ? 'one' : this.host.name,
      // Of machines that run at once, the first namespace of each has the same number.
      pidNamespace: sameMachine && apart ? this.host.name : 'first',
    }
    // In a namespace of its own it finds nothing of the other host under a pid.
    const seesAll = sameMachine && !apart
    return {
      bootId: () => space.bootId,
      supervisor: () => ({ process: ownIdentity, pidNamespace: space.pidNamespace, token }),
      sight: {
        space: () => space,
        fate: ({ pid }) =>
          pid === ownIdentity.pid ? 'runs' : seesAll && qemus[pid - 1]?.alive ? 'runs' : 'gone',
        holds: () => seesAll,
      },
    }
  }
}

const accept = () => undefined
