/**
 * What an access to a stored page takes, by the way the page is held, as the thread that makes it sees it; and what the
 * store's operations take. On copies of the guests' memories, which the guests stand still for.
 */
import { closeSync, mkdirSync, openSync, readSync, rmSync, truncateSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { type AccessKind, type AccessTime, accessKinds, timeAccesses } from 'subpage/density/pager'
import { residentPages, Store } from 'subpage/density/store'
import { pageBytes } from 'subpage/memory/page'
import { PageRanges } from 'subpage/memory/page-ranges'
import { ascending, percentile } from '../report/statistics.ts'
import type { Member } from './fleet.ts'

const pagesPerGuest = 6_000
const copyPages = 256
const indexPages = 1 << 18
/** Rounds of the sweep that do not come. */
const never = 255

export interface Percentiles {
  p50: number
  p99: number
}

export interface Access {
  kind: AccessKind
  pages: number
  /** Microseconds: of the access; of it from reading the fault to its answer; of that rebuilding the page. */
  accessUs: Percentiles
  answerUs: Percentiles
  rebuildUs: Percentiles
}

export interface Accesses {
  kinds: Access[]
  /** Microseconds, of patches and of packed pages together. */
  rebuildUsP50: number
  /** Microseconds a page: into the store, sharing and patching included; packed by the sweep; written to swap. */
  operationUs: { evict: number; pack: number; swap: number }
}

/** Of guests that stand still. @param directory on tmpfs, its own */
export function copyMemories(members: readonly Member[], directory: string): void {
  mkdirSync(directory, { mode: 0o700 })
  for (const { role, guest } of members)
    copyMemory(guest.qemu.files.ram, join(directory, role.name), guest.ram.pages)
}

/**
 * @param directory what copyMemories has filled; it is gone afterwards
 * @param swap a file on a disk
 * @throws SubpageError NO_SPACE, TRACKER_UNAVAILABLE
 */
export async function measureAccesses(
  members: readonly Member[],
  directory: string,
  swap: string,
): Promise<Accesses> {
  const copies = members.map(({ role, guest }) => ({ name: role.name, pages: guest.ram.pages }))
  const pagesMax = copies.reduce((sum, { pages }) => sum + pages, 0)
  const store = Store.open({ directory: join(directory, 'store'), swap, pagesMax, indexPages })
  try {
    const guests = copies.map(({ name, pages }) => {
      const path = join(directory, name)
      return { number: store.attach(name, path, 1), pages, path }
    })
    const startedAt = performance.now()
    let evicted = 0
    for (const { number, pages } of guests) {
      const all = PageRanges.all(pages)
      const { filled, shared, patched, whole } = await store.evict(number, all, { patch: true })
      evicted += filled + shared + patched + whole
    }
    const evict = (1000 * (performance.now() - startedAt)) / Math.max(1, evicted)
    // One round makes them old enough.
    await store.sweep(pagesMax, never, never)
    const pack = await timeSweep(store, pagesMax, 1, never, ({ packed }) => packed)
    const swapOut = await timeSweep(
      store,
      Math.ceil(store.totals.objects / 3),
      1,
      1,
      ({ swapped }) => swapped,
    )
    const times: AccessTime[] = []
    for (const { number, pages, path } of guests)
      times.push(...(await timeAccesses(store, number, path, scattered(store.stored(number, pages)))))
    return {
      kinds: accessKinds.map((kind) => summary(kind, times)).filter(({ pages }) => pages > 0),
      rebuildUsP50: rebuiltUsP50(times),
      operationUs: { evict, pack, swap: swapOut },
    }
  } finally {
    store.close()
    rmSync(directory, { recursive: true, force: true })
    rmSync(swap, { force: true })
  }
}

function copyMemory(from: string, to: string, pages: number): void {
  const [source, target] = [openSync(from, 'r'), openSync(to, 'wx', 0o600)]
  const piece = Buffer.alloc(copyPages * pageBytes)
  try {
    truncateSync(to, pages * pageBytes)
    for (let rest = residentPages(from, pages); rest.pageCount > 0; ) {
      const [part, later] = rest.take(copyPages)
      for (const { first, count } of part) {
        readSync(source, piece, 0, count * pageBytes, first * pageBytes)
        writeSync(target, piece, 0, count * pageBytes, first * pageBytes)
      }
      rest = later
    }
  } finally {
    closeSync(source)
    closeSync(target)
  }
}

/** Microseconds for each page that the sweep changed. */
async function timeSweep(
  store: Store,
  objectsMax: number,
  agePack: number,
  ageSwap: number,
  changed: (swept: { packed: number; swapped: number }) => number,
): Promise<number> {
  const startedAt = performance.now()
  const swept = await store.sweep(objectsMax, agePack, ageSwap)
  return (1000 * (performance.now() - startedAt)) / Math.max(1, changed(swept))
}

/** Some of the pages in an order that no cache foresees, the same each time. */
function scattered(pages: PageRanges): Uint32Array {
  const all = Uint32Array.from(pages.pages())
  const order = (page: number) => Math.imul(page + 1, 2_654_435_761) >>> 0
  return all.sort((a, b) => order(a) - order(b)).subarray(0, pagesPerGuest)
}

function summary(kind: AccessKind, times: readonly AccessTime[]): Access {
  const of = times.filter((time) => time.kind === kind)
  const us = (pick: (time: AccessTime) => number) => percentilesUs(of.map(pick))
  return {
    kind,
    pages: of.length,
    accessUs: us(({ accessNs }) => accessNs),
    answerUs: us(({ answerNs }) => answerNs),
    rebuildUs: us(({ rebuildNs }) => rebuildNs),
  }
}

function percentilesUs(ns: number[]): Percentiles {
  if (ns.length === 0) return { p50: Number.NaN, p99: Number.NaN }
  const sorted = ascending(ns)
  return { p50: percentile(sorted, 0.5) / 1000, p99: percentile(sorted, 0.99) / 1000 }
}

const rebuiltKinds: readonly AccessKind[] = ['patched', 'words', 'lz4', 'zstd']

function rebuiltUsP50(times: readonly AccessTime[]): number {
  return percentilesUs(
    times.filter(({ kind }) => rebuiltKinds.includes(kind)).map(({ rebuildNs }) => rebuildNs),
  ).p50
}
