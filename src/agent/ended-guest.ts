/**
 * A guest that no longer runs, or that this agent could not find again: kept by name, with its logs, until it is started
 * again or removed.
 */
import type { GuestFiles, GuestRecord } from '../qemu/guest-files.ts'
import type { GuestEnd } from '../replication/guest.ts'

export interface EndedGuest {
  kind: 'ended'
  name: string
  /** Undefined when it is damaged. */
  record: GuestRecord | undefined
  files: GuestFiles
  end: GuestEnd
}
