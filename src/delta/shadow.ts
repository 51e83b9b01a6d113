/**
 * A shadow: what the primary remembers of the memory that the standby holds. There are three, for what they cost:
 *
 *   full    a copy of everything; all changes are found byte by byte, and a reducer can refer to any page
 *   cache   copies of the pages that are written again and again; those go as changes, others whole
 *   hash    16 bytes for each block; a block that has changed goes whole
 *
 * Pages whose shadow is not what the standby holds are the caller's to know: they are captured `whole`, which sets the
 * shadow whatever it held. Not made for two captures at a time.
 */
import { randomBytes } from 'node:crypto'
import { type Difference, differenceAt } from '../memory/hash.ts'
import { addon } from '../memory/native.ts'
import { pageBytes } from '../memory/page.ts'
import type { PageRanges } from '../memory/page-ranges.ts'
import { Region } from '../memory/region.ts'
import { type Grain, type ShadowForm, shadowArguments } from './capture.ts'
import { PageCache } from './page-cache.ts'

export const shadowKinds = ['full', 'cache', 'hash'] as const
export type ShadowKind = (typeof shadowKinds)[number]

/** Pages that are captured in one way. */
export interface CaptureStep {
  pages: PageRanges
  whole: boolean
}

export interface Shadow {
  readonly kind: ShadowKind
  readonly region: Region
  readonly form: ShadowForm
  /** A copy of everything, for who reads whole pages of it; undefined when there is none. */
  readonly copy: Region | undefined
  /** Memory that it takes at most. */
  readonly bytes: number
  /**
   * How to capture these pages: one step after the other, each captured before the next is asked for.
   * @param whole what the shadow holds of them is not to be trusted
   */
  steps(pages: PageRanges, whole: boolean): Iterable<CaptureStep>
  /** The standby holds these pages from `firstPage` on: whole pages, which do not change meanwhile. */
  set(firstPage: number, content: Uint8Array): void
  close(): void
}

/** A block of 256 bytes: the table takes a sixteenth of the memory. */
const hashGrainDefault: Grain = 256

const hashBytes = 16
/** Up to this many pages are compared on the caller's own thread: a thread-pool round trip costs more. */
const inlinePagesMax = 64

export function fullShadow(pages: number, grainBytes?: Grain): Shadow {
  const region = Region.anonymous(pages * pageBytes)
  return {
    kind: 'full',
    region,
    form: grainBytes === undefined ? {} : { grainBytes },
    copy: region,
    bytes: region.bytes,
    steps: inOneStep,
    set: (firstPage, content) => region.write(firstPage * pageBytes, content),
    close: () => region.close(),
  }
}

/** @param seed of the hashes; chosen at random where it is not given, so that no guest can know it */
export function hashShadow(pages: number, grainBytes: Grain = hashGrainDefault, seed = anySeed()): Shadow {
  const tableBytes = pages * (pageBytes / grainBytes) * hashBytes
  const region = Region.anonymous(Math.ceil(tableBytes / pageBytes) * pageBytes)
  const form = { grainBytes, seed }
  return {
    kind: 'hash',
    region,
    form,
    copy: undefined,
    bytes: region.bytes,
    steps: inOneStep,
    set: (firstPage, content) =>
      addon.hashedSet(region.handle, ...shadowArguments(form), pages, firstPage, content),
    close: () => region.close(),
  }
}

/** @param cacheBytes for copies of pages; more than the memory has is not taken */
export function cacheShadow(pages: number, cacheBytes: number, grainBytes?: Grain): Shadow {
  const slots = Math.max(1, Math.min(pages, Math.floor(cacheBytes / pageBytes)))
  const region = Region.anonymous(slots * pageBytes)
  const cache = new PageCache(pages, slots)
  return {
    kind: 'cache',
    region,
    form: { slots: cache.slotOf, ...(grainBytes !== undefined && { grainBytes }) },
    copy: undefined,
    bytes: region.bytes + cache.bytes,
    *steps(wanted, whole) {
      // Pages that go whole whatever the cache holds: those that it holds are brought up to date.
      if (whole) return yield { pages: wanted, whole }
      const { held, missed } = cache.touch(wanted)
      yield { pages: held, whole: false }
      // Only now: those that make room may be among the pages of the first step.
      cache.admit(missed)
      yield { pages: missed, whole: true }
    },
    set(firstPage, content) {
      for (let at = 0; at < content.length; at += pageBytes) cache.drop(firstPage + at / pageBytes)
    },
    close: () => region.close(),
  }
}

/** The first line in which memory and shadow differ, as far as the shadow knows the memory. */
export async function shadowDifference(
  ram: Region,
  { region, form }: Shadow,
): Promise<Difference | undefined> {
  const args = [ram.handle, region.handle, ...shadowArguments(form)] as const
  return differenceAt(
    ram.pages <= inlinePagesMax
      ? addon.shadowDifference(...args)
      : await addon.shadowDifferenceAsync(...args),
  )
}

function* inOneStep(pages: PageRanges, whole: boolean): Generator<CaptureStep> {
  yield { pages, whole }
}

function anySeed(): bigint {
  return randomBytes(8).readBigUInt64LE()
}
