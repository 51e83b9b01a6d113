/**
 * Guests whose memory is held densely while they run: by how much that slows each of them down and what of it is due to
 * pauses, to bringing pages back and to watching; and how long pages stay away. One guest runs at a time, as it is and
 * held densely in turn, so that nothing but density makes the difference. Store and pager run in this process.
 */
import { join } from 'node:path'
import { choosePass } from '../../density/clock.ts'
import { type PagerStats, readPager, startPager, stopPager } from '../../density/pager.ts'
import { type PageSplit, residentPages, Store } from '../../density/store.ts'
import { addon } from '../../memory/native.ts'
import { PageRanges } from '../../memory/page-ranges.ts'
import { holdLocked } from '../../qemu/pause-lease.ts'
import { LiveWatch } from '../../workingset/live.ts'
import { mean, median, sum } from '../report/statistics.ts'
import { type Fleet, type Member, pause } from './fleet.ts'
import { Progress } from './progress.ts'

/** The budget is the default one; pages become cold sooner, so that it happens within the study. */
export const clock = { recentMs: 1_000, coldMs: 3_000, passMs: 1_000, budget: 0.03 }
/** In which memory becomes cold and most of it leaves, an eighth in a pass. */
const warmUpMs = clock.coldMs + 5 * clock.passMs
const holdMs = 2_000
const pausePages = 512
const lookMs = 20
const faultNsUnknown = 5_000

export interface Slowdown {
  name: string
  /** Of the work, by the middle one of the pairs. */
  slowdown: number
  /** Units of work a second, in turns; one more without than with. */
  without: number[]
  with: number[]
  /** Shares of the time held densely: standing still, waiting for pages, and what the watch says that it cost. */
  pausing: number
  waiting: number
  watching: number
  /** Processor time that moving and packing took, as a share of one core. */
  moving: number
}

export interface Live {
  pairs: number
  windowMs: number
  guests: Slowdown[]
  /** Of the guest that is slowed down most. */
  slowdown: number
  /** Seconds that a page stayed away; of those that were still away at the end, how long until then. */
  lifetimesS: number[]
  stillAwayS: number[]
  splits: (PageSplit & { name: string })[]
  pagers: (PagerStats & { name: string })[]
  pauseUsP50: number
}

/** What density did to a guest in a window. */
interface Spent {
  ms: number
  pauseUs: number
  waitUs: number
  watchShare: number
  cpuMs: number
}

export async function measureLive(
  fleet: Fleet,
  members: readonly Member[],
  { pairs, windowMs }: { pairs: number; windowMs: number },
  signal: AbortSignal,
): Promise<Live> {
  const store = Store.open({
    directory: fleet.storeDirectory,
    swap: join(fleet.directory, 'swap'),
    pagesMax: 2 * sum(members.map(({ guest }) => guest.ram.pages)),
    indexPages: 1 << 16,
  })
  const dense = members.map((member) => new DenseMember(member, store, signal))
  try {
    const guests: Slowdown[] = []
    for (const each of dense) guests.push(await fleet.alone(each.member, () => each.measure(pairs, windowMs)))
    return {
      pairs,
      windowMs,
      guests,
      slowdown: Math.max(...guests.map(({ slowdown }) => slowdown)),
      lifetimesS: dense.flatMap(({ lifetimesS }) => lifetimesS),
      stillAwayS: dense.flatMap(({ stillAwayS }) => stillAwayS),
      splits: dense.map(({ name, split }) => ({ name, ...split! })),
      pagers: dense.map(({ name, stats }) => ({ name, ...stats })),
      pauseUsP50: median(dense.flatMap(({ pausesUs }) => pausesUs)),
    }
  } finally {
    for (const each of dense) await each.end()
    store.close()
  }
}

class DenseMember {
  readonly member: Member
  readonly lifetimesS: number[] = []
  readonly stillAwayS: number[] = []
  readonly pausesUs: number[] = []
  /** When it had been dense for the longest. */
  split: PageSplit | undefined
  readonly #store: Store
  readonly #signal: AbortSignal
  readonly #number: number
  /** When each page left, by page. */
  readonly #since = new Map<number, number>()
  #watch: LiveWatch | undefined

  constructor(member: Member, store: Store, signal: AbortSignal) {
    const { qemu } = member.guest
    this.member = member
    this.#store = store
    this.#signal = signal
    this.#number = store.attach(qemu.record.id, qemu.files.ram, 1)
    startPager(store, this.#number, {
      pid: qemu.record.process.pid,
      ramPath: qemu.files.ram,
      ramPages: qemu.ram.pages,
      shimStatusPath: qemu.files.shimStatus,
    })
  }

  get name(): string {
    return this.member.role.name
  }

  get stats(): PagerStats {
    return readPager(this.#store, this.#number)!
  }

  async measure(pairs: number, windowMs: number): Promise<Slowdown> {
    const without = [(await this.#window(windowMs)).rate]
    const dense: { rate: number; spent: Spent }[] = []
    for (let pair = 0; pair < pairs; pair++) {
      const { accesses, ...writes } = this.member.guest.watchAccesses()
      const source = { accesses, ...writes, faultNs: addon.forgetFaultNs() || faultNsUnknown }
      const settings = { intervalMs: clock.recentMs / 2, subIntervals: 1, budget: clock.budget }
      this.#watch = new LiveWatch(source, settings).start()
      await this.#window(warmUpMs)
      dense.push(await this.#window(windowMs))
      this.split = this.#store.split(this.#number)
      await this.#leave()
      without.push((await this.#window(windowMs)).rate)
    }
    // Against what was before and after it: the speed of this machine drifts.
    const ratios = dense.map(({ rate }, pair) => rate / mean([without[pair]!, without[pair + 1]!]))
    const share = (of: (spent: Spent) => number) => mean(dense.map(({ spent }) => of(spent)))
    return {
      name: this.name,
      slowdown: 1 - median(ratios),
      without,
      with: dense.map(({ rate }) => rate),
      pausing: share(({ pauseUs, ms }) => pauseUs / 1000 / ms),
      waiting: share(({ waitUs, ms }) => waitUs / 1000 / ms),
      watching: share(({ watchShare }) => watchShare),
      moving: share(({ cpuMs, ms }) => cpuMs / ms),
    }
  }

  /** Lets it work, with passes of the clock while it is watched. */
  async #window(ms: number): Promise<{ rate: number; spent: Spent }> {
    const progress = new Progress(this.member.console, this.member.role.progress!)
    const [waited, startedAt, pauses] = [this.#waitedUs(), performance.now(), this.pausesUs.length]
    let [nextAt, cpuMs] = [startedAt, 0]
    while (performance.now() - startedAt < ms) {
      await pause(lookMs, this.#signal)
      progress.look()
      if (!this.#watch || performance.now() < nextAt) continue
      const passedMs = await this.#pass(this.#watch)
      cpuMs += passedMs
      // As the agent does.
      nextAt = performance.now() + Math.max(clock.passMs, passedMs / clock.budget)
    }
    const spent = {
      ms: performance.now() - startedAt,
      pauseUs: sum(this.pausesUs.slice(pauses)),
      waitUs: this.#waitedUs() - waited,
      watchShare: this.#watch?.cost.share ?? 0,
      cpuMs,
    }
    return { rate: progress.rate, spent }
  }

  /** What the guest has waited for pages, but for what it takes until a fault is read. */
  #waitedUs(): number {
    return sum(Object.values(this.stats.served).map(({ pages, us }) => pages * (us?.p50 ?? 0)))
  }

  /** @returns the milliseconds that it computed */
  async #pass(watch: LiveWatch): Promise<number> {
    const before = process.cpuUsage()
    const { qemu, ram } = this.member.guest
    this.#note()
    const resident = residentPages(qemu.files.ram, ram.pages)
    const most = ram.pages / 8
    const chosen = choosePass(watch.hotMap, clock, resident, resident.pageCount, undefined, most)
    await this.#evict(chosen.cold, false)
    await this.#evict(chosen.idle, true)
    // One that comes back before the next pass has been away, too.
    this.#note()
    await this.#store.sweep(20_000, 2, 30)
    const { user, system } = process.cpuUsage(before)
    return (user + system) / 1000
  }

  async #evict(pages: PageRanges, onlySmaller: boolean): Promise<void> {
    const { guest } = this.member
    for (
      let [part, rest] = pages.take(pausePages);
      part.pageCount > 0;
      [part, rest] = rest.take(pausePages)
    ) {
      const evict = () => this.#store.evict(this.#number, part, { patch: true, onlySmaller })
      this.pausesUs.push(
        await guest.standStill(
          async (held) => (await holdLocked(guest.qemu.files.lease, held, holdMs, evict)).held,
        ),
      )
    }
  }

  #note(): void {
    const now = performance.now()
    const stored = this.#store.stored(this.#number, this.member.guest.ram.pages)
    for (const [page, at] of this.#since)
      if (!stored.has(page)) {
        this.lifetimesS.push((now - at) / 1000)
        this.#since.delete(page)
      }
    for (const page of stored.pages()) if (!this.#since.has(page)) this.#since.set(page, now)
  }

  /** Every page is back, and nothing watches it. */
  async #leave(): Promise<void> {
    const now = performance.now()
    for (const at of this.#since.values()) this.stillAwayS.push((now - at) / 1000)
    this.#since.clear()
    await this.#watch?.stop()
    this.#watch = undefined
    if (this.member.guest.alive)
      await this.#store.fetch(this.#number, PageRanges.all(this.member.guest.ram.pages))
  }

  /** The guest goes on alone. */
  async end(): Promise<void> {
    await this.#leave()
    if (this.member.guest.alive) stopPager(this.#store, this.#number)
  }
}
