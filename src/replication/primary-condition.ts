/** What a primary says of its protection: its state and why, how far it has come, and what it has cost. */
import { EventEmitter } from 'node:events'
import { EpochStats } from './epoch-stats.ts'
import type { DiskCopy } from './messages.ts'
import type { PrimaryEvents, PrimaryState } from './primary-options.ts'
import type { SeedingFigures, SeedProgress } from './seed-progress.ts'

export class PrimaryCondition extends EventEmitter<PrimaryEvents> {
  state: PrimaryState = 'Connecting'
  reason = ''
  /** The guest goes on without a standby that could take over. */
  alone: boolean
  /** Who else may run the guest, as the arbiter says. */
  dispute: string | undefined
  readonly stats = new EpochStats()
  /** Where the standby keeps its copies of the disks, as it said last. */
  copies: readonly DiskCopy[] = []
  /** Of the last seeding. */
  protected progress: SeedProgress | undefined

  protected constructor(alone: boolean) {
    super()
    this.alone = alone
  }

  /** While it is being seeded. */
  get seeding(): SeedingFigures | undefined {
    return this.state === 'Seeding' ? this.progress?.figures : undefined
  }

  protected enter(state: PrimaryState, reason: string): void {
    if (this.state === state && this.reason === reason) return
    this.state = state
    this.reason = reason
    this.emit('state', state, reason)
  }

  /** The standby's newest checkpoint is getting old. */
  protected lag(reason: string): void {
    if (this.state === 'Protected') this.enter('Lagging', reason)
  }

  protected goOn(alone: boolean): void {
    if (this.alone === alone) return
    this.alone = alone
    this.emit('alone', alone)
  }
}
