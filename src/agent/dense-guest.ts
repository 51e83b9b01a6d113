/** One guest of this host whose memory is held densely: what a pass of the clock does to it. */
import type { Pass } from '../density/clock.ts'
import { choosePass } from '../density/clock.ts'
import { rangesOf, runsOf } from '../density/keeper.ts'
import type { KeeperClient } from '../density/keeper-client.ts'
import type { KeptGuest } from '../density/keeper-protocol.ts'
import { SubpageError } from '../errors.ts'
import { pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import type { DensitySettings } from '../qemu/guest-files.ts'
import type { WatchListener } from './memory-watch.ts'
import type { RunningGuest } from './running-guest.ts'

/** A pause that a guest's clients do not notice. */
const pauseUsMax = 10_000
/** A pause has a cost of its own: fewer pages than this are not worth one. */
const pausePagesMin = 256
/** What a pause trims: that is quick. */
const trimPages = 1 << 15
/** Until it is measured. */
const pageUsAtStart = 10
/** Of all its pages, at most so many in one pass: others have their turn. */
const passShare = 1 / 8
const passPagesMin = 256

export class DenseGuest {
  readonly guest: RunningGuest
  #pageUs = pageUsAtStart
  #unwatch: (() => void) | undefined
  #trimmed = false
  /** It is being let go of. */
  #leaving = false
  /** Of the latest pause. */
  pauseUs: number | undefined
  /** Settles when no pass is under way. */
  #passing: Promise<unknown> = Promise.resolve()

  constructor(guest: RunningGuest) {
    this.guest = guest
  }

  get id(): string {
    return this.guest.guest.qemu.record.id
  }

  get settings(): DensitySettings | undefined {
    return this.guest.guest.qemu.record.density
  }

  get kept(): KeptGuest {
    const { record, files, ram } = this.guest.guest.qemu
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
    this.#unwatch ??= this.guest.memoryWatch.listen(
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

  /** One pass over this guest. Returns the milliseconds that it computed, or kept the guest, if that is longer. @throws SubpageError KEEPER_FAILED, PAUSE_BROKEN, NO_SPACE */
  pass(keeper: KeeperClient): Promise<number> {
    const pass = this.#pass(keeper)
    // Whoever asked for it hears of its failure.
    this.#passing = pass.catch(() => undefined)
    return pass
  }

  async #pass(keeper: KeeperClient): Promise<number> {
    const { settings } = this
    const { hotMap } = this.guest.memoryWatch
    if (!settings || !hotMap || !this.#unwatch) return 0
    await this.#trim(keeper)
    const resident = rangesOf((await keeper.ask('resident', { id: this.id })).runs)
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
        const [part, later] = rest.take(Math.max(pausePagesMin, Math.floor(pauseUsMax / this.#pageUs)))
        cpuMs += await this.#evict(keeper, part, { onlySmaller, trim: false })
        rest = later
      }
    return cpuMs
  }

  /** Once: its RAM file has all its room reserved, which pages that it has never written do not need any more. */
  async #trim(keeper: KeeperClient): Promise<void> {
    if (this.#trimmed) return
    const all = PageRanges.all(this.guest.guest.ram.pages)
    for (let [part, rest] = all.take(trimPages); part.pageCount > 0; [part, rest] = rest.take(trimPages))
      await this.#evict(keeper, part, { onlySmaller: true, trim: true })
    this.#trimmed = true
  }

  /** In a pause of its own. */
  async #evict(
    keeper: KeeperClient,
    pages: PageRanges,
    how: { onlySmaller: boolean; trim: boolean },
  ): Promise<number> {
    let cpuMs = 0
    let failed = 0
    this.pauseUs = await this.guest.guest.standStill(async (held) => {
      const {
        held: then,
        tally,
        ...cost
      } = await keeper.ask('evict', {
        id: this.id,
        held: String(held),
        runs: runsOf(pages),
        ...how,
      })
      cpuMs = cost.cpuMs
      failed = tally.failed
      return BigInt(then)
    })
    // Slowly, so that one pause that was disturbed does not count for much.
    if (!how.trim) this.#pageUs += ((1000 * cpuMs) / pages.pageCount - this.#pageUs) / 8
    if (failed > 0)
      throw new SubpageError(
        'NO_SPACE',
        `no room to hold the memory of ${this.guest.name} in; its pages stay`,
      )
    // The budget bounds what the guest stands still, too.
    return Math.max(cpuMs, this.pauseUs / 1000)
  }
}
