/** The hypervisor of a simulated host, in the hands of one supervisor: what it starts outlives it. */
import type { Hypervisor } from '../../src/agent/supervisor/hypervisor.ts'
import { SubpageError } from '../../src/errors.ts'
import type { GuestRecord } from '../../src/qemu/guest-record.ts'
import { noJournal, noSpill } from '../../src/replication/disks.ts'
import type { GuestDescription } from '../../src/replication/guest.ts'
import { SimGuest, SimWaiting, simMachine } from './sim-guest.ts'
import { SimGuestProcess } from './sim-guest-process.ts'
import type { SimHost } from './sim-host.ts'
import type { SimProcess } from './sim-process.ts'
import { SimQemu } from './sim-qemu.ts'

export class SimHypervisor implements Hypervisor<SimGuestProcess> {
  readonly #host: SimHost
  readonly #process: SimProcess

  constructor(host: SimHost, process: SimProcess) {
    this.#host = host
    this.#process = process
  }

  /** A new guest. */
  boot(id: string): SimGuestProcess {
    const qemu = this.#start({ id, name: 'guest', generation: 1, waiting: false })
    qemu.qemu.boot()
    return qemu
  }

  guestOf(process: SimGuestProcess): SimGuest {
    return new SimGuest(process)
  }

  async startWaiting({ guest: { id, name }, generation }: Parameters<Hypervisor['startWaiting']>[0]) {
    const { time, random } = this.#host.world
    return await this.#process.ask<SimWaiting>((answer) => {
      time.after(random.integer(1, 60), () => {
        if (!this.#host.alive || this.#process.state === 'dead') return
        answer(new SimWaiting(this.#start({ id, name, generation, waiting: true })))
      })
    })
  }

  /** It has no disks, here as elsewhere. */
  /** Nobody manages it. */
  async refit(): Promise<void> {}

  async leave(): Promise<void> {}

  withPlaces(description: GuestDescription): GuestDescription {
    return description
  }

  storageOf() {
    const spill = { ...noSpill, totalBytes: 0 }
    return { disks: [], journal: noJournal, spill, close: async () => undefined }
  }

  readRecord(): GuestRecord | undefined {
    return this.#host.disk
  }

  async attach(_: unknown, record: GuestRecord): Promise<SimGuestProcess | undefined> {
    const qemu = this.#find(record)
    if (!qemu.alive) return undefined
    const found = new SimGuestProcess(this.#host, this.#process, qemu, record)
    try {
      await found.takeUp()
    } catch (error) {
      found.release()
      throw error
    }
    return found
  }

  isGone(record: GuestRecord): boolean {
    return !this.#find(record).alive
  }

  async endLeftover(_: unknown, record: GuestRecord | undefined): Promise<void> {
    await this.#process.ask<void>((answer) => {
      if (record) this.#find(record).die({ how: 'stopped', detail: 'left over from a former supervisor' })
      this.#host.disk = undefined
      answer()
    })
  }

  async playBack(): Promise<undefined> {
    // No disk, no journal.
  }

  freeMemory(): void {
    // The world frees it, when it has compared all that it wants.
  }

  lastWords(): string {
    return 'it said nothing'
  }

  #start(about: Pick<GuestRecord, 'id' | 'name' | 'generation' | 'waiting'>): SimGuestProcess {
    const { world, name } = this.#host
    const qemu = new SimQemu(world, name)
    const record: GuestRecord = {
      ...{ format: 1, arbitrated: false, machine: simMachine(world), qemuVersion: 'simulated', ...about },
      process: { pid: world.pidOf(qemu), startTime: '0' },
    }
    this.#host.disk = record
    return new SimGuestProcess(this.#host, this.#process, qemu, record)
  }

  #find({ process }: GuestRecord): SimQemu {
    const qemu = this.#host.world.qemus[process.pid - 1]
    if (!qemu) throw new SubpageError('INTERNAL', `there never was a process ${process.pid}`)
    return qemu
  }
}
