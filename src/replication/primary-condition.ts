/** What a primary says of its protection: its state and why, how far it has come, and what it has cost. */
import { EventEmitter } from 'node:events'
import type { Reason } from '../errors.ts'
import { EpochStats } from './epoch-stats.ts'
import type { DiskCopy } from './messages.ts'
import type { Misfit } from './misfit.ts'
import type { PrimaryEvents, PrimaryState } from './primary-options.ts'
import { PrimaryMachine } from './primary-state.ts'
import type { ProgressFigures, SeedProgress } from './seed-progress.ts'

const fitsAgain = {
  code: 'STANDBY_NOT_READY',
  message: 'the guest has the devices of its standby again',
} as const

export class PrimaryCondition extends EventEmitter<PrimaryEvents> {
  protected readonly machine: PrimaryMachine
  /** Who else may run the guest, as the arbiter says. */
  dispute: string | undefined
  readonly stats = new EpochStats()
  /** Where the standby keeps its copies of the disks, as it said last. */
  copies: readonly DiskCopy[] = []
  /** Name of the standby's host, as it said last; undefined where it has not. */
  peerHost: string | undefined
  /** Of the last seeding. */
  protected progress: SeedProgress | undefined

  /** @param exposed a standby may hold a checkpoint from before */
  protected constructor(exposed: boolean) {
    super()
    this.machine = new PrimaryMachine(exposed, (changed) => {
      if (changed.alone) this.emit('alone', this.alone)
      if (changed.state) this.emit('state', this.state, this.reason)
    })
  }

  get state(): PrimaryState {
    return this.machine.label
  }

  /** Undefined where nothing has to be explained. */
  get why(): Reason | undefined {
    return this.machine.why
  }

  get reason(): string {
    return this.why?.message ?? ''
  }

  /** The guest goes on without a standby that could take over. */
  get alone(): boolean {
    return this.machine.alone
  }

  /** The guest's devices are not its standby's: it has none until that is taken back. */
  get devicesDiffer(): boolean {
    return this.machine.misfit
  }

  /** While it is being seeded. */
  get seeding(): ProgressFigures | undefined {
    return this.state === 'Seeding' ? this.progress?.figures : undefined
  }

  /** The standby's newest checkpoint is getting old. */
  protected lag(why: Reason): void {
    if (this.machine.allows('lag')) this.machine.change('lag', why)
  }

  /** @param misfit undefined: the guest has the devices of its standby again */
  protected differ(misfit: Misfit | undefined): void {
    const event = misfit ? 'differ' : 'fit'
    if (this.machine.allows(event)) this.machine.change(event, misfit ?? fitsAgain)
  }
}
