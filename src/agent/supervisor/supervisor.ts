/**
 * All that a host does for one guest, in a process of its own: starts it, or waits for it as a standby, protects it, takes it
 * over, ends it. It outlives the agent, and the guest outlives it: the next one finds the guest again.
 */

import { randomUUID } from 'node:crypto'
import { EventEmitter } from 'node:events'
import { rmSync } from 'node:fs'
import { asSubpageError, SubpageError } from '../../errors.ts'
import {
  type DensitySettings,
  type GuestFiles,
  guestFiles,
  type ProtectionSettings,
} from '../../qemu/guest-files.ts'
import { lastWords, launch } from '../../qemu/launch.ts'
import { endLeftover } from '../../qemu/leftover.ts'
import { QemuProcess } from '../../qemu/qemu-process.ts'
import { machineOf, type RunRequest } from '../../qemu/run-request.ts'
import { release } from '../../release.ts'
import { admit, greet, refuseOurselves, sharesArbiter } from '../../replication/admission.ts'
import { Connection } from '../../replication/connection.ts'
import { brokeProtocol, type Hello } from '../../replication/messages.ts'
import type { StandbyOutcome } from '../../replication/standby-options.ts'
import type { Verification } from '../../replication/verify.ts'
import { parseAddress } from '../address.ts'
import { densityStatus, type GuestDensity, type HostDensityStatus } from '../density-status.ts'
import type { Incoming } from '../door.ts'
import type { HostEvent } from '../event-log.ts'
import type { GuestApi } from '../guest-api.ts'
import { ownMemory } from '../own-memory.ts'
import { endByCommand } from '../removal.ts'
import type { GuestStatus, HostStatus } from '../status.ts'
import { guarded } from './boundary.ts'
import { Changing } from './changing.ts'
import { findAgain } from './guest-finder.ts'
import { guestStatus } from './guest-status.ts'
import type { Host } from './host.ts'
import {
  aliveOf,
  type EndedGuest,
  type HostedGuest,
  presentOf,
  refuseIfAlive,
  refuseIfPresent,
  runningOf,
} from './hosted-guest.ts'
import type { WatchListener, WatchQuery } from './memory-watch.ts'
import { RunningGuest } from './running-guest.ts'
import { StandbyGuest } from './standby-guest.ts'

export interface SupervisorOptions {
  stateDirectory: string
  /** The guest's. */
  name: string
  host: Host
  /** Where other hosts reach this one. */
  address: string
}

export class Supervisor extends EventEmitter<{ idle: [] }> implements GuestApi {
  readonly name: string
  readonly host: Host
  readonly #address: string
  readonly #files: GuestFiles
  readonly #changing = new Changing()
  #guest: HostedGuest | undefined
  /** Why the latest guest is here no more; empty when it was removed, or never began. */
  departure = ''
  /** Nobody is expected to come with another guest of the name. */
  settled = false
  /** What is under way that may make a guest. */
  #busy = 0
  /** Settles when it is known what a former supervisor has left. */
  #known: Promise<void> = Promise.resolve()

  constructor({ stateDirectory, name, host, address }: SupervisorOptions) {
    super()
    this.name = name
    this.host = host
    this.#address = address
    this.#files = guestFiles(stateDirectory, name)
  }

  /** Finds what a former supervisor has left; resolves when it was found, or does not answer soon. */
  async begin(): Promise<void> {
    const { found, soon } = findAgain({
      name: this.name,
      files: this.#files,
      host: this.host,
      guest: () => this.#guest,
      become: (guest) => this.#become(guest),
      adopt: (guest) => this.#adopt(guest),
    })
    this.#known = this.#during(() => found)
    await soon
  }

  /** There is no guest, and nobody is about to begin one: its process may end. */
  get idle(): boolean {
    return this.#guest === undefined && this.#busy === 0
  }

  /** By which its peer may still hear it in time: a fifth of the suspicion time of its guest's protection. */
  get heartbeatMs(): number {
    const guest = this.#guest
    if (guest?.kind === 'standby') return guest.hello.settings.suspicionMs / 5
    return guest?.kind === 'running' && guest.primary
      ? guest.primary.options.suspicionMs / 5
      : Number.POSITIVE_INFINITY
  }

  /** Stops, in no guest's pause. The guest runs on, unprotected until the next supervisor is there. */
  async close(): Promise<void> {
    this.host.health.close()
    if (this.#guest?.kind === 'running') await this.#guest.detach()
    await this.host.density.close()
  }

  // ---- what can be asked

  async status(): Promise<HostStatus> {
    const guest = this.#guest
    const credentials = this.host.transport.credentials?.()
    const shadowBytes = guest?.kind === 'running' ? (guest.primary?.memory.shadowBytes ?? 0) : 0
    return {
      host: this.host.name,
      release,
      pid: process.pid,
      address: this.#address,
      certificate: credentials
        ? { name: credentials.name, validTo: credentials.validTo.toISOString() }
        : null,
      arbiter: { description: this.host.arbiter.description, trouble: this.host.health.trouble ?? null },
      ownBytes: ownMemory(shadowBytes),
      guests: guest ? [guestStatus(guest, this.host)] : [],
    }
  }

  async guest(name: string): Promise<GuestStatus> {
    return guestStatus(this.#find(name), this.host)
  }

  async run(request: RunRequest): Promise<GuestStatus> {
    this.settled = true
    return await this.#exclusively(async () => {
      this.#assertName(request.name)
      refuseIfPresent(this.#guest, this.host.name)
      const machine = await machineOf(request, this.host.images)
      const identity = { id: randomUUID(), name: this.name, generation: 1 }
      const qemu = new QemuProcess(this.#files, await launch(identity, machine, this.#files, false))
      this.#say(
        'guest',
        `started: QEMU ${qemu.record.qemuVersion}, ${machine.accel}, process ${qemu.record.process.pid}`,
      )
      return guestStatus(this.#adopt(new RunningGuest(qemu, this.host)), this.host)
    })
  }

  async remove(name: string, standbyToo = false): Promise<{ removed: string; note?: string }> {
    this.settled = true
    // Its files have the names of those of a standby that would be started meanwhile.
    return await this.#exclusively(async () => {
      const guest = this.#find(name)
      const note = await endByCommand(guest, standbyToo)
      // The end of a guest that ran has been noted meanwhile.
      const left = this.#guest
      if (guest.kind !== 'standby') this.#say('guest', 'removed')
      if (left === guest || left?.kind === 'ended') this.#become(undefined)
      this.departure = ''
      return { removed: name, ...(note !== undefined && { note }) }
    })
  }

  async protect(name: string, settings: ProtectionSettings): Promise<GuestStatus> {
    const guest = this.#running(name, 'protect')
    await guest.protect(settings)
    return await this.guest(name)
  }

  async unprotect(name: string): Promise<GuestStatus> {
    await this.#running(name, 'unprotect').unprotect()
    return await this.guest(name)
  }

  async verify(name: string): Promise<Verification> {
    const { primary, qemu } = this.#running(name, 'verify')
    if (!primary || (primary.state !== 'Protected' && primary.state !== 'Lagging'))
      throw new SubpageError('NOT_PROTECTED', `${name} has no image to compare with`)
    return await qemu.hang.during(primary.verify())
  }

  async switchover(name: string): Promise<{ switchedOver: string }> {
    await this.#running(name, 'switchover').switchover()
    return { switchedOver: name }
  }

  async failover(name: string, force = false): Promise<StandbyOutcome> {
    const guest = this.#find(name)
    if (guest.kind !== 'standby')
      throw new SubpageError(
        'STANDBY_NOT_READY',
        guest.kind === 'running'
          ? `${name} runs on this host: failover is for the host that holds its standby; subpage switchover ${name} moves it`
          : `${name} has ended on this host, and there is no standby of it here`,
      )
    return await guest.standby.failover('by command', force)
  }

  async density(): Promise<HostDensityStatus> {
    return await densityStatus(this.host.density, this.#guest)
  }

  async densityOn(name: string, settings: DensitySettings): Promise<GuestDensity | undefined> {
    await this.host.density.enable(aliveOf(this.#find(name)), settings)
    return (await this.density()).guests[0]
  }

  async densityOff(name: string): Promise<{ whole: string }> {
    await this.host.density.disable(aliveOf(this.#find(name)))
    return { whole: name }
  }

  async watch(name: string, query: WatchQuery, listener: WatchListener): Promise<() => void> {
    return this.#running(name, 'wss').memoryWatch.listen(listener, query)
  }

  async events(): Promise<HostEvent[]> {
    return this.host.events.recent()
  }

  follow(listener: (event: HostEvent) => void): () => void {
    return this.host.events.follow(listener)
  }

  // ---- a guest that runs here

  #adopt(guest: RunningGuest): RunningGuest {
    this.#become(guest)
    this.host.events.addNotes(guest.name, guest.guest.qemu.notes)
    const clearing = { events: this.host.events, guest: this.name, doing: 'clearing away after its end' }
    void guest.guest.ended.then((end) =>
      guarded(clearing, async () => {
        const { files } = guest.guest.qemu
        const what = end.how === 'died' ? `died: ${end.detail} (${lastWords(files)})` : `ended: ${end.detail}`
        this.#say('guest', what)
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
    // Removed by command, or followed by another guest: the files are not ours any more.
    if (this.#guest !== guest) return
    rmSync(qemu.files.ram, { force: true })
    this.#become({ kind: 'ended', name: guest.name, record: qemu.record, files: qemu.files, end })
  }

  // ---- a guest of another host

  /** A primary has connected. */
  async answer({ stream, peer, accept }: Incoming): Promise<void> {
    const connection = new Connection(stream)
    try {
      const { frames, hello } = await greet(connection)
      accept()
      await this.#known
      if (hello.guest.name !== this.name)
        throw brokeProtocol(`it asks for ${hello.guest.name} where ${this.name} is`)
      refuseOurselves(hello, this.host.claimant, presentOf(this.#guest))
      if ('path' in parseAddress(hello.source.address) !== (peer.name === undefined))
        throw brokeProtocol(`it cannot be reached at ${hello.source.address} from here`)
      // What it says of itself counts only where nobody can prove anything: within this machine.
      if (peer.name !== undefined) hello.source.host = peer.name
      const guest = await this.#during(async () => {
        const arbitrated = await sharesArbiter(hello, this.host.arbiter, this.host.arbiterChosen)
        return { standby: (await this.#standbyFor(hello)).standby, arbitrated }
      })
      await guest.standby.serve(connection, frames, hello, guest.arbitrated)
    } catch (thrown) {
      const error = asSubpageError(thrown)
      this.refused(peer.name === undefined ? peer.address : `${peer.name} (${peer.address})`, error)
      await connection.refuse(error)
    }
  }

  refused(from: string, { message }: SubpageError): void {
    this.host.events.add('', 'refused', `a connection from ${from}: ${message}`)
  }

  /** The standby that a primary asks for: the one that waits for it, or a new one. */
  async #standbyFor(hello: Hello): Promise<StandbyGuest> {
    this.settled = false
    return await this.#exclusively(async () => {
      const present = this.#guest
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
      const guest = await StandbyGuest.start(hello, this.#files, this.host)
      this.#become(guest.remember(hello))
      guest.standby.once('outcome', (outcome) => this.#standbyEnded(guest, outcome))
      const clearing = {
        events: this.host.events,
        guest: this.name,
        doing: 'discarding a standby that ended',
      }
      void guest.waiting.ended.then((end) =>
        guarded(clearing, () => {
          if (this.#guest !== guest) return undefined
          this.#say('guest', end.detail)
          // A takeover that failed keeps its state and its logs, until somebody removes them.
          return guest.standby.ending ? undefined : guest.standby.discard(end.detail)
        }),
      )
      return guest
    })
  }

  #standbyEnded(guest: StandbyGuest, outcome: StandbyOutcome): void {
    if (this.#guest !== guest) return
    if (outcome.how === 'discarded') {
      this.#say('protection', `standby discarded: ${outcome.reason}`)
      this.#leave(`its standby was discarded: ${outcome.reason}`)
      return
    }
    const running = this.#adopt(new RunningGuest(guest.waiting.qemu, this.host, outcome))
    this.#say(
      'failover',
      `took over in ${outcome.takeoverMs.toFixed(1)} ms from checkpoint ${outcome.committed.epoch}: ${outcome.reason}`,
    )
    // When the other host is back, the same protection begins the other way round.
    running.goOnProtecting(guest.reverse, false)
  }

  // ----

  #become(guest: HostedGuest | undefined): void {
    this.#guest = guest
    if (!guest) this.#ifIdle()
  }

  /** The guest is on this host no more. */
  #leave(reason: string): void {
    this.departure = reason
    this.#become(undefined)
  }

  /** @throws SubpageError GUEST_UNKNOWN */
  #find(name: string): HostedGuest {
    this.#assertName(name)
    if (!this.#guest) throw new SubpageError('GUEST_UNKNOWN', `no guest "${name}" on host ${this.host.name}`)
    return this.#guest
  }

  #assertName(name: string): void {
    if (name !== this.name)
      throw new SubpageError('GUEST_UNKNOWN', `this is the supervisor of ${this.name}, not of ${name}`)
  }

  #running(name: string, command: string): RunningGuest {
    return runningOf(this.#find(name), command)
  }

  #say(kind: HostEvent['kind'], text: string): void {
    this.host.events.add(this.name, kind, text)
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    return this.#during(() => this.#changing.during(this.name, this.host.name, work))
  }

  async #during<T>(work: () => Promise<T>): Promise<T> {
    this.#busy++
    try {
      return await work()
    } finally {
      this.#busy--
      this.#ifIdle()
    }
  }

  #ifIdle(): void {
    if (this.idle) this.emit('idle')
  }
}
