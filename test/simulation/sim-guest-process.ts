/** A simulated QEMU in the hands of one supervisor; mirrors src/qemu/qemu-process.ts. */

import { EventEmitter } from 'node:events'
import type { GuestProcess } from '../../src/agent/supervisor/hypervisor.ts'
import type { DiskError } from '../../src/qemu/disk-errors.ts'
import { type GuestFiles, guestFiles } from '../../src/qemu/guest-files.ts'
import type { GuestRecord } from '../../src/qemu/guest-record.ts'
import { HangWatch } from '../../src/qemu/hang-watch.ts'
import { Notes } from '../../src/qemu/notes.ts'
import { OutputBuffers } from '../../src/qemu/output-buffers.ts'
import type { Qmp } from '../../src/qemu/qmp.ts'
import type { GuestEnd } from '../../src/replication/guest.ts'
import type { SimHost } from './sim-host.ts'
import type { SimProcess } from './sim-process.ts'
import type { SimQemu, SimQmp } from './sim-qemu.ts'
import type { SimWorld } from './sim-world.ts'

const inheritMs = 5_000
const quitMs = 5_000

/** Names only: nothing is written there. */
export const simFiles: GuestFiles = guestFiles('/simulated', 'guest')

/** A QEMU in the hands of one supervisor. */
export class SimGuestProcess implements GuestProcess {
  readonly world: SimWorld
  readonly host: SimHost
  readonly process: SimProcess
  readonly qemu: SimQemu
  readonly qmp: SimQmp
  readonly files = simFiles
  readonly notes = new Notes()
  readonly hang: HangWatch
  readonly outputs: OutputBuffers
  readonly diskErrors = new EventEmitter<{ failed: [DiskError] }>()
  readonly ramUnlinked = new Promise<void>(() => undefined)
  readonly ended: Promise<GuestEnd>
  explainEnd = undefined
  record: GuestRecord
  lease: number | undefined
  #superseded: string | undefined
  #toldToEnd = false
  #released = false

  constructor(host: SimHost, process: SimProcess, qemu: SimQemu, record: GuestRecord) {
    this.world = host.world
    this.host = host
    this.process = process
    this.qemu = qemu
    this.record = record
    this.qmp = qemu.connect(process)
    this.hang = new HangWatch({ of: this.qmp, what: 'QEMU', clock: process.clock })
    this.outputs = new OutputBuffers(this.qmp as unknown as Qmp, 1, {
      speakUntil: (ms) => process.leave(() => qemu.fence(ms)),
    })
    this.ended = new Promise((resolve) =>
      this.qmp.onClose(() => {
        this.hang.close()
        if (this.#superseded !== undefined) resolve({ how: 'superseded', detail: this.#superseded })
        else if (this.#toldToEnd) resolve({ how: 'stopped', detail: 'it was told to end' })
        else resolve(qemu.end ?? { how: 'died', detail: '' })
      }),
    )
  }

  get ram() {
    return this.qemu.ram
  }

  /** Takes up what another supervisor left. */
  async takeUp(): Promise<void> {
    await this.outputs.readBack()
    const { leaseUntilMs } = this.qemu
    this.lease = leaseUntilMs === undefined ? undefined : this.qemu.renewLease(leaseUntilMs, inheritMs)
    const { status } = await this.qmp.run<{ status: string }>('query-status')
    if (status === 'paused') await this.qmp.run('cont')
    this.resumed()
  }

  resumed(): void {
    if (this.lease !== undefined && this.qemu.leaseUntilMs === this.lease) this.qemu.leaseUntilMs = undefined
    this.lease = undefined
  }

  updateRecord(change: Partial<GuestRecord>): void {
    this.replaceRecord({ ...this.record, ...change })
  }

  replaceRecord(record: GuestRecord): void {
    this.record = record
    this.process.leave(() => {
      this.host.disk = record
    })
  }

  async writeDown(change: Partial<GuestRecord>): Promise<void> {
    this.updateRecord(change)
  }

  supersede(detail: string): void {
    this.#superseded = detail
    this.#kill({ how: 'superseded', detail })
  }

  endHung(detail: string): void {
    this.process.leave(() => {
      if (this.qemu.alive && this.qemu.hasGuest) this.world.onFenced()
    })
    this.#kill({ how: 'died', detail })
  }

  async end(): Promise<void> {
    this.#toldToEnd = true
    this.qmp.run('quit').catch(() => {
      // It has ended before it answered; one that does not answer is killed below.
    })
    await Promise.race([this.ended, this.process.clock.sleep(quitMs)])
    this.#kill({ how: 'stopped', detail: 'it did not end when it was told to' })
    await this.ended
    this.release()
    this.process.leave(() => {
      this.host.disk = undefined
    })
  }

  release(): void {
    if (this.#released) return
    this.#released = true
    this.hang.close()
    this.qmp.close()
  }

  #kill(end: GuestEnd): void {
    this.process.leave(() => this.qemu.die(end))
  }
}
