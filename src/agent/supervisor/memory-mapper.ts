/** The map of a guest's memory, made while somebody looks: for all of them together once a second at most, and never in one go. */
import { setImmediate as breathe } from 'node:timers/promises'
import { rangesOf } from '../../density/keeper.ts'
import { cellPagesOf, type MemorySources, mapMemory, memoryKinds } from '../../density/memory-map.ts'
import type { MemoryMap } from '../memory-status.ts'
import type { Host } from './host.ts'
import type { RunningGuest } from './running-guest.ts'
import type { StandbyGuest } from './standby-guest.ts'

const freshMs = 1_000
/** Where the guest has no settings of density: those that it would get. */
const defaultTimes = { recentMs: 2_000, coldMs: 10_000 }

type Mapped = RunningGuest | StandbyGuest

export class MemoryMapper {
  readonly #host: Host
  #latest: { guest: Mapped; atMs: number; map: Promise<MemoryMap> } | undefined

  constructor(host: Host) {
    this.#host = host
  }

  /** @throws SubpageError KEEPER_FAILED */
  of(guest: Mapped): Promise<MemoryMap> {
    const now = performance.now()
    const latest = this.#latest
    if (latest?.guest === guest && now - latest.atMs < freshMs) return latest.map
    const map = this.#make(guest)
    this.#latest = { guest, atMs: now, map }
    return map
  }

  async #make(guest: Mapped): Promise<MemoryMap> {
    const { record, ram } = guest.qemu
    const { pages } = ram
    const { recentMs, coldMs } = record.density ?? defaultTimes
    const hot = guest.kind === 'running' ? guest.primary?.tracking.hot : undefined
    const stored = record.density ? await this.#stored(record.id, pages) : undefined
    const { hotMap } = guest
    const sources: MemorySources = {
      ...{ pages, recentMs, coldMs, hotMap, stored },
      changes: hot && ((page) => hot.changes(page)),
    }
    return {
      ...{ pages, cellPages: cellPagesOf(pages), kinds: [...memoryKinds] },
      cells: await mapMemory(sources, breathe),
      ...{ dense: stored !== undefined, watched: hotMap !== undefined, recentMs, coldMs },
    }
  }

  async #stored(id: string, pages: number): Promise<MemorySources['stored']> {
    const keeper = await this.#host.density.keeper()
    const { held, resident } = await keeper.ask('map', { id, cellPages: cellPagesOf(pages) })
    return { held, resident: rangesOf(resident) }
  }
}
