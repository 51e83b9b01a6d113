/**
 * The daemon of a host: knows its guests, and the supervisors that work for them; passes on what is asked of a guest, and
 * the connections of other hosts. Guests and supervisors outlive it: a new agent on the same state directory finds them again.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { asSubpageError, SubpageError } from '../errors.ts'
import { guestFiles, guestNames } from '../qemu/guest-files.ts'
import type { DensitySettings } from '../qemu/guest-record.ts'
import type { RunRequest } from '../qemu/run-request.ts'
import { greet } from '../replication/admission.ts'
import type { Arbiter } from '../replication/arbiter.ts'
import { Connection } from '../replication/connection.ts'
import { frameType } from '../replication/frame.ts'
import type { ProtectionSettings } from '../replication/protection-settings.ts'
import type { StandbyOutcome } from '../replication/standby-options.ts'
import { type Address, formatAddress, pairSocket, type TcpAddress } from './address.ts'
import { ArbiterHealth } from './arbiter-health.ts'
import type { AgentClient } from './client.ts'
import { type GuestDensity, type HostDensityStatus, mergeDensity } from './density-status.ts'
import { Departed } from './departed.ts'
import { handOver } from './descriptors.ts'
import type { HandOver, Incoming } from './door.ts'
import { EventLog, type HostEvent } from './event-log.ts'
import type { GuestApi } from './guest-api.ts'
import { GuestHistory } from './guest-history.ts'
import { GuestIds } from './guest-ids.ts'
import { hostStatus } from './host-status.ts'
import { LiveStatus } from './live-status.ts'
import type { MemoryMap, WorkingSets } from './memory-status.ts'
import { passSamples } from './passed-samples.ts'
import type { Point } from './point-ring.ts'
import type { Cancelled, GuestStatus, HostStatus, Screenshot, Unprotected, Verified } from './status.ts'
import { SupervisedGuest } from './supervised-guest.ts'
import { claimantOf } from './supervisor/host.ts'
import type { WatchListener, WatchQuery } from './supervisor/memory-watch.ts'
import { type SupervisorSettings, supervisorProtocol } from './supervisor/settings.ts'
import type { Listening, Transport } from './transport.ts'
import { unansweredStatus } from './unanswered-status.ts'

export interface AgentOptions
  extends Omit<SupervisorSettings, 'protocol' | 'name' | 'reachedAt' | 'density'> {
  /** For other hosts; agents of this machine use the socket in the state directory. */
  listen: TcpAddress | undefined
  /** Where other hosts reach this one, when that is not where it listens. */
  advertise: TcpAddress | undefined
  transport: Transport
  arbiterOpened: Arbiter
}

/** An agent that begins waits this long for supervisors that do not answer at once. */
const beginMs = 10_000
/** A supervisor that does not take a connection ends within this time, or is asked again. */
const handOverMs = 200
/** One that was told to end does at once. */
const endMs = 10_000

export class Agent implements GuestApi {
  readonly stateDirectory: string
  readonly hostName: string
  readonly arbiter: Arbiter
  readonly #eventLog = new EventLog()
  readonly health: ArbiterHealth
  readonly #options: AgentOptions
  readonly #socket: Address
  readonly #guests = new Map<string, SupervisedGuest>()
  /** Names of guests by their ids, for connections that are about them. */
  readonly #ids = new GuestIds()
  /** How images were held densely, by the guest's id; an image that was lost is followed by another one. */
  readonly #dense = new Map<string, DensitySettings>()
  readonly #departed = new Departed()
  readonly #history = new GuestHistory()
  readonly live = new LiveStatus(() => this.status())
  #listening: Listening | undefined

  private constructor(options: AgentOptions) {
    this.#options = options
    this.stateDirectory = options.stateDirectory
    // Made before any supervisor needs it.
    claimantOf(options.stateDirectory, options.host)
    this.hostName = options.host
    this.arbiter = options.arbiterOpened
    this.#socket = { path: pairSocket(options.stateDirectory) }
    this.health = new ArbiterHealth(this.arbiter, this.#eventLog)
  }

  /** @throws SubpageError ADDRESS_IN_USE, TLS_REQUIRED */
  static async start(options: AgentOptions): Promise<Agent> {
    const agent = new Agent(options)
    const addresses = options.listen ? [agent.#socket, options.listen] : [agent.#socket]
    try {
      agent.#listening = await options.transport.listen(addresses, {
        route: (id) => agent.#route(id),
        connection: (incoming) => void agent.#introduce(incoming),
        refused: (from, error) => agent.#refused(from, error),
      })
      await agent.#findAgain()
      return agent
    } catch (error) {
      await agent.close()
      throw error
    }
  }

  /** Where this host listens: for other hosts, or without certificates for agents of this machine. */
  get address(): Address {
    return this.#listening?.addresses.at(-1) ?? this.#socket
  }

  get eventLog(): EventLog {
    return this.#eventLog
  }

  /** Names of the guests of this host. */
  get names(): string[] {
    return [...this.#guests.keys()].sort()
  }

  /** No other host begins anything here from now on. */
  closeDoor = (): void => this.#listening?.close()

  /** Guests, and what is done for them, go on. */
  async close(): Promise<void> {
    this.closeDoor()
    this.health.close()
    for (const guest of this.#guests.values()) guest.close()
  }

  // ---- what can be asked

  async status(): Promise<HostStatus> {
    const { hostName: host, arbiter, health } = this
    const credentials = this.#options.transport.credentials?.()
    const address = formatAddress(this.address)
    return {
      ...hostStatus({ host, address, credentials, arbiter, health, shadowBytes: 0 }),
      guests: (await Promise.all(this.names.map((name) => this.#statusOf(name)))).flat(),
    }
  }

  async guest(name: string): Promise<GuestStatus> {
    this.#find(name)
    const [status] = await this.#statusOf(name)
    if (!status) throw this.#unknown(name)
    return status
  }

  /** Its last hour. @throws SubpageError GUEST_UNKNOWN */
  historyOf = (name: string): Point[] => this.#history.of(this.#find(name).name)

  /** None while there is a supervisor, and no guest yet. */
  async #statusOf(name: string): Promise<GuestStatus[]> {
    const guest = this.#guests.get(name)
    if (!guest) return []
    const status = await guest.status()
    if (status) return status.guests
    const unanswered = unansweredStatus(guest)
    return unanswered ? [unanswered] : []
  }

  run = (request: RunRequest): Promise<GuestStatus> =>
    this.#begin(request.name, (client) => client.run(request))

  adopt = (name: string): Promise<GuestStatus> => this.#begin(name, (client) => client.adopt(name))

  async #begin(name: string, ask: (client: AgentClient) => Promise<GuestStatus>): Promise<GuestStatus> {
    const guest = this.#supervised(name)
    try {
      return await guest.ask(ask)
    } catch (error) {
      // The supervisor of a guest of this name, which has just left: the next one begins.
      if (guest.gone && asSubpageError(error).code === 'GUEST_UNKNOWN') return await this.#begin(name, ask)
      // Its supervisor ends when there is no guest; then nothing is left of it.
      if (!guest.record) await guest.ended(endMs)
      throw error
    }
  }

  async remove(name: string, standbyToo = false): Promise<{ removed: string; note?: string }> {
    const departed = this.#departed.reasonOf(name)
    if (!this.#guests.has(name) && departed)
      return { removed: name, note: `${name} was gone already: ${departed}` }
    const guest = this.#find(name)
    if (!(await guest.status())) await guest.endProcess()
    const removed = await guest.ask((client) => client.remove(name, standbyToo))
    await guest.ended(endMs)
    this.#guests.delete(name)
    this.#departed.forget(name)
    return removed
  }

  protect = (name: string, settings: ProtectionSettings): Promise<GuestStatus> =>
    this.#find(name).ask((client) => client.protect(name, settings))

  unprotect = (name: string, discard?: boolean): Promise<Unprotected> =>
    this.#find(name).ask((client) => client.unprotect(name, discard))

  verify = (name: string): Promise<Verified> => this.#find(name).ask((client) => client.verify(name))

  cancel = (name: string): Promise<Cancelled> => this.#find(name).ask((client) => client.cancel(name))

  screenshot = (name: string): Promise<Screenshot> =>
    this.#find(name).ask((client) => client.screenshot(name))

  switchover = (name: string): Promise<{ switchedOver: string }> =>
    this.#find(name).ask((client) => client.switchover(name))

  failover = (name: string, force = false): Promise<StandbyOutcome> =>
    this.#find(name).ask((client) => client.failover(name, force))

  async density(): Promise<HostDensityStatus> {
    const guests = [...this.#guests.values()].filter(({ record }) => record?.density)
    return mergeDensity(await Promise.all(guests.map((guest) => guest.ask((client) => client.density()))))
  }

  densityOn = (name: string, settings: DensitySettings): Promise<GuestDensity> =>
    this.#find(name).ask((client) => client.densityOn(name, settings))

  async densityOff(name: string): Promise<{ whole: string }> {
    const guest = this.#find(name)
    const id = guest.record?.id
    const whole = await guest.ask((client) => client.densityOff(name))
    if (id !== undefined) this.#dense.delete(id)
    return whole
  }

  watch = (name: string, query: WatchQuery, listener: WatchListener): Promise<() => void> =>
    passSamples(this.#find(name), query, listener)
  memoryMap = (name: string): Promise<MemoryMap> => this.#find(name).ask((client) => client.memoryMap(name))
  workingSets = (name: string): Promise<WorkingSets> =>
    this.#find(name).ask((client) => client.workingSets(name))

  async events(): Promise<HostEvent[]> {
    return this.#eventLog.recent()
  }

  follow(listener: (event: HostEvent) => void): () => void {
    return this.#eventLog.follow(listener)
  }

  // ---- supervisors

  async #findAgain(): Promise<void> {
    const found = guestNames(this.stateDirectory).map((name) =>
      this.#supervised(name)
        .ready()
        .catch((error) => this.#say(name, asSubpageError(error).message)),
    )
    const timer = new AbortController()
    // Woken when it is not needed any more.
    const enough = delay(beginMs, undefined, { signal: timer.signal }).catch(() => undefined)
    await Promise.race([Promise.all(found), enough])
    timer.abort()
  }

  /** The guest of this name, which may have to begin. @throws SubpageError BAD_ARGUMENT */
  #supervised(name: string): SupervisedGuest {
    const present = this.#guests.get(name)
    if (present) return present
    const files = guestFiles(this.stateDirectory, name)
    const guest = new SupervisedGuest({
      name,
      files,
      settings: () => this.#settings(guest),
      // A fault is passed once.
      started: () => delete this.#options.faults,
      // The arbiter of the host is the agent's to speak of.
      event: (event) => event.kind !== 'arbiter' && this.#eventLog.pass(event),
      say: (text) => this.#say(name, text),
      seen: ({ guests }) => void guests.map((status) => this.#history.note(status)),
      left: (reason) => {
        if (this.#guests.get(name) !== guest) return
        this.#guests.delete(name)
        this.#ids.forget(name)
        this.#history.forget(name)
        if (reason !== '') this.#departed.note(name, reason)
      },
    })
    this.#guests.set(name, guest)
    const id = guest.record?.id
    if (id !== undefined) this.#ids.note(id, name)
    return guest
  }

  #settings({ name, record }: SupervisedGuest): SupervisorSettings {
    const { stateDirectory, host, arbiter, tls, images, diskDirectories, swap, logLevel, faults, advertise } =
      this.#options
    const reached = advertise ?? ('port' in this.address ? this.address : undefined)
    if (record?.density) this.#dense.set(record.id, record.density)
    const id = this.#ids.idOf(name)
    const density = id === undefined ? undefined : this.#dense.get(id)
    return {
      ...{ protocol: supervisorProtocol, stateDirectory, name, host, arbiter, tls },
      ...{ images, diskDirectories, swap, logLevel },
      reachedAt: reached === undefined ? undefined : formatAddress(reached),
      ...(id !== undefined && density && { density: { id, settings: density } }),
      ...(faults !== undefined && { faults }),
    }
  }

  /** @throws SubpageError GUEST_UNKNOWN */
  #find(name: string): SupervisedGuest {
    const guest = this.#guests.get(name)
    if (!guest) throw this.#unknown(name)
    return guest
  }

  #unknown(name: string): SubpageError {
    return new SubpageError('GUEST_UNKNOWN', `no guest "${name}" on host ${this.hostName}`)
  }

  // ---- other hosts

  /** To the supervisor of the guest, if there is one. */
  #route(id: string): HandOver | undefined {
    const guest = this.#guests.get(this.#ids.nameOf(id) ?? '')
    if (!guest?.alive) return undefined
    return async (socket, local) => {
      if (await handOver(socket, guest.files.supervisor.door, local)) return true
      // It is just ending, and may be followed by another one.
      await guest.ended(handOverMs)
      return false
    }
  }

  /** A primary has proved itself whose guest is not known here: there is a supervisor for it when it comes again. */
  async #introduce({ stream, peer, accept }: Incoming): Promise<void> {
    const connection = new Connection(stream)
    try {
      const { hello } = await greet(connection)
      accept()
      const { id, name } = hello.guest
      this.#ids.note(id, name)
      await this.#supervised(name).ready()
      await connection.send(frameType.again)
      await connection.finish()
    } catch (thrown) {
      const error = asSubpageError(thrown)
      this.#refused(peer.name === undefined ? peer.address : `${peer.name} (${peer.address})`, error)
      await connection.refuse(error)
    }
  }

  #refused(from: string, { message }: SubpageError): void {
    this.#say('', `a connection from ${from}: ${message}`, 'refused')
  }

  #say(guest: string, text: string, kind: HostEvent['kind'] = 'guest'): void {
    this.#eventLog.add(guest, kind, text)
  }
}
