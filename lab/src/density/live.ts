/**
 * Guests whose memory is held densely while they run: by how much that slows each of them down and what of it is due to
 * pauses, to bringing pages back and to watching; and how long pages stay away. One guest runs at a time. Once it is dense,
 * short windows in which it is watched and pages leave it take turns with windows in which it is left alone, because the
 * speed of a machine drifts: neighbours see the same one. Store and pager run in this process.
 */
import { join } from 'node:path'
import { choosePass } from 'subpage/density/clock'
import { type PagerStats, readPager, startPager, stopPager } from 'subpage/density/pager'
import { type PageSplit, residentPages, Store, type StoredKind, storedKinds } from 'subpage/density/store'
import { PageRanges } from 'subpage/memory/page-ranges'
import { holdLocked } from 'subpage/qemu/pause-lease'
import { LiveWatch } from 'subpage/workingset/live'
import { ConsoleReader, type Line, numbersIn } from '../console-reader.ts'
import { median, ratioInterval, sum } from '../report/statistics.ts'
import { type Fleet, type Member, pause } from './fleet.ts'
import { percent } from './tables.ts'

/** The budget is the default one; pages become cold sooner, so that it happens within the study. */
export const clock = { recentMs: 1_000, coldMs: 3_000, passMs: 1_000, budget: 0.01 }
/** In which memory becomes cold and most of it leaves, an eighth in a pass. */
const warmUpMs = clock.coldMs + 5 * clock.passMs
/** What a window before has left to be done is over. */
const settleMs = clock.recentMs / 2
/** The shorter, the more alike is the host in both windows of a pair; in it each guest speaks several times. */
const windowMs = 2_500
const holdMs = 2_000
const pausePages = 512
const lookMs = 5
const noteMs = 500

export interface Slowdown {
  name: string
  /** Of the work, the mean of the pairs; between which it lies with 95 % confidence. */
  slowdown: number
  low: number
  high: number
  pairs: number[]
  /** Shares of the time in which it was watched and pages left: standing still, and what the watch says that it cost. */
  pausing: number
  watching: number
  /** Share of all time that it waited for pages to come back. */
  waiting: number
  /** Processor time that moving and packing took, as a share of one core. */
  moving: number
}

/** In seconds. */
export interface Lifetimes {
  /** That pages stayed away until the guest asked for them. */
  came: number[]
  /** That those have been away which still were at the end. */
  still: number[]
}

/** What the paper has the lifetimes of; `any`: from leaving the guest's memory on, however the page was held. */
export const lived = ['patched', 'packed', 'any'] as const
export type Lived = (typeof lived)[number]

export interface Live {
  guests: Slowdown[]
  /** Of the guest that is slowed down most. */
  slowdown: number
  lifetimes: Record<Lived, Lifetimes>
  splits: (PageSplit & { name: string })[]
  pagers: (PagerStats & { name: string })[]
  pauseUsP50: number
}

/** What density did to a guest for some time. */
interface Spent {
  ms: number
  waitUs: number
  pauseUs: number
  watchNs: number
  cpuMs: number
}

/** A page that is away: since when, and since when as what. */
interface Away {
  since: number
  kind: StoredKind
  as: number
}

interface Window extends Spent {
  /** Units of work a second, of the time in which the guest did not wait for pages; undefined when nobody could tell. */
  rate: number | undefined
}

/** Neighbours. */
interface Pair {
  active: Window
  alone: Window
  /** Of what the guest has done. */
  ratio: number
}

export async function measureLive(
  fleet: Fleet,
  members: readonly Member[],
  pairs: number,
  note: (text: string) => void,
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
    for (const each of dense) {
      const found = await fleet.alone(each.member, () => each.measure(pairs))
      note(
        `  ${found.name}: slowed down by ${percent(found.slowdown)}, between ${percent(found.low)} and ${percent(found.high)}`,
      )
      guests.push(found)
    }
    return {
      guests,
      slowdown: Math.max(...guests.map(({ slowdown }) => slowdown)),
      lifetimes: Object.fromEntries(
        lived.map((kind) => {
          const all = dense.map(({ lifetimes }) => lifetimes[kind])
          return [kind, { came: all.flatMap(({ came }) => came), still: all.flatMap(({ still }) => still) }]
        }),
      ) as Record<Lived, Lifetimes>,
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
  readonly lifetimes: Record<Lived, Lifetimes> = {
    patched: { came: [], still: [] },
    packed: { came: [], still: [] },
    any: { came: [], still: [] },
  }
  readonly pausesUs: number[] = []
  /** When it had been dense for the longest. */
  split: PageSplit | undefined
  readonly #store: Store
  readonly #signal: AbortSignal
  readonly #number: number
  readonly #away = new Map<number, Away>()
  #notedAt = 0
  #passAt = 0

  constructor(member: Member, store: Store, signal: AbortSignal) {
    const { qemu } = member.guest
    this.member = member
    this.#store = store
    this.#signal = signal
    this.#number = store.attach(qemu.record.id, qemu.ramPath, 1)
    startPager(store, this.#number, {
      pid: qemu.record.process.pid,
      ramPath: qemu.ramPath,
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

  async measure(count: number): Promise<Slowdown> {
    const settings = { intervalMs: clock.recentMs / 2, subIntervals: 1, budget: clock.budget }
    const watch = new LiveWatch(this.member.guest.watchAccesses(), settings).start()
    try {
      await this.#work(warmUpMs, watch)
      const pairs: Pair[] = []
      for (let turn = 0; pairs.length < count; turn++) {
        // Which comes first changes, so that a drift of the host favours neither.
        const first = turn % 2 === 0 ? await this.#settled(watch) : undefined
        const alone = await this.#settled(watch, true)
        const active = first ?? (await this.#settled(watch))
        // A guest that the host has let wait may have said too little.
        if (active.rate && alone.rate) pairs.push({ active, alone, ratio: active.rate / alone.rate })
        else if (turn > 2 * count)
          throw new TypeError(`${this.name} says too little for its speed to be told`)
      }
      const active = pairs.map((pair) => pair.active)
      this.split = this.#store.split(this.#number)
      this.#end()
      return {
        name: this.name,
        ...slowdownOf(pairs),
        pausing: shareOf(active, ({ pauseUs }) => pauseUs / 1000),
        watching: shareOf(active, ({ watchNs }) => watchNs / 1e6),
        waiting: shareOf([...active, ...pairs.map(({ alone }) => alone)], ({ waitUs }) => waitUs / 1000),
        moving: shareOf(active, ({ cpuMs }) => cpuMs),
      }
    } finally {
      await watch.stop()
    }
  }

  async #settled(watch: LiveWatch, alone = false): Promise<Window> {
    if (alone) await watch.rest()
    else watch.goOn()
    const acting = alone ? undefined : watch
    await this.#work(settleMs, acting)
    const { lines, ...spent } = await this.#work(windowMs, acting)
    const rate = rateOf(lines, this.member.role.progress!)
    return { ...spent, rate: rate && rate / (1 - spent.waitUs / 1000 / spent.ms) }
  }

  /** Lets it work. @param acting pages leave it, as this watch says */
  async #work(ms: number, acting?: LiveWatch): Promise<Spent & { lines: Line[] }> {
    const reader = new ConsoleReader(this.member.console)
    const [waitedUs, startedAt, pauses] = [this.#waitedUs(), performance.now(), this.pausesUs.length]
    const watchedNs = acting?.cost.spentNs ?? 0
    let cpuMs = 0
    while (performance.now() - startedAt < ms) {
      await pause(lookMs, this.#signal)
      reader.read()
      this.#note()
      if (acting && performance.now() >= this.#passAt) cpuMs += await this.#pass(acting)
    }
    return {
      lines: reader.lines,
      ms: performance.now() - startedAt,
      waitUs: this.#waitedUs() - waitedUs,
      pauseUs: sum(this.pausesUs.slice(pauses)),
      watchNs: acting ? acting.cost.spentNs - watchedNs : 0,
      cpuMs,
    }
  }

  /** What the guest has waited for pages, but for what it takes until a fault is read. */
  #waitedUs(): number {
    return sum(Object.values(this.stats.served).map(({ pages, us }) => pages * (us?.p50 ?? 0)))
  }

  /** @returns the milliseconds that it computed */
  async #pass(watch: LiveWatch): Promise<number> {
    const [before, pauses] = [process.cpuUsage(), this.pausesUs.length]
    const { qemu, ram } = this.member.guest
    const resident = residentPages(qemu.ramPath, ram.pages)
    const most = ram.pages / 8
    const chosen = choosePass(watch.hotMap, clock, resident, resident.pageCount, undefined, most)
    await this.#evict(chosen.cold, false)
    await this.#evict(chosen.idle, true)
    await this.#store.sweep(20_000, 2, 30)
    const { user, system } = process.cpuUsage(before)
    const cpuMs = (user + system) / 1000
    // As the agent does: the budget bounds what the guest stands still, too.
    const pausedMs = sum(this.pausesUs.slice(pauses)) / 1000
    this.#passAt = performance.now() + Math.max(clock.passMs, cpuMs / clock.budget, pausedMs / clock.budget)
    return cpuMs
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
    if (now < this.#notedAt + noteMs) return
    this.#notedAt = now
    const kinds = this.#store.kinds(this.#number, this.member.guest.ram.pages)
    for (const [page, away] of this.#away)
      if (kinds[page] === 0) {
        this.#lived('came', away, now)
        this.#away.delete(page)
      }
    for (const [page, held] of kinds.entries()) {
      if (held === 0) continue
      const kind = storedKinds[held - 1]!
      const away = this.#away.get(page)
      if (away?.kind === kind) continue
      // Packed or swapped since: nobody had asked for it until then.
      if (away) this.#livedAs('still', away.kind, now - away.as)
      this.#away.set(page, { since: away?.since ?? now, kind, as: now })
    }
  }

  #end(): void {
    const now = performance.now()
    for (const away of this.#away.values()) this.#lived('still', away, now)
    this.#away.clear()
  }

  #lived(how: keyof Lifetimes, { since, kind, as }: Away, now: number): void {
    this.lifetimes.any[how].push((now - since) / 1000)
    this.#livedAs(how, kind, now - as)
  }

  #livedAs(how: keyof Lifetimes, kind: StoredKind, ms: number): void {
    if (kind === 'patched' || kind === 'packed') this.lifetimes[kind][how].push(ms / 1000)
  }

  /** Every page is back, and the guest goes on alone. */
  async end(): Promise<void> {
    if (!this.member.guest.alive) return
    await this.#store.fetch(this.#number, PageRanges.all(this.member.guest.ram.pages))
    stopPager(this.#store, this.#number)
  }
}

function slowdownOf(pairs: readonly Pair[]) {
  const { mean, low, high } = ratioInterval(pairs.map(({ ratio }) => ratio))
  return { slowdown: 1 - mean, low: 1 - high, high: 1 - low, pairs: pairs.map(({ ratio }) => 1 - ratio) }
}

const shareOf = (windows: readonly Window[], ms: (window: Window) => number) =>
  sum(windows.map(ms)) / sum(windows.map((window) => window.ms))

/** Units of work a second, from the first word of it to the last; undefined when there were too few. */
function rateOf(lines: readonly Line[], pattern: RegExp): number | undefined {
  const said = lines.flatMap((line) => numbersIn([line], pattern).map((value) => ({ ...line, value })))
  const [first, last] = [said[0], said.at(-1)]
  return first && last && last.atMs > first.atMs
    ? (1000 * (last.value - first.value)) / (last.atMs - first.atMs)
    : undefined
}
