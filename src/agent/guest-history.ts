/**
 * The last hour of each guest, for the dashboard's plots: a point each five seconds, in a ring of fixed size. It is made of the answers
 * that the agent gets anyway while it looks after its supervisors, and is gone with the agent.
 */
import { type Durations, durationBoundsUs } from '../replication/durations.ts'
import { type Point, PointRing } from './point-ring.ts'
import type { GuestStatus } from './status.ts'

/** What a point has, in this order; null where there was none. Rates are per second. */
export const pointColumns = [
  'atMs', // milliseconds since 1970
  'pauseMs', // mean of the interval
  'pauseMsMax', // upper bound of the bucket that holds the 99th percentile
  'commitMs',
  'lagMs',
  'dirtyPages',
  'changedBytes',
  'sentBytes',
  'dictionaryBytes',
  'sharedBytes',
  'diskBytes',
] as const
const everyMs = 5_000
const guestsMax = 1_000

interface Seen {
  status: GuestStatus
  atMs: number
}

/** Makes points of one status after the other. */
export class Sampler {
  readonly #before = new Map<string, Seen>()

  /** @param atMs monotonic @param wallMs for people @returns undefined while there is nothing to compare with */
  sample(status: GuestStatus, atMs: number, wallMs: number): Point | undefined {
    const before = this.#before.get(status.name)
    this.#before.set(status.name, { status, atMs })
    return before && pointOf(before, { status, atMs }, wallMs)
  }

  forget(name: string): void {
    this.#before.delete(name)
  }
}

export class GuestHistory {
  readonly #sampler = new Sampler()
  readonly #rings = new Map<string, PointRing>()

  /** @param wallMs the wall clock, for the axis that people read */
  note(status: GuestStatus, atMs = performance.now(), wallMs = Date.now() /* the wall clock */): void {
    const ring = this.#rings.get(status.name) ?? new PointRing(pointColumns.length, everyMs)
    if (!ring.wants(atMs)) return
    const point = this.#sampler.sample(status, atMs, wallMs)
    if (!this.#rings.has(status.name) && this.#rings.size < guestsMax) this.#rings.set(status.name, ring)
    ring.add(atMs, point)
  }

  forget(name: string): void {
    this.#sampler.forget(name)
    this.#rings.delete(name)
  }

  /** Oldest first. */
  of(name: string): Point[] {
    return this.#rings.get(name)?.points() ?? []
  }
}

function pointOf(before: Seen, now: Seen, wallMs: number): Point {
  const seconds = (now.atMs - before.atMs) / 1000
  const [a, b] = [before.status, now.status]
  const [from, to] = [a.epochs, b.epochs]
  // What was counted in another protection is not subtracted.
  const same = from !== null && to !== null && to.checkpoints >= from.checkpoints && seconds > 0
  const rate = (of: (status: GuestStatus) => number) => (same ? Math.max(0, of(b) - of(a)) / seconds : null)
  const mean = (key: 'pause' | 'commit') => {
    if (!same || to.checkpoints === from.checkpoints) return null
    return (to.durations[key].sumUs - from.durations[key].sumUs) / (to.checkpoints - from.checkpoints) / 1000
  }
  const epochs = (status: GuestStatus) => status.epochs!
  const lines = (key: 'dictionaryLines' | 'sharedLines') => (status: GuestStatus) =>
    (status.last?.reduced[key] ?? 0) * 64
  return [
    wallMs,
    mean('pause'),
    same ? highPercentileMs(from.durations.pause, to.durations.pause) : null,
    mean('commit'),
    to?.lagMs ?? null,
    rate((status) => epochs(status).dirtyPages),
    rate((status) => epochs(status).bytes.changedLines),
    rate((status) => epochs(status).bytes.sent),
    rate(lines('dictionaryLines')),
    rate(lines('sharedLines')),
    rate(({ disks }) => disks.reduce((sum, { sent }) => sum + sent.wireBytes, 0)),
  ]
}

/** Of the durations that were counted in between: the bound below which 99 % of them lie. */
function highPercentileMs(from: Durations, to: Durations): number | null {
  const counts = to.counts.map((count, index) => count - (from.counts[index] ?? 0))
  const total = counts.reduce((sum, count) => sum + count, 0)
  if (total <= 0) return null
  let sum = 0
  const bucket = counts.findIndex((count) => {
    sum += count
    return sum >= 0.99 * total
  })
  return (durationBoundsUs[bucket] ?? durationBoundsUs.at(-1)!) / 1000
}
