/**
 * The keeper: the process of a host that has the content store open and serves the page faults of its guests. It is not
 * the agent, so that guests do not wait while an agent restarts, and not QEMU, for a guest that breaks out of its QEMU
 * would find the memory of all others there.
 *
 * What happens when somebody dies:
 *   agent    guests run on and their pages come back on access; the next agent finds this keeper by its socket
 *   keeper   what is stored lies in files, whole after every instruction (native/core/store.h). Accesses to stored pages
 *            wait; the agent starts a new keeper, which takes store and guests up and answers them. Was a guest held for an
 *            eviction, the guard inside its QEMU lets it run again (native/shim/lease.h).
 *   QEMU     its pages are thrown away
 *   host     everything is gone, as without density
 */
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { asSubpageError, SubpageError } from '../errors.ts'
import { pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import { ramPathOf } from '../memory/ram-path.ts'
import { holdLocked } from '../qemu/pause-lease.ts'
import { isGone, isRunning, untilGone } from '../qemu/process.ts'
import type { KeeperCall, KeeperCalls, KeeperStatus, KeptGuest, Runs } from './keeper-protocol.ts'
import { keeperVersion } from './keeper-protocol.ts'
import { KeptGuests } from './kept-guests.ts'
import { readPager, startPager, stopPager } from './pager.ts'
import { residentPages, Store } from './store.ts'

export interface KeeperOptions {
  /** On tmpfs: holds the store. */
  directory: string
  swap?: string
  pagesMax: number
  indexPages: number
}

/** After an eviction the agent has this long to let the guest run; then the guard does. */
const holdMs = 2_000
/** Somewhat less than supervisors wait between two passes. */
const sweepMs = 900
/** How long a guest may take to end of which somebody says that it has. */
const endMsMax = 2_000
const endPollMs = 2

interface Kept extends KeptGuest {
  /** In the store. */
  number: number
}

type Handlers = {
  [Call in KeeperCall]: (
    takes: KeeperCalls[Call]['takes'],
  ) => Promise<KeeperCalls[Call]['gives']> | KeeperCalls[Call]['gives']
}

export class Keeper {
  readonly #directory: string
  readonly #store: Store
  readonly #known: KeptGuests
  #sweptAt = Number.NEGATIVE_INFINITY
  /** Those that are served. */
  readonly #guests = new Map<string, Kept>()
  /** In the store, by id. */
  readonly #numbers = new Map<string, number>()
  /** Those that have ended and are being forgotten. */
  readonly #leaving = new Map<string, Promise<object>>()

  /** @throws SubpageError NO_SPACE, STORE_DAMAGED, BAD_ARGUMENT */
  constructor({ directory, swap, pagesMax, indexPages }: KeeperOptions) {
    this.#directory = directory
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    this.#store = Store.open({
      directory: join(directory, 'store'),
      ...(swap === undefined ? {} : { swap }),
      pagesMax,
      indexPages,
    })
    this.#known = new KeptGuests(join(directory, 'guests.json'))
    for (const { guest } of this.#known.all) this.#takeUp(guest)
    this.reap()
  }

  /** Nothing is stored and nobody is served. */
  get idle(): boolean {
    return this.#known.all.length === 0
  }

  readonly handlers: Handlers = {
    status: () => this.#status(),
    ping: () => ({}),
    attach: ({ guest }) => this.#attachAnew(guest),
    evict: (takes) => this.#evict(takes),
    resident: ({ id }) => {
      const guest = this.#find(id)
      return { runs: runsOf(residentPages(ramOf(guest), guest.ramPages)) }
    },
    map: ({ id, cellPages }) => {
      const guest = this.#find(id)
      return {
        held: [...this.#store.map(guest.number, guest.ramPages, cellPages)],
        resident: runsOf(residentPages(ramOf(guest), guest.ramPages)),
      }
    },
    fetch: async ({ id, runs, ...how }) => ({
      pages: await this.#store.fetch(this.#find(id).number, rangesOf(runs), how),
    }),
    hashes: async ({ id, runs }) => {
      const hashes = await this.#store.hash(this.#find(id).number, rangesOf(runs))
      return { hashes: Buffer.from(hashes.buffer).toString('base64') }
    },
    sweep: async ({ objectsMax, agePack, ageSwap }) => {
      // Ages are counted in sweeps, and every guest's supervisor asks for them.
      const now = performance.now()
      if (now - this.#sweptAt < sweepMs) return { cpuMs: 0 }
      this.#sweptAt = now
      const { cpuMs } = await timed(() => this.#store.sweep(objectsMax, agePack, ageSwap))
      return { cpuMs }
    },
    detach: ({ id }) => this.#detach(id),
    forget: ({ id }) => this.#forget(id),
  }

  /** Throws away what is stored for guests that have ended. */
  reap(): void {
    for (const { guest } of this.#known.all)
      if (isGone(guest.process))
        // It is tried again. All other guests need this process.
        this.#forget(guest.id).catch((error) =>
          console.error(`cannot forget guest ${guest.name}: ${asSubpageError(error).message}`),
        )
  }

  close(): void {
    this.#store.close()
    if (this.idle) rmSync(this.#directory, { recursive: true, force: true })
  }

  #find(id: string): Kept {
    const guest = this.#guests.get(id)
    if (!guest) throw new SubpageError('GUEST_UNKNOWN', `the keeper serves no guest ${id}`)
    return guest
  }

  async #attachAnew(guest: KeptGuest): Promise<object> {
    await this.#leaving.get(guest.id)
    // The same guest has come back to this host in another process before we noticed the end of the former one.
    if (this.#known.all.some(({ guest: known }) => known.id === guest.id && !isSame(known, guest)))
      await this.#forget(guest.id)
    const fresh = !this.#known.has(guest.id)
    try {
      return this.#attach(guest)
    } catch (error) {
      // What is stored for a guest of a former keeper stays, whatever it is that is wrong.
      if (fresh) await this.#drop(guest.id)
      throw error
    }
  }

  #attach(guest: KeptGuest): object {
    const { id, ramPages, shimStatusPath, process } = guest
    const ramPath = ramOf(guest)
    if (this.#guests.has(id)) return {}
    if (!isRunning(process))
      throw new SubpageError(
        'GUEST_DIED',
        `the process ${process.pid} of guest ${guest.name} has ended, or runs where the keeper cannot see it`,
      )
    const number = this.#numbers.get(id) ?? this.#store.attach(id, ramPath, this.#known.enter(guest))
    this.#numbers.set(id, number)
    startPager(this.#store, number, { pid: process.pid, ramPath, ramPages, shimStatusPath })
    this.#guests.set(id, { ...guest, number })
    return {}
  }

  /** One guest that cannot be served must not keep the others waiting; its agent asks again. */
  #takeUp(guest: KeptGuest): void {
    try {
      if (isRunning(guest.process)) this.#attach(guest)
    } catch (error) {
      console.error(`cannot take up guest ${guest.name}: ${asSubpageError(error).message}`)
    }
  }

  async #evict({
    id,
    held,
    runs,
    onlySmaller,
    trim,
  }: KeeperCalls['evict']['takes']): Promise<KeeperCalls['evict']['gives']> {
    const { number, leasePath } = this.#find(id)
    const evict = () =>
      timed(() => this.#store.evict(number, rangesOf(runs), { patch: true, onlySmaller, trim }))
    if (held === null) {
      const { value, cpuMs } = await evict()
      return { held, tally: value, cpuMs }
    }
    const done = await holdLocked(leasePath, BigInt(held), holdMs, evict)
    return { held: String(done.held), tally: done.value.value, cpuMs: done.value.cpuMs }
  }

  async #detach(id: string): Promise<object> {
    const { number, ramPages } = this.#find(id)
    // With all its room, as it had it: from now on it is read and written without asking us.
    await this.#store.fetch(number, PageRanges.all(ramPages), { room: true })
    if (!stopPager(this.#store, number))
      throw new SubpageError('INTERNAL', 'pages were evicted while the guest was let go')
    await this.#drop(id)
    return {}
  }

  /** Once, whoever asks: the id may be another process's afterwards. */
  #forget(id: string): Promise<object> {
    const leaving = this.#leaving.get(id) ?? this.#forgetEnded(id).finally(() => this.#leaving.delete(id))
    this.#leaving.set(id, leaving)
    return leaving
  }

  async #forgetEnded(id: string): Promise<object> {
    const guest = this.#guests.get(id)
    // Its thread hears of the end a moment after everybody else.
    if (guest) await untilGone(guest.process, endMsMax)
    while (guest && isGone(guest.process) && readPager(this.#store, guest.number)?.ended === false)
      await delay(endPollMs)
    if (guest && (!isGone(guest.process) || !stopPager(this.#store, guest.number)))
      throw new SubpageError('INTERNAL', `guest ${guest.name} still runs and needs what is stored for it`)
    await this.#drop(id)
    return {}
  }

  async #drop(id: string): Promise<void> {
    this.#guests.delete(id)
    await this.#store.forget(id)
    this.#numbers.delete(id)
    this.#known.leave(id)
  }

  #status(): KeeperStatus {
    return {
      version: keeperVersion,
      pid: process.pid,
      guests: [...this.#guests.values()].map(({ id, number }) => ({
        id,
        split: this.#store.split(number),
        pager: readPager(this.#store, number) ?? null,
      })),
      totals: this.#store.totals,
    }
  }
}

const ramOf = ({ process, ramPath }: KeptGuest) => ramPathOf(process.pid, ramPath)

const isSame = ({ process: a }: KeptGuest, { process: b }: KeptGuest) =>
  a.pid === b.pid && a.startTime === b.startTime && a.within?.pidNamespace === b.within?.pidNamespace

/** What the work computes; that of others at the same time counts too. */
async function timed<T>(work: () => Promise<T>): Promise<{ value: T; cpuMs: number }> {
  const before = process.cpuUsage()
  const value = await work()
  const { user, system } = process.cpuUsage(before)
  return { value, cpuMs: (user + system) / 1000 }
}

/** Out of memory, the kernel must end others first: everybody waits for us. Only root may say so. */
export function preferToLive(): void {
  try {
    if (existsSync('/proc/self/oom_score_adj')) writeFileSync('/proc/self/oom_score_adj', '-900')
  } catch {
    // Without the right to it this process is as likely to be chosen as any.
  }
}

export const runsOf = (ranges: PageRanges): Runs => [...ranges.pairs.subarray(0, 2 * ranges.runCount)]

/** @throws TypeError */
export function rangesOf(runs: Runs): PageRanges {
  return PageRanges.fromPairs(Uint32Array.from(runs))
}

/** Room for the pages of all guests that a host of this much memory can have, twice over. */
export const pagesOf = (hostBytes: number) => Math.min(0xffff_fffe, Math.ceil((2 * hostBytes) / pageBytes))
