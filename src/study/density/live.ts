/**
 * Guests whose memory is held densely while they run: by how much the store slows one down that uses its memory all the
 * time, how long pages stay away, and what bringing them back takes. Store and pager run in this process.
 */
import { join } from 'node:path'
import { choosePass } from '../../density/clock.ts'
import { type PagerStats, readPager, startPager, stopPager } from '../../density/pager.ts'
import { type PageSplit, residentPages, Store } from '../../density/store.ts'
import { addon } from '../../memory/native.ts'
import { PageRanges } from '../../memory/page-ranges.ts'
import { readConsole, victimLines } from '../../qemu/demo-guest.ts'
import { holdLocked } from '../../qemu/pause-lease.ts'
import { LiveWatch } from '../../workingset/live.ts'
import { median } from '../report/statistics.ts'
import { type Fleet, type Member, pause } from './fleet.ts'

/** Shorter than the defaults, so that pages become cold within the study. */
export const clock = { recentMs: 1_000, coldMs: 3_000, passMs: 500, budget: 0.05 }
const holdMs = 2_000
const pausePages = 512

export interface Live {
  pairs: number
  windowMs: number
  /** Steps a second of the guest that writes all the time, in turns. */
  without: number[]
  with: number[]
  slowdown: number
  /** Seconds that a page stayed away; of those that were still away at the end, how long until then. */
  lifetimesS: number[]
  stillAwayS: number[]
  splits: (PageSplit & { name: string })[]
  pagers: (PagerStats & { name: string })[]
  pauseUsP50: number
}

interface Dense extends Member {
  number: number
  watch: LiveWatch
  /** When each page left, by page. */
  since: Map<number, number>
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
    pagesMax: 2 * members.reduce((sum, { guest }) => sum + guest.ram.pages, 0),
    indexPages: 1 << 16,
  })
  const lab = new LiveLab(store, signal)
  try {
    for (const member of members) lab.attach(member)
    const worker = members[0]!
    const [without, dense]: [number[], number[]] = [[], []]
    for (let pair = 0; pair < pairs; pair++) {
      await lab.allBack()
      without.push(await lab.stepsPerSecond(worker, windowMs, false))
      // Memory has to become cold first; that counts for neither.
      await lab.stepsPerSecond(worker, clock.coldMs + 1_000, true)
      dense.push(await lab.stepsPerSecond(worker, windowMs, true))
    }
    const result = lab.result()
    // Pair by pair: what else this machine does changes from one to the next.
    const slowdown = 1 - median(dense.map((steps, pair) => steps / without[pair]!))
    return { pairs, windowMs, without, with: dense, slowdown, ...result }
  } finally {
    await lab.end()
    store.close()
  }
}

class LiveLab {
  readonly #store: Store
  readonly #signal: AbortSignal
  readonly #guests: Dense[] = []
  readonly #lifetimesS: number[] = []
  readonly #pausesUs: number[] = []

  constructor(store: Store, signal: AbortSignal) {
    this.#store = store
    this.#signal = signal
  }

  attach(member: Member): void {
    const { qemu } = member.guest
    const number = this.#store.attach(qemu.record.id, qemu.files.ram, 1)
    startPager(this.#store, number, {
      pid: qemu.record.process.pid,
      ramPath: qemu.files.ram,
      ramPages: qemu.ram.pages,
      shimStatusPath: qemu.files.shimStatus,
    })
    const source = { ...member.guest.watchAccesses(), faultNs: addon.forgetFaultNs() || 5_000 }
    const watch = new LiveWatch(source, { intervalMs: 500, subIntervals: 1, budget: clock.budget }).start()
    this.#guests.push({ ...member, number, watch, since: new Map() })
  }

  async stepsPerSecond({ console }: Member, ms: number, dense: boolean): Promise<number> {
    const steps = () => victimLines(readConsole(console)).at(-1)?.step ?? 0
    const [from, startedAt] = [steps(), performance.now()]
    while (performance.now() - startedAt < ms) {
      await pause(clock.passMs, this.#signal)
      if (dense) for (const guest of this.#guests) await this.#pass(guest)
      if (dense) await this.#store.sweep(20_000, 1, 20)
    }
    return (1000 * (steps() - from)) / (performance.now() - startedAt)
  }

  async #pass(dense: Dense): Promise<void> {
    const { pages } = dense.guest.ram
    const stored = this.#store.stored(dense.number, pages)
    this.#note(dense, stored)
    const resident = residentPages(dense.guest.qemu.files.ram, pages)
    const chosen = choosePass(dense.watch.hotMap, clock, resident, resident.pageCount, undefined, pages / 8)
    for (const [all, onlySmaller] of [
      [chosen.cold, false],
      [chosen.idle, true],
    ] as const)
      for (let [part, rest] = all.take(pausePages); part.pageCount > 0; [part, rest] = rest.take(pausePages))
        this.#pausesUs.push(
          await dense.guest.standStill(
            async (held) =>
              (
                await holdLocked(dense.guest.qemu.files.lease, held, holdMs, () =>
                  this.#store.evict(dense.number, part, { patch: true, onlySmaller }),
                )
              ).held,
          ),
        )
    // One that comes back before the next pass has been away, too.
    this.#note(dense, this.#store.stored(dense.number, pages))
  }

  #note({ since }: Dense, stored: PageRanges): void {
    const now = performance.now()
    for (const [page, at] of since)
      if (!stored.has(page)) {
        this.#lifetimesS.push((now - at) / 1000)
        since.delete(page)
      }
    for (const page of stored.pages()) if (!since.has(page)) since.set(page, now)
  }

  async allBack(): Promise<void> {
    for (const { number, guest, since } of this.#guests) {
      await this.#store.fetch(number, PageRanges.all(guest.ram.pages))
      since.clear()
    }
  }

  result() {
    const now = performance.now()
    return {
      lifetimesS: this.#lifetimesS,
      stillAwayS: this.#guests.flatMap(({ since }) => [...since.values()].map((at) => (now - at) / 1000)),
      splits: this.#guests.map(({ role, number }) => ({ name: role.name, ...this.#store.split(number) })),
      pagers: this.#guests.map(({ role, number }) => ({
        name: role.name,
        ...readPager(this.#store, number)!,
      })),
      pauseUsP50: this.#pausesUs.length === 0 ? 0 : median(this.#pausesUs),
    }
  }

  /** The guests go on alone. */
  async end(): Promise<void> {
    for (const { number, watch, guest } of this.#guests) {
      await watch.stop()
      if (!guest.alive) continue
      await this.#store.fetch(number, PageRanges.all(guest.ram.pages))
      stopPager(this.#store, number)
    }
  }
}
