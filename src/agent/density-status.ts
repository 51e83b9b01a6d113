/** What the agent says of dense memory: where the pages of each guest are, and what that saves. */
import type { PagerStats } from '../density/pager.ts'
import type { PageSplit, StoreTotals } from '../density/store.ts'
import { pageBytes } from '../memory/page.ts'
import type { DensitySettings } from '../qemu/guest-record.ts'
import type { HostDensity } from './supervisor/host-density.ts'
import type { HostedGuest } from './supervisor/hosted-guest.ts'

export interface GuestDensity {
  name: string
  /** It waits here to take over. */
  standby: boolean
  settings: DensitySettings
  /** Pages, by where they are; `storeBytes` is this guest's part of the store. */
  split: PageSplit
  /** Of its memory that holds anything: what neither RAM nor the store take for it. */
  savedBytes: number
  savedShare: number
  pager: PagerStats | null
}

export interface HostDensityStatus {
  guests: GuestDensity[]
  /** Null while no guest is dense. */
  store: StoreTotals | null
  keeper: { pid: number } | null
  /** Why the latest pass did not do what it wanted; empty when it did. */
  error: string
}

/** Of the one guest, if it is dense. */
export async function densityStatus(
  density: HostDensity,
  guest: HostedGuest | undefined,
): Promise<HostDensityStatus> {
  const status = await density.status()
  if (!status) return { guests: [], store: null, keeper: null, error: '' }
  const rest = { store: status.totals, keeper: { pid: status.pid }, error: status.error }
  if (guest?.kind !== 'running' && guest?.kind !== 'standby') return { guests: [], ...rest }
  const { id, density: settings } = guest.qemu.record
  const kept = status.guests.find((one) => one.id === id)
  if (!kept || !settings) return { guests: [], ...rest }
  const { split, pager } = kept
  const held = (split.pages - split.holes) * pageBytes
  // The books of the store take memory too, and so does its part that is shared.
  const savedBytes = held - split.resident * pageBytes - split.storeBytes
  const dense: GuestDensity = {
    name: guest.name,
    standby: guest.kind === 'standby',
    settings,
    split,
    savedBytes,
    savedShare: held === 0 ? 0 : savedBytes / held,
    pager,
  }
  return { guests: [dense], ...rest }
}

/** Of a host: what the supervisors of its guests say, together. */
export function mergeDensity(parts: HostDensityStatus[]): HostDensityStatus {
  const errors = parts.map(({ error }) => error).filter((error) => error !== '')
  return {
    guests: parts.flatMap(({ guests }) => guests),
    store: parts.find(({ store }) => store !== null)?.store ?? null,
    keeper: parts.find(({ keeper }) => keeper !== null)?.keeper ?? null,
    error: [...new Set(errors)].join('; '),
  }
}
