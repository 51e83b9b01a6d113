/** Who holds a guest of this host, in which generation: what is decided of that is written down in its record. */
import type { GuestRecord } from '../../qemu/guest-record.ts'
import { Succession } from '../../replication/succession.ts'
import type { HostFacts } from './host.ts'
import type { GuestProcess } from './hypervisor.ts'

export function successionOf(record: GuestRecord, host: HostFacts, qemu?: GuestProcess): Succession {
  return new Succession({
    guest: record.id,
    claimant: host.claimant,
    generation: record.generation,
    arbiter: host.arbiter,
    arbitrated: record.arbitrated,
    ...(record.peer !== undefined && { peer: record.peer }),
    save: async (standing) => await qemu?.writeDown(standing),
  })
}
