/**
 * The daemon of a host: knows the guests that run or wait here, starts and ends them, answers other hosts. Guests
 * outlive it: a new agent on the same state directory finds them again.
 */
import { randomUUID } from 'node:crypto'
import { rmSync } from 'node:fs'
import { asSubpageError, SubpageError } from '../errors.ts'
import { guestFiles, type ProtectionSettings } from '../qemu/guest-files.ts'
import { lastWords, launch } from '../qemu/launch.ts'
import { endLeftover } from '../qemu/leftover.ts'
import { QemuProcess } from '../qemu/qemu-process.ts'
import { machineOf, type RunRequest } from '../qemu/run-request.ts'
import { admit, greet, refuseOurselves, sharesArbiter } from '../replication/admission.ts'
import { Connection } from '../replication/connection.ts'
import { brokeProtocol, type Hello } from '../replication/messages.ts'
import type { StandbyOutcome } from '../replication/standby-options.ts'
import type { Verification } from '../replication/verify.ts'
import { type Address, formatAddress, pairSocket, parseAddress, type TcpAddress } from './address.ts'
import { ArbiterHealth } from './arbiter-health.ts'
import { guarded } from './boundary.ts'
import { Changing } from './changing.ts'
import type { Incoming } from './door.ts'
import { EventLog } from './event-log.ts'
import { GuestFinder } from './guest-finder.ts'
import { claimantOf, type Host } from './host.ts'
import { HostDensity, type SwapPlace } from './host-density.ts'
import {
  type EndedGuest,
  type HostedGuest,
  presentOf,
  refuseIfAlive,
  refuseIfPresent,
  runningOf,
} from './hosted-guest.ts'
import { showPresence } from './presence.ts'
import { Departed, endByCommand } from './removal.ts'
import { RunningGuest } from './running-guest.ts'
import { StandbyGuest } from './standby-guest.ts'
import type { Listening } from './transport.ts'

export interface AgentOptions
  extends Pick<Host, 'name' | 'transport' | 'images' | 'arbiter' | 'arbiterChosen' | 'faults'> {
  stateDirectory: string
  /** For other hosts; agents of this machine use the socket in the state directory. */
  listen: TcpAddress | undefined
  /** Where other hosts reach this one, when that is not where it listens. */
  advertise: TcpAddress | undefined
  /** For cold pages of dense guests. */
  swap?: SwapPlace | undefined
}

export class Agent {
  readonly stateDirectory: string
  readonly events = new EventLog()
  readonly guests = new Map<string, HostedGuest>()
  readonly host: Host
  readonly #socket: Address
  #listening: Listening | undefined
  readonly #departed = new Departed()
  readonly #changing = new Changing()
  /** Of the guests of a former agent; a connection that asks for one waits until it is known. */
  readonly #finder: GuestFinder

  private constructor({ stateDirectory, listen, advertise, swap, ...host }: AgentOptions) {
    this.stateDirectory = stateDirectory
    this.#socket = { path: pairSocket(stateDirectory) }
    this.host = {
      ...host,
      claimant: claimantOf(stateDirectory, host.name),
      health: new ArbiterHealth(host.arbiter, this.events),
      events: this.events,
      presence: showPresence(stateDirectory),
      density: new HostDensity(stateDirectory, this.events, swap),
      addressFor: (peer) => formatAddress('path' in peer ? this.#socket : (advertise ?? this.address)),
    }
    this.#finder = new GuestFinder({
      ...{ stateDirectory, host: this.host, guests: this.guests },
      adopt: (guest) => this.#adopt(guest),
    })
  }

  /** @throws SubpageError ADDRESS_IN_USE, TLS_REQUIRED */
  static async start(options: AgentOptions): Promise<Agent> {
    const agent = new Agent(options)
    const addresses = options.listen ? [agent.#socket, options.listen] : [agent.#socket]
    try {
      agent.#listening = await options.transport.listen(addresses, {
        connection: (incoming) => void agent.#answer(incoming),
        refused: (from, error) => agent.#refused(from, error),
      })
      await agent.#finder.begin()
      return agent
    } catch (error) {
      await agent.abandon()
      throw error
    }
  }

  /** Where this host listens: for other hosts, or without certificates for agents of this machine. */
  get address(): Address {
    return this.#listening?.addresses.at(-1) ?? this.#socket
  }

  /** Stops serving, in no guest's pause. Guests run on, unprotected until an agent is back. */
  async close(): Promise<void> {
    this.#listening?.close()
    this.host.health.close()
    await Promise.all([...this.guests.values()].map((g) => (g.kind === 'running' ? g.detach() : undefined)))
    await this.host.density.close()
  }

  /** After a start that failed half way: lets go of everything, so that the process can end. */
  async abandon(): Promise<void> {
    await this.close()
    for (const guest of this.guests.values()) if (guest.kind === 'running') guest.guest.qemu.release()
  }

  // ---- guests that run here

  /** @throws SubpageError GUEST_EXISTS, GUEST_UNPROTECTABLE, NO_SPACE, QEMU_FAILED, … */
  async run(request: RunRequest): Promise<RunningGuest> {
    return await this.#exclusively(request.name, async () => {
      refuseIfPresent(this.guests.get(request.name), this.host.name)
      const machine = await machineOf(request, this.host.images)
      const files = guestFiles(this.stateDirectory, request.name)
      const identity = { id: randomUUID(), name: request.name, generation: 1 }
      const qemu = new QemuProcess(files, await launch(identity, machine, files, false))
      this.events.add(
        request.name,
        'guest',
        `started: QEMU ${qemu.record.qemuVersion}, ${machine.accel}, process ${qemu.record.process.pid}`,
      )
      return this.#adopt(new RunningGuest(qemu, this.host))
    })
  }

  /**
   * Ends a guest, whatever it is here, and removes what it left.
   * @returns what the operator should know; see endByCommand for the rest
   */
  async remove(name: string, standbyToo = false): Promise<string | undefined> {
    // Its files have the names of those of a standby that would be started meanwhile.
    return await this.#exclusively(name, async () => {
      const departed = this.#departed.reasonOf(name)
      if (!this.guests.has(name) && departed) return `${name} was gone already: ${departed}`
      const guest = this.find(name)
      const note = await endByCommand(guest, standbyToo)
      // The end of a guest that ran has been noted under its name meanwhile.
      const left = this.guests.get(name)
      if (left === guest || left?.kind === 'ended') this.guests.delete(name)
      this.#departed.forget(name)
      if (guest.kind !== 'standby') this.events.add(name, 'guest', 'removed')
      return note
    })
  }

  async protect(name: string, settings: ProtectionSettings): Promise<void> {
    await this.#running(name, 'protect').protect(settings)
  }

  async unprotect(name: string): Promise<void> {
    await this.#running(name, 'unprotect').unprotect()
  }

  async verify(name: string): Promise<Verification> {
    const { primary, qemu } = this.#running(name, 'verify')
    if (!primary || (primary.state !== 'Protected' && primary.state !== 'Lagging'))
      throw new SubpageError('NOT_PROTECTED', `${name} has no image to compare with`)
    return await qemu.hang.during(primary.verify())
  }

  async switchover(name: string): Promise<void> {
    await this.#running(name, 'switchover').switchover()
  }

  /** @throws SubpageError STANDBY_NOT_READY, HELD_ELSEWHERE, ARBITER_UNREACHABLE */
  async failover(name: string, force: boolean): Promise<StandbyOutcome> {
    const guest = this.find(name)
    if (guest.kind !== 'standby')
      throw new SubpageError(
        'STANDBY_NOT_READY',
        guest.kind === 'running'
          ? `${name} runs on this host: failover is for the host that holds its standby; subpage switchover ${name} moves it`
          : `${name} has ended on this host, and there is no standby of it here`,
      )
    return await guest.standby.failover('by command', force)
  }

  /** @throws SubpageError GUEST_UNKNOWN */
  find(name: string): HostedGuest {
    const guest = this.guests.get(name)
    if (!guest) throw new SubpageError('GUEST_UNKNOWN', `no guest "${name}" on host ${this.host.name}`)
    return guest
  }

  #running(name: string, command: string): RunningGuest {
    return runningOf(this.find(name), command)
  }

  #adopt(guest: RunningGuest): RunningGuest {
    this.guests.set(guest.name, guest)
    this.events.addNotes(guest.name, guest.guest.qemu.notes)
    void guest.guest.ended.then((end) =>
      guarded({ events: this.events, guest: guest.name, doing: 'clearing away after its end' }, async () => {
        const { files } = guest.guest.qemu
        const what = end.how === 'died' ? `died: ${end.detail} (${lastWords(files)})` : `ended: ${end.detail}`
        this.events.add(guest.name, 'guest', what)
        await guest.finished()
        this.#bury(guest, end)
      }),
    )
    return guest
  }

  /** Frees the memory of a guest that has ended; its directory stays, for its logs. */
  #bury(guest: RunningGuest, end: EndedGuest['end']): void {
    const { qemu } = guest.guest
    qemu.release()
    // Removed by command, or followed by another guest of this name: the files are not ours any more.
    if (this.guests.get(guest.name) !== guest) return
    rmSync(qemu.files.ram, { force: true })
    this.guests.set(guest.name, {
      kind: 'ended',
      name: guest.name,
      record: qemu.record,
      files: qemu.files,
      end,
    })
  }

  // ---- guests of other hosts

  async #answer({ stream, peer, accept }: Incoming): Promise<void> {
    const connection = new Connection(stream)
    try {
      const { frames, hello } = await greet(connection)
      accept()
      await this.#finder.known(hello.guest.name)
      refuseOurselves(hello, this.host.claimant, presentOf(this.guests.get(hello.guest.name)))
      if ('path' in parseAddress(hello.source.address) !== (peer.name === undefined))
        throw brokeProtocol(`it cannot be reached at ${hello.source.address} from here`)
      // What it says of itself counts only where nobody can prove anything: within this machine.
      if (peer.name !== undefined) hello.source.host = peer.name
      const arbitrated = await sharesArbiter(hello, this.host.arbiter, this.host.arbiterChosen)
      const guest = await this.#standbyFor(hello)
      await guest.standby.serve(connection, frames, hello, arbitrated)
    } catch (thrown) {
      const error = asSubpageError(thrown)
      this.#refused(peer.name === undefined ? peer.address : `${peer.name} (${peer.address})`, error)
      await connection.refuse(error)
    }
  }

  #refused(from: string, { message }: SubpageError): void {
    this.events.add('', 'refused', `a connection from ${from}: ${message}`)
  }

  /** The standby that a primary asks for: the one that waits for it, or a new one. */
  async #standbyFor(hello: Hello): Promise<StandbyGuest> {
    const { name } = hello.guest
    return await this.#exclusively(name, async () => {
      const present = this.guests.get(name)
      const admission = await admit(hello, presentOf(present))
      if (present?.kind === 'standby') {
        if (admission === 'again') return present.remember(hello)
        // It tried to take over and could not; the guest lives, so a new one can begin.
        await present.standby.discard('its primary protects the guest anew')
      }
      if (present?.kind === 'running') {
        present.guest.supersede(`${hello.source.host} goes on with it, generation ${hello.generation}`)
        await present.finished()
        // Before the standby has files of the same names: buried later it would take their memory with it.
        this.#bury(present, await present.guest.ended)
      }
      if (present?.kind === 'unanswered') await endLeftover(present.files, present.record)
      if (present?.kind === 'ended') refuseIfAlive(present)
      const guest = await StandbyGuest.start(hello, guestFiles(this.stateDirectory, name), this.host)
      this.guests.set(name, guest.remember(hello))
      guest.standby.once('outcome', (outcome) => this.#standbyEnded(guest, outcome))
      void guest.waiting.ended.then((end) => {
        if (this.guests.get(name) !== guest) return
        this.events.add(name, 'guest', end.detail)
        // A takeover that failed keeps its state and its logs, until somebody removes them.
        if (!guest.standby.ending) void guest.standby.discard(end.detail)
      })
      return guest
    })
  }

  #standbyEnded(guest: StandbyGuest, outcome: StandbyOutcome): void {
    if (this.guests.get(guest.name) !== guest) return
    if (outcome.how === 'discarded') {
      this.guests.delete(guest.name)
      this.#departed.note(guest.name, `its standby was discarded: ${outcome.reason}`)
      this.events.add(guest.name, 'protection', `standby discarded: ${outcome.reason}`)
      return
    }
    const running = this.#adopt(new RunningGuest(guest.waiting.qemu, this.host, outcome))
    this.events.add(
      guest.name,
      'failover',
      `took over in ${outcome.takeoverMs.toFixed(1)} ms from checkpoint ${outcome.committed.epoch}: ${outcome.reason}`,
    )
    // When the other host is back, the same protection begins the other way round.
    running.goOnProtecting(guest.reverse, false)
  }

  #exclusively<T>(name: string, work: () => Promise<T>): Promise<T> {
    return this.#changing.during(name, this.host.name, work)
  }
}
