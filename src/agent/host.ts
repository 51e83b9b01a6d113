/** What all guests of an agent share: who this host is, whom it asks, where it reports. */
import { randomUUID } from 'node:crypto'
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { withRoom } from '../qemu/room.ts'
import type { Arbiter } from '../replication/arbiter.ts'
import type { Faults } from '../replication/fault.ts'
import type { Token } from '../replication/source-sight.ts'
import type { Address } from './address.ts'
import type { EventLog } from './event-log.ts'
import type { HostDensity } from './host-density.ts'
import type { Transport } from './transport.ts'

export interface Host {
  name: string
  /** Unique name of this host, for the arbiter. */
  claimant: string
  arbiter: Arbiter
  /** The arbiter was named by the operator: a peer that asks another one is refused. */
  arbiterChosen: boolean
  /** Where a peer that is reached at this address reaches this host. */
  addressFor: (peer: Address) => string
  transport: Transport
  /** Directories that guests may read from (image-files.ts). */
  images: readonly string[]
  events: EventLog
  faults: Faults
  density: HostDensity
  /** Proves to an agent of the same machine that it sees us. */
  presence: Token
}

/** The host's name, and what keeps two hosts of one name apart; the same for every agent on this state directory. */
export function claimantOf(stateDirectory: string, hostName: string): string {
  const file = join(stateDirectory, 'host-id')
  if (!existsSync(file))
    withRoom(file, () => {
      // One that was cut short, and is the same everywhere, must never be read.
      const next = `${file}.next`
      writeFileSync(next, randomUUID(), { mode: 0o600, flush: true })
      renameSync(next, file)
    })
  return `${hostName}-${readFileSync(file, 'utf8').trim().slice(0, 8)}`
}
