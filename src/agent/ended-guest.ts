/** A guest that no longer runs: kept by name, with its logs, until it is started again or removed. */
import type { GuestFiles, GuestRecord } from '../qemu/guest-files.ts'
import type { GuestEnd } from '../replication/guest.ts'

export interface EndedGuest {
  kind: 'ended'
  name: string
  record: GuestRecord
  files: GuestFiles
  end: GuestEnd
}
