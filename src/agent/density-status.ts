/** What the agent says of dense memory: where the pages of each guest are, and what that saves. */
import type { PagerStats } from '../density/pager.ts'
import type { PageSplit, StoreTotals } from '../density/store.ts'
import { pageBytes } from '../memory/page.ts'
import type { DensitySettings } from '../qemu/guest-files.ts'
import type { Agent } from './agent.ts'

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

export async function densityStatus(agent: Agent): Promise<HostDensityStatus> {
  const status = await agent.host.density.status()
  if (!status) return { guests: [], store: null, keeper: null, error: '' }
  const guests: GuestDensity[] = []
  for (const hosted of agent.guests.values()) {
    if (hosted.kind === 'ended' || hosted.kind === 'unanswered') continue
    const { id, density } = hosted.qemu.record
    const kept = status.guests.find((guest) => guest.id === id)
    if (!kept || !density) continue
    const { split, pager } = kept
    const held = (split.pages - split.holes) * pageBytes
    // The books of the store take memory too, and so does its part that is shared.
    const savedBytes = held - split.resident * pageBytes - split.storeBytes
    guests.push({
      name: hosted.name,
      standby: hosted.kind === 'standby',
      settings: density,
      split,
      savedBytes,
      savedShare: held === 0 ? 0 : savedBytes / held,
      pager,
    })
  }
  return { guests, store: status.totals, keeper: { pid: status.pid }, error: status.error }
}

export async function guestDensity(agent: Agent, name: string): Promise<GuestDensity | undefined> {
  return (await densityStatus(agent)).guests.find((guest) => guest.name === name)
}
