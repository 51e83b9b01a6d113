/** What sends over a new connection: deltas, and writes to disks through the same reducer. */
import type { Connection } from './connection.ts'
import { DeltaSender } from './delta-sender.ts'
import { DiskSender } from './disk-sender.ts'
import type { DiskTraffic } from './disk-traffic.ts'
import type { Senders } from './primary-session.ts'
import type { Protection } from './protection.ts'
import type { Sending } from './sending.ts'

/** @param traffic of each disk; counted on */
export function sendersOf(
  connection: Connection,
  { guest, shadow, clock, lineages }: Protection,
  sending: Sending = {},
  traffic: DiskTraffic[],
): Senders {
  const { disks, ram } = guest
  const deltas = new DeltaSender(connection, ram.pages, shadow.copy, sending, {
    disks: disks.sizes.length > 0,
  })
  return { deltas, disks: new DiskSender(disks, connection, deltas, clock, traffic, lineages) }
}
