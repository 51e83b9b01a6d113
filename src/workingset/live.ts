/**
 * Watches a running guest: interval after interval it has a part of the memory forgotten (all of it, when that is cheap
 * enough), looks what was accessed since, and tells whoever listens.
 *
 * What it costs the guest is bounded. A page that is used again costs a minor fault, whose time is measured on this host;
 * with that and the share of pages found in use it watches so many pages in each interval that faults and forgetting
 * together stay below `budget` of the time.
 */
import { EventEmitter } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { asSubpageError, type SubpageError } from '../errors.ts'
import type { PageRanges } from '../memory/page-ranges.ts'
import type { AccessTracker, FaultCosts } from '../tracking/accesses.ts'
import { HotMap } from './hot-map.ts'
import type { Observation } from './observation.ts'
import { type Choice, type Plan, RotatingPlan } from './plan.ts'

export interface LiveSettings {
  intervalMs: number
  /** How many times an interval looks and forgets: what τ is compared with. */
  subIntervals: number
  /** Share of the guest's time that watching may cost. */
  budget: number
}

/** docs/working-sets.md has the evidence. */
export const liveSettings: LiveSettings = { intervalMs: 1000, subIntervals: 1, budget: 0.01 }

export interface LiveCost {
  /** Of the guest's time, in nanoseconds: minor faults that it had because of us, and forgetting. */
  spentNs: number
  /** Of the time since the start. */
  share: number
}

interface LiveEvents {
  observation: [Observation]
  failed: [SubpageError]
}

export interface LiveSource {
  accesses: AccessTracker
  costs: FaultCosts
  /** From now on writes to these pages are of interest. True when each first one costs the guest a fault. */
  beginWrites: (pages: PageRanges) => boolean
  /** Pages written since then, among these or others too; undefined when nobody knows. */
  endWrites: (pages: PageRanges) => PageRanges | undefined
}

/** Room for a working set that grows: the estimate of the last interval may be too small for the next. */
const growth = 1.25
const usedShareMin = 0.02
const groupsMax = 60_000

class Later {
  resolve!: () => void
  readonly promise = new Promise<void>((resolve) => {
    this.resolve = resolve
  })
}

class Rest {
  readonly begun = new Later()
  readonly over = new Later()
}

/** Instead of new ones. */
export interface LiveParts {
  plan?: Plan | undefined
  /** Of a watch of the same guest that has ended: this one goes on with it. */
  hotMap?: HotMap | undefined
  /** It begins when this is settled: nobody else forgets accesses of the guest then. */
  after?: Promise<unknown>
}

export class LiveWatch extends EventEmitter<LiveEvents> {
  readonly settings: LiveSettings
  readonly hotMap: HotMap
  readonly #source: LiveSource
  readonly #plan: Plan
  readonly #after: Promise<unknown> | undefined
  readonly #stopping = new AbortController()
  /** Set while it is to rest: what ends that, and what says that it has begun. */
  #rest: Rest | undefined
  readonly #startedMs = performance.now()
  #spentNs = 0
  /** First writes to watched pages cost the guest a fault, too. */
  #armed = false
  /** Of the pages that were forgotten, those that were used again; all, before the first look. */
  #usedShare = 1
  /** Pages that came into use in the latest interval, forgotten before it. */
  #newlyUsed = 0
  /** What the use of a page costs, reads and writes as they came in the latest interval. */
  #faultNs: number
  /** Of one page, as measured. */
  #forgetPageNs = 100
  #finished: Promise<void> | undefined

  constructor(source: LiveSource, settings: LiveSettings = liveSettings, given: LiveParts = {}) {
    super()
    this.#source = source
    this.settings = settings
    this.#after = given.after
    this.#plan = given.plan ?? new RotatingPlan(source.accesses.pages)
    this.#faultNs = source.costs.useNs + source.costs.writeNs
    this.hotMap = given.hotMap ?? new HotMap(source.accesses.pages, performance.now())
  }

  start(): this {
    this.#finished ??= this.#run()
    return this
  }

  get cost(): LiveCost {
    const elapsedNs = (performance.now() - this.#startedMs) * 1e6
    return {
      spentNs: this.#spentNs,
      share: this.#spentNs / Math.max(elapsedNs, 1),
    }
  }

  /**
   * Leaves the guest alone until `goOn`. What it uses meanwhile counts as used. Resolves once the interval under way has
   * ended, or the watch has.
   */
  async rest(): Promise<void> {
    this.#rest ??= new Rest()
    await Promise.race([this.#rest.begun.promise, this.#finished])
  }

  goOn(): void {
    this.#rest?.over.resolve()
    this.#rest = undefined
  }

  /** Resolves when nothing of it touches the guest any more. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    this.goOn()
    await this.#finished
  }

  async #run(): Promise<void> {
    try {
      await this.#after
      for (;;) {
        this.#rest?.begun.resolve()
        await this.#rest?.over.promise
        if (this.#stopping.signal.aborted) break
        await this.#interval()
      }
    } catch (error) {
      if (!this.#stopping.signal.aborted) this.emit('failed', asSubpageError(error))
    } finally {
      this.#source.accesses.close()
    }
  }

  async #interval(): Promise<void> {
    const { subIntervals, intervalMs } = this.settings
    let present = this.#source.accesses.accessed()
    const choice = this.#plan.next(this.#groups(present), present)
    for (let part = 1; part <= subIntervals; part++) {
      const startMs = performance.now()
      this.#armed = this.#source.beginWrites(choice.watched)
      await this.#forget(present.intersect(choice.watched))
      // The window is the time after forgetting; what that took is part of the interval.
      const forgottenMs = performance.now()
      await delay(Math.max(1, startMs + intervalMs / subIntervals - forgottenMs), undefined, {
        signal: this.#stopping.signal,
      })
      present = this.#look(choice, forgottenMs, part === subIntervals)
    }
  }

  async #forget(pages: PageRanges): Promise<void> {
    if (pages.pageCount === 0) return
    const { ns, pages: count } = await this.#source.accesses.forget(pages)
    this.#spentNs += ns
    this.#forgetPageNs = ns / Math.max(count, 1)
  }

  #look({ watched, sampled }: Choice, startMs: number, endsInterval: boolean): PageRanges {
    const present = this.#source.accesses.accessed()
    const endMs = performance.now()
    const accessed = present.intersect(watched)
    const written = this.#source.endWrites(watched)?.intersect(watched)
    const { useNs, writeNs } = this.#source.costs
    const faultsNs = accessed.pageCount * useNs + (this.#armed && written ? written.pageCount * writeNs : 0)
    this.#spentNs += faultsNs
    if (accessed.pageCount > 0) this.#faultNs = faultsNs / accessed.pageCount
    const forgotten = sampled?.part ?? watched
    const again = accessed.intersect(forgotten).pageCount
    this.#usedShare = again / Math.max(forgotten.pageCount, 1)
    this.#newlyUsed = accessed.pageCount - again
    const observation = {
      ...{ startMs, endMs, watched, accessed, written, present, endsInterval },
      ...(sampled && { sampled }),
    }
    this.hotMap.note(observation)
    this.emit('observation', observation)
    return present
  }

  /** Into how many parts memory must be divided so that forgetting one of them fits the budget. */
  #groups(present: PageRanges): number {
    const { budget, intervalMs, subIntervals } = this.settings
    const faultNs = this.#faultNs
    const pageNs = Math.min(1, this.#usedShare * growth + usedShareMin) * faultNs + this.#forgetPageNs
    const shareNs = (budget * intervalMs * 1e6) / subIntervals
    // What was too much before is made up for, within limits.
    const { share } = this.cost
    const budgetNs = shareNs * Math.min(1, Math.max(0.5, 2 - share / budget))
    // Pages that come into use cost a fault whatever is chosen; half of the budget is not theirs.
    const leftNs = Math.max(budgetNs / 2, budgetNs - this.#newlyUsed * faultNs)
    return Math.min(groupsMax, Math.max(1, Math.ceil((present.pageCount * pageNs) / leftNs)))
  }
}
