/** What an agent, or a supervisor, says of the host and of itself. */
import { addon } from '../memory/native.ts'
import { release } from '../release.ts'
import type { Arbiter } from '../replication/arbiter.ts'
import type { ArbiterHealth } from './arbiter-health.ts'
import type { Credentials } from './credentials.ts'
import { ownMemory } from './own-memory.ts'
import type { HostStatus } from './status.ts'

interface HostFigures {
  host: string
  address: string
  credentials: Credentials | undefined
  arbiter: Pick<Arbiter, 'description'>
  health: Pick<ArbiterHealth, 'trouble'>
  shadowBytes: number
}

export function hostStatus(of: HostFigures): Omit<HostStatus, 'guests'> {
  const { host, address, credentials, arbiter, health, shadowBytes } = of
  return {
    ...{ host, release, pid: process.pid, address },
    certificate: credentials ? { name: credentials.name, validTo: credentials.validTo.toISOString() } : null,
    arbiter: { description: arbiter.description, trouble: health.trouble ?? null },
    ownBytes: ownMemory(shadowBytes),
    clock: {
      at: Date.now(), // The wall clock: whoever asks compares it with that of another host.
      synchronized: addon.clockSynchronized(),
    },
  }
}
