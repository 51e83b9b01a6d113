/**
 * The daemon of a host: knows the guests that run or wait here, starts and ends them, answers other hosts. Guests
 * outlive it: a new agent on the same state directory finds them again.
 */
import { rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { asSubpageError, errorCode, SubpageError } from '../errors.ts'
import { probeAccel } from '../qemu/accel.ts'
import {
  type GuestRecord,
  guestFiles,
  guestNames,
  type ProtectionSettings,
  readRecord,
  removeFiles,
} from '../qemu/guest-files.ts'
import { lastWords, launch } from '../qemu/launch.ts'
import { type Machine, readOptions } from '../qemu/options.ts'
import { isRunning } from '../qemu/process.ts'
import { QemuProcess } from '../qemu/qemu-process.ts'
import { Connection } from '../replication/connection.ts'
import { frameType } from '../replication/frame.ts'
import type { Hello } from '../replication/messages.ts'
import { greet, type StandbyOutcome } from '../replication/standby.ts'
import type { Verification } from '../replication/verify.ts'
import { type Address, formatAddress } from './address.ts'
import type { EndedGuest } from './ended-guest.ts'
import { EventLog } from './event-log.ts'
import { RunningGuest } from './running-guest.ts'
import { StandbyGuest } from './standby-guest.ts'

export type HostedGuest = RunningGuest | StandbyGuest | EndedGuest

export interface RunRequest {
  name: string
  ramBytes: number
  accel: 'auto' | 'kvm' | 'tcg'
  options: string[]
}

export class Agent {
  readonly stateDirectory: string
  readonly hostName: string
  readonly events = new EventLog()
  readonly guests = new Map<string, HostedGuest>()
  readonly #listener: Server
  /** Names whose guest is being started: the second of two requests at once is refused. */
  readonly #starting = new Set<string>()
  #address: Address | undefined

  private constructor(stateDirectory: string, hostName: string) {
    this.stateDirectory = stateDirectory
    this.hostName = hostName
    this.#listener = createServer({ noDelay: true }, (socket) => void this.#answer(socket))
  }

  /** @throws SubpageError ADDRESS_IN_USE */
  static async start(stateDirectory: string, hostName: string, listen: Address): Promise<Agent> {
    const agent = new Agent(stateDirectory, hostName)
    await agent.#listen(listen)
    await agent.#findGuests()
    return agent
  }

  /** Where other hosts reach this one. */
  get address(): Address | undefined {
    return this.#address
  }

  /** Stops serving. Guests run on, unprotected until an agent is back. */
  close(): void {
    this.#listener.close()
  }

  // ---- guests that run here

  /** @throws SubpageError GUEST_EXISTS, GUEST_UNPROTECTABLE, NO_SPACE, QEMU_FAILED, … */
  async run(request: RunRequest): Promise<RunningGuest> {
    const { type, options } = readOptions(request.options)
    return await this.#exclusively(request.name, async () => {
      this.#refuseIfPresent(request.name)
      const accel = request.accel === 'auto' ? await probeAccel() : request.accel
      const machine: Machine = { type, ramBytes: request.ramBytes, accel, options }
      const files = guestFiles(this.stateDirectory, request.name)
      const qemu = new QemuProcess(files, await launch(request.name, machine, files, false))
      this.events.add(
        request.name,
        'guest',
        `started: QEMU ${qemu.record.qemuVersion}, ${accel}, process ${qemu.record.process.pid}`,
      )
      return this.#adopt(new RunningGuest(qemu, this.hostName, this.events))
    })
  }

  /** Ends a guest, whatever it is here, and removes what it left. */
  async remove(name: string): Promise<void> {
    const guest = this.find(name)
    if (guest.kind === 'standby') await guest.standby.discard('removed by command')
    else if (guest.kind === 'ended') removeFiles(guest.files)
    else {
      // The guest's orderly end makes the standby discard its copy.
      await guest.guest.qemu.end()
      this.events.add(name, 'guest', 'removed')
    }
    this.guests.delete(name)
  }

  async protect(name: string, settings: ProtectionSettings): Promise<void> {
    await this.#running(name).protect(settings)
  }

  async unprotect(name: string): Promise<void> {
    await this.#running(name).unprotect()
  }

  /** @throws SubpageError NOT_PROTECTED */
  async verify(name: string): Promise<Verification> {
    const primary = this.#running(name).primary
    if (!primary || (primary.state !== 'Protected' && primary.state !== 'Lagging'))
      throw new SubpageError('NOT_PROTECTED', `${name} has no image to compare with`)
    return await primary.verify()
  }

  /** @throws SubpageError STANDBY_NOT_READY */
  async failover(name: string): Promise<StandbyOutcome> {
    const guest = this.find(name)
    if (guest.kind !== 'standby')
      throw new SubpageError('STANDBY_NOT_READY', `${name} is not a standby on this host`)
    return await guest.standby.failover('by command')
  }

  /** @throws SubpageError GUEST_UNKNOWN */
  find(name: string): HostedGuest {
    const guest = this.guests.get(name)
    if (!guest) throw new SubpageError('GUEST_UNKNOWN', `no guest "${name}" on host ${this.hostName}`)
    return guest
  }

  #running(name: string): RunningGuest {
    const guest = this.find(name)
    if (guest.kind === 'standby')
      throw new SubpageError('GUEST_UNKNOWN', `${name} is a standby here; ask the host where it runs`)
    if (guest.kind === 'ended')
      throw new SubpageError('GUEST_DIED', `${name} does not run any more: ${guest.end.detail}`)
    return guest
  }

  #adopt(guest: RunningGuest): RunningGuest {
    this.guests.set(guest.name, guest)
    void guest.guest.ended.then((end) => {
      this.events.add(
        guest.name,
        'guest',
        `${end.how === 'died' ? 'died' : 'ended'}: ${end.detail}${end.how === 'died' ? ` (${lastWords(guest.guest.qemu.files)})` : ''}`,
      )
      void guest.finished().then(() => this.#bury(guest, end))
    })
    return guest
  }

  /** Frees the memory of a guest that has ended; its directory stays, for its logs. */
  #bury(guest: RunningGuest, end: EndedGuest['end']): void {
    const { qemu } = guest.guest
    qemu.release()
    rmSync(qemu.files.ram, { force: true })
    if (this.guests.get(guest.name) === guest)
      this.guests.set(guest.name, {
        kind: 'ended',
        name: guest.name,
        record: qemu.record,
        files: qemu.files,
        end,
      })
  }

  // ---- guests of other hosts

  async #answer(socket: Socket): Promise<void> {
    const from = formatAddress({ host: socket.remoteAddress ?? 'unknown', port: socket.remotePort ?? 0 })
    try {
      const { connection, frames, hello } = await greet(socket)
      const guest = await this.#standbyFor(hello)
      await guest.standby.serve(connection, frames)
    } catch (error) {
      const { code, message } = asSubpageError(error)
      this.events.add('', 'refused', `a connection from ${from}: ${message}`)
      await new Connection(socket).sendJson(frameType.refuse, { code, message }).catch(() => undefined)
      socket.destroy()
    }
  }

  /** The standby that a primary asks for: the one that waits for it, or a new one. */
  async #standbyFor(hello: Hello): Promise<StandbyGuest> {
    const { name } = hello.guest
    return await this.#exclusively(name, async () => {
      const present = this.guests.get(name)
      if (present?.kind === 'standby' && present.standby.belongsTo(hello)) {
        if (present.standby.connected)
          throw new SubpageError('ALREADY_PROTECTED', `${name} has a primary connected already`)
        return present
      }
      this.#refuseIfPresent(name)
      const guest = await StandbyGuest.start(hello, guestFiles(this.stateDirectory, name), this.events)
      this.guests.set(name, guest)
      guest.standby.once('outcome', (outcome) => this.#standbyEnded(guest, outcome))
      void guest.waiting.ended.then((end) => {
        if (this.guests.get(name) !== guest) return
        this.events.add(name, 'guest', end.detail)
        void guest.standby.discard(end.detail)
      })
      return guest
    })
  }

  #standbyEnded(guest: StandbyGuest, outcome: StandbyOutcome): void {
    if (this.guests.get(guest.name) !== guest) return
    if (outcome.how === 'discarded') {
      this.guests.delete(guest.name)
      this.events.add(guest.name, 'protection', `standby discarded: ${outcome.reason}`)
      return
    }
    this.#adopt(new RunningGuest(guest.waiting.qemu, this.hostName, this.events, outcome))
    this.events.add(
      guest.name,
      'failover',
      `took over in ${outcome.takeoverMs.toFixed(1)} ms from checkpoint ${outcome.committed.epoch}: ${outcome.reason}`,
    )
  }

  #refuseIfPresent(name: string): void {
    const present = this.guests.get(name)
    if (present && present.kind !== 'ended')
      throw new SubpageError(
        'GUEST_EXISTS',
        `${name} ${present.kind === 'standby' ? 'is a standby' : 'runs'} on host ${this.hostName} already`,
      )
  }

  async #exclusively<T>(name: string, work: () => Promise<T>): Promise<T> {
    if (this.#starting.has(name))
      throw new SubpageError('GUEST_EXISTS', `${name} is just being started on host ${this.hostName}`)
    this.#starting.add(name)
    try {
      return await work()
    } finally {
      this.#starting.delete(name)
    }
  }

  // ---- start

  async #findGuests(): Promise<void> {
    for (const name of guestNames(this.stateDirectory)) {
      const files = guestFiles(this.stateDirectory, name)
      const record = readRecord(files)
      if (!record) removeFiles(files)
      else await this.#find(name, record)
    }
  }

  async #find(name: string, record: GuestRecord): Promise<void> {
    const files = guestFiles(this.stateDirectory, name)
    if (record.waiting) {
      // Its image may be torn, and the frames that would mend it died with the former agent: its primary seeds anew.
      if (isRunning(record.process)) process.kill(record.process.pid, 'SIGKILL')
      removeFiles(files)
      return
    }
    const qemu = await QemuProcess.attach(files, record)
    if (!qemu) {
      rmSync(files.ram, { force: true })
      const end = { how: 'died' as const, detail: 'it ended while no agent ran' }
      this.guests.set(name, { kind: 'ended', name, record, files, end })
      return
    }
    const guest = this.#adopt(new RunningGuest(qemu, this.hostName, this.events))
    this.events.add(name, 'guest', `found again: process ${record.process.pid}`)
    if (record.protection) guest.resumeProtection(record.protection)
  }

  #listen(address: Address): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#listener.once('error', (error) =>
        reject(
          errorCode(error) === 'EADDRINUSE'
            ? new SubpageError('ADDRESS_IN_USE', `${formatAddress(address)} is taken by another program`)
            : new SubpageError(
                'BAD_ARGUMENT',
                `cannot listen on ${formatAddress(address)}: ${error.message}`,
              ),
        ),
      )
      this.#listener.listen(address.port, address.host, () => {
        const bound = this.#listener.address()
        if (bound && typeof bound === 'object') this.#address = { host: address.host, port: bound.port }
        resolve()
      })
    })
  }
}
