/** One guest of this host whose memory is held densely, running or waiting: what a pass of the clock does to it. */
import type { Pass } from '../../density/clock.ts'
import { choosePass } from '../../density/clock.ts'
import { rangesOf, runsOf } from '../../density/keeper.ts'
import type { KeeperClient } from '../../density/keeper-client.ts'
import type { KeptGuest } from '../../density/keeper-protocol.ts'
import { SubpageError } from '../../errors.ts'
import { pageBytes } from '../../memory/page.ts'
import { PageRanges } from '../../memory/page-ranges.ts'
import type { DensitySettings } from '../../qemu/guest-record.ts'
import type { HotMap } from '../../workingset/hot-map.ts'
import type { GuestProcess } from './hypervisor.ts'
import type { WatchListener, WatchQuery } from './memory-watch.ts'

/**
 * Moves those of the pages that nobody needs.
 * @param held the pause lease that the guest stands still under, null for one that does not run
 * @returns what stands for the pause then
 */
export type MovePages = (pages: PageRanges, held: bigint | null) => Promise<bigint | null>

/** Whose memory it is. */
export interface DenseOwner {
  readonly name: string
  readonly qemu: Pick<GuestProcess, 'files' | 'ram' | 'hang' | 'record' | 'updateRecord' | 'replaceRecord'>
  /** Its pages leave in the pauses of its checkpoints, which are to stay short. */
  readonly protecting: boolean
  /** Why its memory cannot be held densely now. */
  readonly unmovable: string | undefined
  /** Undefined while nobody watches. */
  readonly hotMap: HotMap | undefined
  /** @returns ends it. @throws SubpageError TRACKER_UNAVAILABLE, GUEST_DIED */
  watchMemory(listener: WatchListener, settings: WatchQuery): () => void
  /** Before pages are chosen: what is in its RAM file and was written, as the keeper says. */
  seen(resident: PageRanges): void
  /**
   * Nobody writes to those of the pages that `work` gets, for as long as it takes.
   * @returns the milliseconds that the guest stood still for it; undefined when it cannot be now: `work` was not called
   * @throws SubpageError PAUSE_BROKEN, and what `work` throws
   */
  whileStill(pages: PageRanges, work: MovePages): Promise<number | undefined>
  /** All pages are brought back by `work`, and none leaves any more. */
  becomeWhole(work: () => Promise<void>): Promise<void>
}

/** A pause that a guest's clients do not notice. */
const pauseUsMax = 10_000
/** A pause has a cost of its own: fewer pages than this are not worth one. */
const pausePagesMin = 256
/** However quick they have been: those that come next may be slower. */
const pausePagesMax = 1024
/** Of a checkpoint's pause, which is there in any case, and which more wait for. */
const checkpointUsMax = 2_000
const checkpointPagesMin = 32
/** What a pause trims: that is quick. */
const trimPages = 1 << 15
const checkpointTrimPages = 1 << 12
/** Until it is measured. */
const pageUsAtStart = 10
/** Of all its pages, at most so many in one pass: others have their turn. */
const passShare = 1 / 8
const passPagesMin = 256

export class DenseGuest {
  readonly owner: DenseOwner
  /** Of a former owner: when the pages were used before the guest ran here. */
  readonly formerHotMap: HotMap | undefined
  #pageUs = pageUsAtStart
  #unwatch: (() => void) | undefined
  #trimmed = false
  /** It is being let go of. */
  #leaving = false
  #busy = false
  /** Settles when no pass is under way. */
  #passing: Promise<unknown> = Promise.resolve()

  constructor(owner: DenseOwner, formerHotMap?: HotMap) {
    this.owner = owner
    this.formerHotMap = formerHotMap
  }

  get id(): string {
    return this.owner.qemu.record.id
  }

  get settings(): DensitySettings | undefined {
    return this.owner.qemu.record.density
  }

  get kept(): KeptGuest {
    const { record, files, ram } = this.owner.qemu
    return {
      id: record.id,
      name: record.name,
      ramPath: files.ram,
      ramPages: ram.pages,
      process: record.process,
      shimStatusPath: files.shimStatus,
      leasePath: files.lease,
      ...(record.density?.trustDomain === undefined ? {} : { trustDomain: record.density.trustDomain }),
    }
  }

  /** Watches its memory from now on, if nobody does yet. @throws SubpageError TRACKER_UNAVAILABLE, GUEST_DIED */
  watch(listener: WatchListener): void {
    const intervalMs = Math.min(1_000, Math.max(50, (this.settings?.recentMs ?? 1_000) / 2))
    if (this.#leaving) return
    const failed = (error: SubpageError) => {
      this.#unwatch = undefined
      listener.failed(error)
    }
    this.#unwatch ??= this.owner.watchMemory(
      { ...listener, failed },
      { intervalMs, subIntervals: 1, budget: this.settings?.budget ?? 0 },
    )
  }

  /** From now on nothing leaves its memory. Resolves when nothing touches the guest any more. */
  async leave(): Promise<void> {
    this.#leaving = true
    this.#unwatch?.()
    this.#unwatch = undefined
    await this.#passing
  }

  /** It could not be let go of. */
  stay(): void {
    this.#leaving = false
  }

  /** Its memory in parts of so many pages, in the order in which to bring it back: by classes of the time unused, each twice the last. */
  *hottestFirst(partPages: number): Generator<PageRanges> {
    const map = this.formerHotMap
    const classes: number[][] = []
    for (let page = 0; map && page < map.pages; page++) {
      const unused = 32 - Math.clz32(map.idleMs(page))
      classes[unused] ??= []
      classes[unused].push(page)
    }
    for (const pages of classes)
      for (let at = 0; pages && at < pages.length; at += partPages)
        yield PageRanges.of(pages.slice(at, at + partPages).map((page) => [page, 1] as const))
  }

  /** One pass over this guest. Returns the milliseconds that it computed, or kept the guest, if that is longer. @throws SubpageError KEEPER_FAILED, PAUSE_BROKEN, NO_SPACE */
  async pass(keeper: KeeperClient): Promise<number> {
    const { hang } = this.owner.qemu
    // One that began before QEMU hung goes on with it.
    if (this.#busy) return 0
    hang.refuseIfHung()
    this.#busy = true
    const pass = this.#pass(keeper).finally(() => {
      this.#busy = false
    })
    // Whoever asked for it hears of its failure; whoever lets go of the guest does not wait for a QEMU that hangs.
    this.#passing = hang.during(pass).catch(() => undefined)
    return await pass
  }

  async #pass(keeper: KeeperClient): Promise<number> {
    const { settings } = this
    const { hotMap } = this.owner
    if (!settings || !hotMap || !this.#unwatch) return 0
    await this.#trim(keeper)
    const resident = rangesOf((await keeper.ask('resident', { id: this.id })).runs)
    this.owner.seen(resident)
    const targetPages =
      settings.targetBytes === undefined ? undefined : Math.ceil(settings.targetBytes / pageBytes)
    const most = Math.max(passPagesMin, Math.ceil(hotMap.pages * passShare))
    const chosen = choosePass(hotMap, settings, resident, resident.pageCount, targetPages, most)
    let cpuMs = 0
    for (const [pages, onlySmaller] of [
      [chosen.cold, false],
      [chosen.idle, true],
    ] as [Pass['cold'], boolean][])
      for (let rest = pages; rest.pageCount > 0 && this.#unwatch; ) {
        const [part, later] = rest.take(this.#pausePages)
        const took = await this.#evict(keeper, part, { onlySmaller, trim: false })
        if (took === undefined) return cpuMs
        cpuMs += took
        rest = later
      }
    return cpuMs
  }

  get #pausePages(): number {
    const { protecting } = this.owner
    const [us, pagesMin] = protecting ? [checkpointUsMax, checkpointPagesMin] : [pauseUsMax, pausePagesMin]
    return Math.min(pausePagesMax, Math.max(pagesMin, Math.floor(us / this.#pageUs)))
  }

  /** Once: its RAM file has all its room reserved, which pages that it has never written do not need any more. */
  async #trim(keeper: KeeperClient): Promise<void> {
    if (this.#trimmed) return
    const all = PageRanges.all(this.owner.qemu.ram.pages)
    const most = this.owner.protecting ? checkpointTrimPages : trimPages
    for (let [part, rest] = all.take(most); part.pageCount > 0; [part, rest] = rest.take(most))
      if ((await this.#evict(keeper, part, { onlySmaller: true, trim: true })) === undefined) return
    this.#trimmed = true
  }

  /** If it runs, in a pause. Returns the milliseconds that it computed, or kept the guest; undefined when it could not be. */
  async #evict(
    keeper: KeeperClient,
    pages: PageRanges,
    how: { onlySmaller: boolean; trim: boolean },
  ): Promise<number | undefined> {
    let [cpuMs, failed, moved] = [0, 0, 0]
    const pauseMs = await this.owner.whileStill(pages, async (free, held) => {
      const {
        held: then,
        tally,
        ...cost
      } = await keeper.ask('evict', {
        id: this.id,
        held: held === null ? null : String(held),
        runs: runsOf(free),
        ...how,
      })
      cpuMs = cost.cpuMs
      moved = free.pageCount
      failed = tally.failed
      return then === null ? null : BigInt(then)
    })
    if (pauseMs === undefined) return undefined
    // Slowly, so that one pause that was disturbed does not count for much.
    if (!how.trim && moved > 0) this.#pageUs += ((1000 * cpuMs) / moved - this.#pageUs) / 8
    if (failed > 0)
      throw new SubpageError(
        'NO_SPACE',
        `no room to hold the memory of ${this.owner.name} in; its pages stay`,
      )
    // The budget bounds what the guest stands still, too.
    return Math.max(cpuMs, pauseMs)
  }
}
