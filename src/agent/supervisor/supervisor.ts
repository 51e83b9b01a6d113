/**
 * All that a host does for one guest, in a process of its own: starts it, or waits for it as a standby, protects it, takes it
 * over, ends it. It outlives the agent, and the guest outlives it: the next one finds the guest again.
 */

import { randomUUID } from 'node:crypto'
import { SubpageError } from '../../errors.ts'
import { type GuestFiles, guestFiles } from '../../qemu/guest-files.ts'
import type { DensitySettings } from '../../qemu/guest-record.ts'
import { launch } from '../../qemu/launch.ts'
import { QemuProcess } from '../../qemu/qemu-process.ts'
import { machineOf, type RunRequest } from '../../qemu/run-request.ts'
import { takePicture } from '../../qemu/screen.ts'
import type { ProtectionSettings } from '../../replication/protection-settings.ts'
import type { StandbyOutcome } from '../../replication/standby-options.ts'
import { densityStatus, type GuestDensity, type HostDensityStatus } from '../density-status.ts'
import type { HostEvent } from '../event-log.ts'
import type { GuestApi } from '../guest-api.ts'
import { hostStatus } from '../host-status.ts'
import type { MemoryMap, WorkingSets } from '../memory-status.ts'
import type { Cancelled, GuestStatus, HostStatus, Screenshot, Unprotected, Verified } from '../status.ts'
import { namedVerification } from '../verified.ts'
import { GuestCommands } from './guest-commands.ts'
import { guestStatus } from './guest-status.ts'
import type { Host } from './host.ts'
import { aliveOf, type HostedGuest, refuseIfPresent } from './hosted-guest.ts'
import { Hosting } from './hosting.ts'
import { adoptManaged } from './managed-guest.ts'
import { MemoryMapper } from './memory-mapper.ts'
import { neverWatched, type WatchListener, type WatchQuery } from './memory-watch.ts'
import { RunningGuest } from './running-guest.ts'

export interface SupervisorOptions {
  stateDirectory: string
  /** The guest's. */
  name: string
  host: Host
  /** Where other hosts reach this one. */
  address: string
}

export class Supervisor implements GuestApi {
  readonly name: string
  readonly host: Host
  /** What the guest is here. */
  readonly hosting: Hosting
  readonly #address: string
  readonly #files: GuestFiles
  readonly #commands: GuestCommands
  readonly #mapper: MemoryMapper

  constructor({ stateDirectory, name, host, address }: SupervisorOptions) {
    this.name = name
    this.host = host
    this.#address = address
    this.#files = guestFiles(stateDirectory, name)
    this.hosting = new Hosting(name, this.#files, host)
    this.#commands = new GuestCommands(this.hosting)
    this.#mapper = new MemoryMapper(host)
  }

  get #guest(): HostedGuest | undefined {
    return this.hosting.guest
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
    await this.#commands.close()
  }

  // ---- what can be asked

  async status(): Promise<HostStatus> {
    const guest = this.#guest
    const credentials = this.host.transport.credentials?.()
    const shadowBytes = guest?.kind === 'running' ? (guest.primary?.memory.shadowBytes ?? 0) : 0
    const { name: host, arbiter, health } = this.host
    return {
      ...hostStatus({ host, address: this.#address, credentials, arbiter, health, shadowBytes }),
      guests: guest ? [guestStatus(guest, this.host)] : [],
    }
  }

  async guest(name: string): Promise<GuestStatus> {
    return guestStatus(this.#commands.find(name), this.host)
  }

  async run(request: RunRequest): Promise<GuestStatus> {
    this.hosting.settled = true
    return await this.hosting.exclusively(async () => {
      this.#commands.assertName(request.name)
      refuseIfPresent(this.#guest, this.host)
      const identity = { id: randomUUID(), name: this.name, generation: 1 }
      const machine = await machineOf(request, this.host.places, this.#files, identity)
      const qemu = new QemuProcess(this.#files, await launch(identity, machine, this.#files, false))
      this.hosting.say(
        'guest',
        `started: QEMU ${qemu.record.qemuVersion}, ${machine.accel}, process ${qemu.record.process.pid}`,
      )
      return guestStatus(this.hosting.adopt(new RunningGuest(qemu, this.host)), this.host)
    })
  }

  async adopt(name: string): Promise<GuestStatus> {
    this.hosting.settled = true
    return await this.hosting.exclusively(async () => {
      this.#commands.assertName(name)
      const present = this.#guest
      if (present?.kind === 'running' && present.qemu.record.machine.managed)
        return guestStatus(present, this.host)
      refuseIfPresent(present, this.host)
      const qemu = await adoptManaged(this.name, this.#files, this.host)
      this.hosting.say(
        'guest',
        `taken up: QEMU ${qemu.record.qemuVersion}, process ${qemu.record.process.pid}`,
      )
      return guestStatus(this.hosting.adopt(new RunningGuest(qemu, this.host)), this.host)
    })
  }

  async remove(name: string, standbyToo = false): Promise<{ removed: string; note?: string }> {
    return await this.#commands.remove(name, standbyToo)
  }

  async protect(name: string, settings: ProtectionSettings): Promise<GuestStatus> {
    await this.#commands.protect(name, settings)
    return await this.guest(name)
  }

  async unprotect(name: string, discard = false): Promise<Unprotected> {
    const copies = await this.#commands.unprotect(name, discard)
    return { ...(await this.guest(name)), copies }
  }

  async verify(name: string): Promise<Verified> {
    const { primary, qemu } = this.#commands.running(name, 'verify')
    if (!primary || (primary.state !== 'Protected' && primary.state !== 'Lagging'))
      throw new SubpageError('NOT_PROTECTED', `${name} has no image to compare with`)
    return namedVerification(await qemu.hang.during(primary.verify()), qemu.record.machine.disks)
  }

  async screenshot(name: string): Promise<Screenshot> {
    const { qemu } = this.#commands.running(name, 'screenshot')
    const picture = await qemu.hang.during(takePicture(qemu.qmp, qemu.files.picture))
    return { png: picture.toString('base64') }
  }

  async switchover(name: string): Promise<{ switchedOver: string }> {
    await this.#commands.switchover(name)
    return { switchedOver: name }
  }

  async cancel(name: string): Promise<Cancelled> {
    return await this.#commands.cancel(name)
  }

  async failover(name: string, force = false): Promise<StandbyOutcome> {
    return await this.#commands.failover(name, force)
  }

  async density(): Promise<HostDensityStatus> {
    return await densityStatus(this.host.density, this.#guest)
  }

  async densityOn(name: string, settings: DensitySettings): Promise<GuestDensity | undefined> {
    await this.host.density.enable(aliveOf(this.#commands.find(name), 'density'), settings)
    return (await this.density()).guests[0]
  }

  async densityOff(name: string): Promise<{ whole: string }> {
    await this.host.density.disable(aliveOf(this.#commands.find(name), 'density'))
    return { whole: name }
  }

  async watch(name: string, query: WatchQuery, listener: WatchListener): Promise<() => void> {
    return this.#commands.running(name, 'wss').memoryWatch.listen(listener, query)
  }

  async memoryMap(name: string): Promise<MemoryMap> {
    return await this.#mapper.of(aliveOf(this.#commands.find(name), 'dashboard'))
  }

  async workingSets(name: string): Promise<WorkingSets> {
    const guest = aliveOf(this.#commands.find(name), 'wss')
    return guest.kind === 'running' ? guest.memoryWatch.workingSets : neverWatched
  }

  async events(): Promise<HostEvent[]> {
    return this.host.events.recent()
  }

  follow(listener: (event: HostEvent) => void): () => void {
    return this.host.events.follow(listener)
  }
}
