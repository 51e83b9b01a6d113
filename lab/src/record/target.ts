/**
 * What can be recorded, as the recorder sees it: something that can be held for a moment, and that then says which pages
 * were written since the last time.
 */
import type { PageRanges } from 'subpage/memory/page-ranges'
import type { Region } from 'subpage/memory/region'
import type { TargetKind, TraceArea, TraceHeader } from '../trace.ts'

export interface Held<T> {
  value: T
  /** Of the same clock as performance.now(), in ms: when it stood still, and when it ran again. */
  heldAt: number
  resumedAt: number
  /** What the target itself stood still for; 0 when it was not held. */
  pauseUs: number
  /** Why the moment was not sharp; undefined when all is well. */
  torn: string | undefined
  /** What was written from the last time until then is not known (same clock). */
  lost?: { until: number; reason: string }
}

export interface Harvest {
  /** Pages that were written. Their bytes are in `ram` from now until the target runs on. */
  dirty: PageRanges
  /** Memory that the target has had since the last harvest; all its pages that hold data are dirty. */
  newAreas: readonly TraceArea[]
  /** Two words a page of `dirty`, when the tracker knows lines. */
  writtenMaps?: Uint32Array
  counters?: Record<string, number>
  /** What the tracker cannot see, found out since the last harvest: for people, as `notes` of the target. */
  newNotes?: readonly string[]
}

export interface RecordTarget {
  readonly kind: TargetKind
  readonly name: string
  readonly tracker: TraceHeader['tracker']
  /** The tracker names pages that may not have been written: only those whose content changed count. */
  readonly guesses: boolean
  /** Harvests have writtenMaps. */
  readonly written: boolean
  readonly counters: readonly string[]
  readonly notes: readonly string[]
  readonly areas: readonly TraceArea[]
  readonly memoryBytes: number
  /** What `areas` count pages of, and those to come; not all of it need hold something. */
  readonly ram: Region
  /** The longest time for which it was held before the first harvest; 0 when it did not run before. */
  readonly startPauseUs: number
  /** How it ended, in words, once it has. */
  readonly endedHow: string | undefined
  /** The same for programs, of a process. */
  readonly ended: { exitStatus: number } | { signal: number } | undefined
  /**
   * Holds the target, looks, and lets it run again whatever happens.
   * @returns undefined when it cannot be held just now: try again in a moment
   * @throws SubpageError GUEST_DIED when the target has ended
   */
  hold<T>(look: () => T): Promise<Held<T> | undefined>
  /** Before the first epoch: copies what was written until now without holding the target, so that the next hold is short. */
  catchUp(): Promise<void>
  /** Asked again and again while it runs. @throws SubpageError when its memory must not be read any longer */
  assertReadable(): void
  /** While held. The first harvest reports every page that may hold data. */
  harvest(): Harvest
  /** Lets go; the target runs on as if nobody had watched. */
  close(): Promise<void> | void
}
