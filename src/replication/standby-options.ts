/** What a standby is made with, what it tells, and how it can end. */
import type { Clock } from './clock.ts'
import type { DiskImage, DiskJournal, WritesSpill } from './disks.ts'
import type { Faults } from './fault.ts'
import type { WaitingGuest } from './guest.ts'
import type { Image } from './image.ts'
import type { Committed } from './image-keeper.ts'
import type { Hello } from './messages.ts'
import type { SourceFate } from './source-sight.ts'
import type { Succession } from './succession.ts'

export type StandbyState = 'Connecting' | 'Seeding' | 'Protected' | 'Failed'

/** How a standby ended. */
export type StandbyOutcome =
  | {
      how: 'took-over'
      reason: string
      /** Milliseconds since 1970. */
      at: number
      takeoverMs: number
      committed: Pick<Committed, 'epoch' | 'consoleBytes'>
    }
  | { how: 'discarded'; reason: string }

export interface StandbyEvents {
  state: [StandbyState, string]
  outcome: [StandbyOutcome]
}

/** How a standby is given up. */
export interface Discard {
  /** Called before anything is given up. */
  announce?: () => Promise<void>
  /** The copies of its disks, too. */
  disksToo?: boolean
}

export interface StandbyOptions {
  guest: WaitingGuest
  /** The memory of that guest. */
  image: Image
  /** Its disks. */
  disks: readonly DiskImage[]
  /** For protections whose checkpoints outlast a loss of power. */
  journal: DiskJournal
  /** For checkpoints with more writes than are held in memory. */
  spill: WritesSpill
  /** Name of this one, which its primary shows. */
  host: string
  /** Of the first connection. */
  hello: Hello
  succession: Succession
  /** What has become of the primary's guest; undefined when it cannot be seen from here. */
  sourceFate: (hello: Hello) => SourceFate | undefined
  clock: Clock
  faults: Faults
}
