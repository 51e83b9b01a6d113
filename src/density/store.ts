/**
 * The content store of a host (native/core/store.h): cold pages of many guests, identical ones once, similar ones as
 * patches, packed, swapped. What it holds lies in files and outlives the process; one process at a time may open it.
 */
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { constants } from 'node:os'
import { SubpageError } from '../errors.ts'
import { dataPages } from '../memory/data-pages.ts'
import { hashBytes } from '../memory/hash.ts'
import { addon, type StoreHandle } from '../memory/native.ts'
import { pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import { defaultShape, type SketchShape, shapeFields } from './shape.ts'

export interface StoreOptions {
  /** Its own; on tmpfs, for it holds memory. */
  directory: string
  /** File, or block device, for packed pages that nobody has asked for in a long time. */
  swap?: string
  /** Of all guests together; the files are sparse, so a generous number costs nothing. */
  pagesMax: number
  /** The indexes remember so many pages, about 24 bytes for each; for more the sweep takes several rounds. */
  indexPages: number
  shape?: SketchShape
}

export interface EvictOptions {
  /** Look for patches too. */
  patch: boolean
  /** Leave pages in the RAM file that are neither filled with one word, nor identical to another, nor a patch. */
  onlySmaller?: boolean
  /** Move nothing: give back the room of pages that were never written, which a RAM file has reserved. */
  trim?: boolean
  /** Stops after so many pages. */
  pagesMax?: number
}

export interface FetchOptions {
  /** Those that were never written get their room in the RAM file too, for whoever writes to it through a mapping. */
  room?: boolean
  /** Somebody waits for them: before whatever else is moved. */
  urgent?: boolean
}

/** Pages, by what became of them. */
export interface EvictTally {
  filled: number
  shared: number
  patched: number
  whole: number
  /** Nothing was in the RAM file. */
  holes: number
  /** Stayed for want of room. */
  failed: number
  /** Stayed, since they would not become smaller. */
  left: number
}

/** Where the pages of one guest are; each counts once. */
export interface PageSplit {
  pages: number
  resident: number
  holes: number
  filled: number
  shared: number
  patched: number
  packed: number
  swapped: number
  whole: number
  /** Of the store's memory, the part that is this guest's. */
  storeBytes: number
}

export interface StoreTotals {
  objects: number
  poolBytes: number
  swapBytes: number
  bookBytes: number
}

/** Where a page in the store can be, as PageSplit counts; in the order of native code. */
export const heldWays = ['filled', 'shared', 'patched', 'packed', 'swapped', 'whole'] as const

/** How a page can be held here. */
export const storedKinds = ['filled', 'whole', 'packed', 'patched', 'swapped'] as const
export type StoredKind = (typeof storedKinds)[number]

export class Store {
  /** For pager.ts. */
  readonly handle: StoreHandle

  private constructor(handle: StoreHandle) {
    this.handle = handle
  }

  /** @throws SubpageError NO_SPACE, STORE_DAMAGED, BAD_ARGUMENT */
  static open({ directory, swap = '', pagesMax, indexPages, shape = defaultShape }: StoreOptions): Store {
    try {
      mkdirSync(directory, { recursive: true, mode: 0o700 })
      return new Store(addon.storeOpen(directory, swap, pagesMax, indexPages, shapeFields(shape)))
    } catch (cause) {
      const place = swap === '' ? directory : `${directory} with swap in ${swap}`
      throw storeError(cause, `cannot open the store in ${place}`)
    }
  }

  /**
   * Takes a guest in, and what is stored for it. Returns its number.
   * @param domain guests of one domain share pages, those of different ones never
   * @throws SubpageError BAD_ARGUMENT, NO_SPACE
   */
  attach(name: string, ramPath: string, domain: number): number {
    try {
      return addon.storeAttach(this.handle, name, ramPath, domain)
    } catch (cause) {
      throw storeError(cause, `cannot take ${name} into the store`)
    }
  }

  /** Throws away what is stored for a guest that has ended; fine when there is nothing. @throws TypeError while it is served */
  async forget(name: string): Promise<void> {
    const error = await addon.storeForget(this.handle, name)
    if (error === constants.errno.EBUSY) throw new TypeError(`${name} is served`)
  }

  /** Nobody may write to these pages meanwhile. A store that is full is no error: see `failed`. @throws SubpageError */
  async evict(guest: number, pages: PageRanges, options: EvictOptions): Promise<EvictTally> {
    const flags = (options.patch ? 1 : 0) | (options.onlySmaller ? 2 : 0) | (options.trim ? 4 : 0)
    const results = new Float64Array(7)
    const error = await addon.storeEvict(
      this.handle,
      guest,
      pages.pairs,
      pages.runCount,
      flags,
      options.pagesMax ?? 0xffff_ffff,
      results,
    )
    if (!isFull(error)) check(error, 'evict pages')
    const [filled, shared, patched, whole, holes, failed, left] = results as unknown as Seven
    // Pages after the one that failed were not looked at.
    return {
      filled,
      shared,
      patched,
      whole,
      holes,
      failed: isFull(error) ? Math.max(1, failed) : failed,
      left,
    }
  }

  /**
   * Brings pages back into the RAM file. Returns how many were in the store.
   * @throws SubpageError NO_SPACE, STORE_DAMAGED
   */
  async fetch(
    guest: number,
    pages: PageRanges,
    { room = false, urgent = false }: FetchOptions = {},
  ): Promise<number> {
    const results = new Float64Array(1)
    const flags = (room ? 1 : 0) | (urgent ? 2 : 0)
    check(
      await addon.storeFetch(this.handle, guest, pages.pairs, pages.runCount, flags, results),
      'bring pages back',
    )
    return results[0]!
  }

  /** Forgets pages whose content is about to be replaced whole. */
  drop(guest: number, pages: PageRanges): void {
    check(addon.storeDrop(this.handle, guest, pages.pairs, pages.runCount), 'drop pages')
  }

  /** One page as the guest sees it, wherever it is. @throws SubpageError STORE_DAMAGED */
  read(guest: number, page: number): Uint8Array {
    const content = new Uint8Array(pageBytes)
    check(addon.storeRead(this.handle, guest, page, content), `read page ${page}`)
    return content
  }

  /** XXH3-128 of pages as the guest sees them, wherever they are: as `hashBlocks`. @throws SubpageError STORE_DAMAGED */
  async hash(guest: number, pages: PageRanges): Promise<Uint8Array> {
    const hashes = new Uint8Array(pages.pageCount * hashBytes)
    check(await addon.storeHash(this.handle, guest, pages.pairs, pages.runCount, hashes), 'hash pages')
    return hashes
  }

  /** How each page of the guest is held: 0 not in the store, else one more than an index into `storedKinds`. */
  kinds(guest: number, pages: number): Uint8Array {
    const kinds = new Uint8Array(pages)
    check(addon.storeKinds(this.handle, guest, kinds), 'read the map of pages')
    return kinds
  }

  /** Pages of the guest that are in the store. */
  stored(guest: number, pages: number): PageRanges {
    const runs: [number, number][] = []
    for (const [page, kind] of this.kinds(guest, pages).entries()) {
      if (kind === 0) continue
      const run = runs.at(-1)
      if (run && run[0] + run[1] === page) run[1]++
      else runs.push([page, 1])
    }
    return PageRanges.of(runs)
  }

  /**
   * Goes on through what is stored, at most so many pages: packs what has stayed for `agePack` rounds, swaps what has
   * stayed for `ageSwap`. When the indexes do not hold all there is, it also finds, a part of the hashes in each round, what
   * is identical or similar and was not found at its eviction.
   */
  async sweep(objectsMax: number, agePack: number, ageSwap: number) {
    const results = new Float64Array(5)
    check(await addon.storeSweep(this.handle, objectsMax, agePack, ageSwap, results), 'sweep')
    const [seen, packed, swapped, wrapped, joined] = results as unknown as Five
    return { seen, packed, swapped, wrapped: wrapped !== 0, joined }
  }

  split(guest: number): PageSplit {
    const results = new Float64Array(10)
    check(addon.storeShare(this.handle, guest, results), 'count pages')
    const [pages, resident, holes, filled, shared, patched, packed] = results as unknown as Seven
    const [swapped, whole, storeBytes] = results.subarray(7) as unknown as [number, number, number]
    return { pages, resident, holes, filled, shared, patched, packed, swapped, whole, storeBytes }
  }

  /**
   * How many pages of each cell, so many pages in a row, are in the store: a row of `heldWays` for each.
   * @param pages of the guest
   */
  map(guest: number, pages: number, cellPages: number): Uint32Array {
    const cells = new Uint32Array(heldWays.length * Math.ceil(pages / cellPages))
    check(addon.storeMap(this.handle, guest, cellPages, cells), 'map pages')
    return cells
  }

  get totals(): StoreTotals {
    const results = new Float64Array(4)
    addon.storeTotals(this.handle, results)
    return {
      objects: results[0]!,
      poolBytes: results[1]!,
      swapBytes: results[2]!,
      bookBytes: results[3]!,
    }
  }

  /** What is under way is finished first. What is stored stays. */
  close(): void {
    addon.storeClose(this.handle)
  }
}

/** Pages of a RAM file that are there and were written: what can be evicted. Looks without a mapping of its own. */
export function residentPages(ramPath: string, pages: number): PageRanges {
  const fd = openSync(ramPath, 'r')
  try {
    return dataPages(fd, pages * pageBytes)
  } finally {
    closeSync(fd)
  }
}

type Five = [number, number, number, number, number]
type Seven = [number, number, number, number, number, number, number]

const isFull = (error: number) => error === constants.errno.ENOSPC || error === constants.errno.ENOMEM

/** @throws SubpageError */
function check(error: number, what: string): void {
  if (error === 0) return
  if (error === constants.errno.EINVAL) throw new TypeError(`cannot ${what}: no such guest or page`)
  if (error === constants.errno.EBADMSG)
    throw new SubpageError('STORE_DAMAGED', `cannot ${what}: what is stored is not what was put there`)
  if (error === constants.errno.ENODATA)
    throw new SubpageError(
      'STORE_DAMAGED',
      `cannot ${what}: the swap file does not hold what was written to it`,
    )
  const name = Object.entries(constants.errno).find(([, number]) => number === error)?.[0] ?? String(error)
  throw new SubpageError(isFull(error) ? 'NO_SPACE' : 'INTERNAL', `cannot ${what}: ${name}`)
}

function storeError(cause: unknown, what: string): unknown {
  if (!(cause instanceof Error) || !('code' in cause)) return cause
  const message = `${what}: ${cause.message}`
  if (cause.code === 'EBADMSG') return new SubpageError('STORE_DAMAGED', message, { cause })
  if (cause.code === 'ENODEV')
    return new SubpageError('BAD_ARGUMENT', `${what}: pages are in a swap file, and none is given`, { cause })
  if (cause.code === 'ENOSPC' || cause.code === 'ENOMEM')
    return new SubpageError('NO_SPACE', message, { cause })
  return new SubpageError('BAD_ARGUMENT', message, { cause })
}
