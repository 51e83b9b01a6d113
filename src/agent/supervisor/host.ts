/** What a supervisor knows of its host: who it is, whom it asks, where it reports. */
import { randomUUID } from 'node:crypto'
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { SubpageError } from '../../errors.ts'
import type { HostPlaces } from '../../qemu/machine-description.ts'
import type { QemuProcess } from '../../qemu/qemu-process.ts'
import { withRoom } from '../../qemu/room.ts'
import type { Arbiter } from '../../replication/arbiter.ts'
import type { Clock } from '../../replication/clock.ts'
import type { Faults } from '../../replication/fault.ts'
import type { PauseLimits } from '../../replication/pause-limits.ts'
import type { HotPageCosts } from '../../tracking/hot-pages.ts'
import type { Address } from '../address.ts'
import type { ArbiterHealth } from '../arbiter-health.ts'
import type { EventLog } from '../event-log.ts'
import type { Transport } from '../transport.ts'
import type { HostDensity } from './host-density.ts'
import type { GuestProcess, Hypervisor } from './hypervisor.ts'
import type { Presence } from './presence.ts'

export interface Host<P extends GuestProcess = QemuProcess> extends HostFacts {
  hypervisor: Hypervisor<P>
}

/** Whatever the guests are processes of. */
export interface HostFacts {
  name: string
  /** Unique name of this host, for the arbiter. */
  claimant: string
  arbiter: Arbiter
  health: ArbiterHealth
  /** The arbiter was named by the operator: a peer that asks another one is refused. */
  arbiterChosen: boolean
  /** Where a peer that is reached at this address reaches this host. */
  addressFor: (peer: Address) => string
  transport: Pick<Transport, 'connect' | 'credentials'>
  places: HostPlaces
  events: EventLog
  faults: Faults
  density: HostDensity
  /** What it sees of other supervisors of its machine, and they of it. */
  presence: Presence
  clock: Clock
  /** How much a pause can take up. */
  pauseLimits: PauseLimits
  /** Undefined: it is not known what hot pages cost here, and all are armed. */
  hotPageCosts: () => HotPageCosts | undefined
}

/**
 * The host's name, and what keeps two hosts of one name apart; the same for all that serve this state directory.
 * @throws SubpageError STATE_DAMAGED, NO_SPACE
 */
export function claimantOf(stateDirectory: string, hostName: string): string {
  const file = join(stateDirectory, 'host-id')
  if (!existsSync(file)) withRoom(file, () => makeHostId(stateDirectory, file))
  const id = readFileSync(file, 'utf8').trim()
  // What is left of one that was cut short may be the same on every host.
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id))
    throw new SubpageError(
      'STATE_DAMAGED',
      `${file}, by which arbiter and other hosts know this one, is empty or cut short. Put a copy of it back; if there is none, delete it, and the agent makes a new one`,
    )
  return `${hostName}-${id.slice(0, 8)}`
}

/** Its name is there when it is whole on the disk; and what an arbiter is told under it is never told under another. */
function makeHostId(stateDirectory: string, file: string): void {
  const next = `${file}.next`
  writeFileSync(next, `${randomUUID()}\n`, { mode: 0o600, flush: true })
  renameSync(next, file)
  const directory = openSync(stateDirectory, 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}
