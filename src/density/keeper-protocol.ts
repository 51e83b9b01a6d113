/**
 * What agent and keeper say to each other over the keeper's unix socket: a line of JSON each way for every request, in any
 * order of answers. A keeper outlives an upgrade, and serves guests of supervisors of both releases: so calls are added and never
 * changed, and whoever needs one that an older keeper lacks is told so (`callsSince`).
 */
import type { ProcessIdentity } from '../qemu/process.ts'
import type { PagerStats } from './pager.ts'
import type { EvictTally, FetchOptions, PageSplit, StoreTotals } from './store.ts'

/** Raised with each call that is added. */
export const keeperVersion = 5

export interface KeptGuest {
  /** Unique for ever: what is stored under it belongs to this guest and no other. */
  id: string
  name: string
  ramPath: string
  ramPages: number
  /** Its QEMU. */
  process: ProcessIdentity
  shimStatusPath: string
  leasePath: string
  /** Guests that give the same one share pages; without it a guest shares with itself only. */
  trustDomain?: string
}

/** Pairs of first page and page count. */
export type Runs = number[]

export interface KeptStatus {
  id: string
  split: PageSplit
  pager: PagerStats | null
}

export interface KeeperStatus {
  version: number
  pid: number
  guests: KeptStatus[]
  totals: StoreTotals
}

/** Request by name: what it takes and what it gives; `cpuMs` is what the keeper computed meanwhile. */
export interface KeeperCalls {
  status: { takes: object; gives: KeeperStatus }
  /** Costs nothing: whether it answers. */
  ping: { takes: object; gives: object }
  attach: { takes: { guest: KeptGuest }; gives: object }
  /**
   * The guest stands still under the pause lease `held`; `held` in the answer goes on with it. Null: it does not run yet, and
   * whoever asks sees to it that nobody writes to these pages.
   */
  evict: {
    takes: { id: string; held: string | null; runs: Runs; onlySmaller: boolean; trim: boolean }
    gives: { held: string | null; tally: EvictTally; cpuMs: number }
  }
  /** Pages of the guest that are in its RAM file and hold anything. */
  resident: { takes: { id: string }; gives: { runs: Runs } }
  /**
   * Where the guest's memory is, by cells of so many pages: for each a row of heldWays (store.ts), and the pages that are in its RAM
   * file and hold anything. Pages on the move may be in both.
   */
  map: { takes: { id: string; cellPages: number }; gives: { held: number[]; resident: Runs } }
  /** Brings pages back into the RAM file. */
  fetch: { takes: { id: string; runs: Runs } & FetchOptions; gives: { pages: number } }
  /** XXH3-128 of pages, wherever they are; 16 bytes each, in base64. */
  hashes: { takes: { id: string; runs: Runs }; gives: { hashes: string } }
  /** At most one a second, whoever asks. */
  sweep: {
    takes: { objectsMax: number; agePack: number; ageSwap: number }
    gives: { cpuMs: number }
  }
  /** Brings everything back and lets go of the guest, which goes on alone. */
  detach: { takes: { id: string }; gives: object }
  /** Of a guest that has ended: throws away what is stored. */
  forget: { takes: { id: string }; gives: object }
}

export type KeeperCall = keyof KeeperCalls

/** The version that a call was added with; all others were there before. */
export const callsSince: { readonly [Call in KeeperCall]?: number } = { map: 5 }

export interface KeeperRequest {
  number: number
  call: KeeperCall
  takes: unknown
}

export type KeeperAnswer =
  | { number: number; gives: unknown }
  | { number: number; error: { code: string; message: string } }
