/** What a primary is made with, and what it tells. */
import type { Duplex } from 'node:stream'
import type { CodecName } from '../delta/capture.ts'
import type { SubpageError } from '../errors.ts'
import type { HotPageCosts } from '../tracking/hot-pages.ts'
import type { TrackerChoice } from '../tracking/tracker.ts'
import type { Clock } from './clock.ts'
import type { EpochReport } from './epoch-stats.ts'
import type { Faults } from './fault.ts'
import type { Guest } from './guest.ts'
import type { GuestMemory } from './guest-memory.ts'
import type { Hello } from './messages.ts'
import type { Pace } from './pace.ts'
import type { PauseLimits } from './pause-limits.ts'
import type { ProgressFigures } from './seed-progress.ts'
import type { Sending } from './sending.ts'
import type { Succession } from './succession.ts'

export type PrimaryState = 'Connecting' | 'Seeding' | 'Protected' | 'Lagging' | 'Failed'

export interface PrimaryOptions {
  guest: Guest
  /** Absent: all of it is always there. */
  memory?: GuestMemory
  /** What the standby is told at the start of each connection. */
  hello: () => Promise<Hello>
  connect: () => Promise<Duplex>
  tracker: TrackerChoice
  codec: CodecName
  /** Absent: every delta goes as it is. */
  sending?: Sending
  pace: Pace
  limits: PauseLimits
  /** What this host takes for a fault, and for a comparison; undefined: every page is armed. */
  hotPages: HotPageCosts | undefined
  suspicionMs: number
  /** `free`: what the guest sends leaves at once; for clients that can bear that it is taken back. */
  outputs: 'held' | 'free'
  succession: Succession
  /** True when a standby may hold a checkpoint from before: after a restart of the supervisor. */
  exposed: boolean
  clock: Clock
  faults: Faults
}

export interface PrimaryEvents {
  state: [PrimaryState, string]
  epoch: [EpochReport]
  /** The standby is as far as the first checkpoint after it needs. */
  seeded: [ProgressFigures]
  /** A checkpoint was begun and not committed; its pages go with a later one. */
  missed: [SubpageError]
  /** The guest goes on without the standby, or has one again. */
  alone: [boolean]
}
