/**
 * Watches which memory a guest of this host uses, while somebody listens. There is one watch for a guest, shared by all who
 * ask: two that made it forget accesses at their own times would spoil each other's counts.
 */
import { isDeepStrictEqual } from 'node:util'
import { type Static, Type } from '#typebox'
import { asSubpageError, type SubpageError } from '../../errors.ts'
import type { QemuGuest } from '../../qemu/qemu-guest.ts'
import { DistEstimator } from '../../workingset/dist.ts'
import type { HotMap } from '../../workingset/hot-map.ts'
import { LiveWatch, liveSettings } from '../../workingset/live.ts'
import { type Sample, sampleOf } from '../../workingset/sample.ts'
import { type WorkingSets, workingSetColumns } from '../memory-status.ts'
import { PointRing } from '../point-ring.ts'

export const WatchQuery = Type.Object(
  {
    intervalMs: Type.Number({ minimum: 50, maximum: 3_600_000, default: liveSettings.intervalMs }),
    subIntervals: Type.Integer({ minimum: 1, maximum: 64, default: liveSettings.subIntervals }),
    budget: Type.Number({ minimum: 0.0001, maximum: 1, default: liveSettings.budget }),
  },
  { additionalProperties: false },
)
export type WatchQuery = Static<typeof WatchQuery>

export interface WatchListener {
  sample(sample: Sample): void
  failed(error: SubpageError): void
}

const everyMs = 5_000
/** As of a standby, whose guest uses its memory elsewhere. */
export const neverWatched: WorkingSets = {
  ...{ watched: false, latest: null },
  ...{ columns: [...workingSetColumns], points: [] },
}

export class MemoryWatch {
  readonly #guest: Pick<QemuGuest, 'watchAccesses'>
  /** With what each has asked for, whoever came first at the front. */
  readonly #listeners = new Map<WatchListener, WatchQuery>()
  #watch: LiveWatch | undefined
  /** Resolves when the one before touches the guest no more. */
  #former: Promise<void> = Promise.resolve()
  #latest: Sample | null = null
  /** Made by the first watch: most guests have none. */
  #history: PointRing | undefined

  constructor(guest: Pick<QemuGuest, 'watchAccesses'>) {
    this.#guest = guest
  }

  /** Of the watch under way; undefined while nobody listens. */
  get hotMap(): HotMap | undefined {
    return this.#watch?.hotMap
  }

  get workingSets(): WorkingSets {
    return {
      watched: this.#watch !== undefined,
      latest: this.#latest,
      columns: [...workingSetColumns],
      points: this.#history?.points() ?? [],
    }
  }

  /**
   * Hears every interval from now on. The settings are those of whoever has listened longest; when they leave, the next one's.
   * @returns ends it
   * @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE
   */
  listen(listener: WatchListener, settings: WatchQuery): () => void {
    this.#watch ??= this.#begin(settings)
    this.#listeners.set(listener, settings)
    return () => {
      this.#listeners.delete(listener)
      const [next] = this.#listeners.values()
      if (!next) this.#end()
      else if (!isDeepStrictEqual(next, this.#watch?.settings)) this.#beginAnew(next)
    }
  }

  /** What was seen so far stays known. */
  #beginAnew(settings: WatchQuery): void {
    const former = this.#watch
    this.#end()
    try {
      this.#watch = this.#begin(settings, former?.hotMap)
    } catch (error) {
      this.#failed(asSubpageError(error))
    }
  }

  #begin(settings: WatchQuery, hotMap?: HotMap): LiveWatch {
    const watch = new LiveWatch(this.#guest.watchAccesses(), settings, { hotMap, after: this.#former })
    const estimator = new DistEstimator(watch.hotMap.pages)
    watch.on('observation', (observation) => {
      estimator.add(observation)
      if (!observation.endsInterval) return
      const sample = sampleOf(observation, estimator, {
        hotMap: watch.hotMap,
        costShare: watch.cost.share,
        atMs: Date.now(), // the wall clock, for people
      })
      if (!sample) return
      this.#note(sample, observation.endMs)
      for (const listener of this.#listeners.keys()) listener.sample(sample)
    })
    watch.on('failed', (error) => {
      if (this.#watch === watch) this.#failed(error)
    })
    return watch.start()
  }

  #failed(error: SubpageError): void {
    this.#watch = undefined
    this.#latest = null
    const listeners = [...this.#listeners.keys()]
    this.#listeners.clear()
    for (const listener of listeners) listener.failed(error)
  }

  #note(sample: Sample, endMs: number): void {
    this.#latest = sample
    this.#history ??= new PointRing(workingSetColumns.length, everyMs)
    const { atMs, estimate, written } = sample
    if (this.#history.wants(endMs))
      this.#history.add(endMs, [atMs, estimate.pages, estimate.plusMinus, written?.pages ?? null])
  }

  #end(): void {
    const watch = this.#watch
    this.#watch = undefined
    this.#latest = null
    // It tells of its failures by itself.
    if (watch) this.#former = watch.stop()
  }
}
