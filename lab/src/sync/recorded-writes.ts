/**
 * A recording played again: its memory, and a tracker of what is written to it. Time is that of the recording, in its steps:
 * what was recorded every 2.5 ms shows what an epoch of 25 ms looked like after each tenth of it.
 */
import { applySync } from 'subpage/delta/apply'
import { pageBytes } from 'subpage/memory/page'
import { PageRanges } from 'subpage/memory/page-ranges'
import { Region } from 'subpage/memory/region'
import type { EarlyHarvest, Tracker } from 'subpage/tracking/tracker'
import { endOfAreas } from '../analysis/areas.ts'
import type { Trace, TraceEpoch } from '../trace.ts'

const piecePages = 256
const contentBytesMax = 2 ** 29

/** Pages that were written since the last harvest, as the recording's tracker named them. */
export class RecordedWrites implements Tracker {
  readonly name = 'userfault'
  readonly fallback = undefined
  #dirty = PageRanges.empty

  add(pages: PageRanges): void {
    this.#dirty = this.#dirty.union(pages)
  }

  harvest(): PageRanges {
    const dirty = this.#dirty
    this.#dirty = PageRanges.empty
    return dirty
  }

  readonly early: EarlyHarvest = {
    peek: () => this.#dirty,
    harvest: (within) => {
      const taken = this.#dirty.intersect(within)
      this.#dirty = this.#dirty.subtract(taken)
      return taken
    },
  }

  /** Nothing is held. */
  close(): void {}
}

/** A recording in memory: it is played many times. */
export class Recording {
  readonly stepMs: number
  readonly steps: TraceEpoch[] = []
  /** Only its beginning is here: the rest is more than is kept in memory. */
  readonly cut: boolean
  /** When the recording began. */
  readonly memory: Region
  /** Of the memory: all that is not zero lies in these. */
  readonly used: PageRanges

  constructor(trace: Trace) {
    const pages = endOfAreas(trace.areas())
    this.memory = Region.anonymous(pages * pageBytes)
    for (const delta of trace.base()) applySync(this.memory, delta)
    const zero = Buffer.alloc(piecePages * pageBytes)
    const used: [number, number][] = []
    for (let first = 0; first < pages; first += piecePages) {
      const count = Math.min(piecePages, pages - first)
      const piece = this.memory.read(first * pageBytes, count * pageBytes)
      if (!zero.subarray(0, piece.length).equals(piece)) used.push([first, count])
    }
    this.used = PageRanges.of(used)
    this.stepMs = trace.header.epochUs / 1000
    let bytes = 0
    for (const step of trace.epochs()) {
      bytes += (step.content ?? []).reduce((sum, { length }) => sum + length, 0)
      if (bytes > contentBytesMax) break
      this.steps.push(step)
    }
    this.cut = bytes > contentBytesMax
  }

  /** Of the memory when the recording began. */
  copy(): Region {
    const copy = Region.anonymous(this.memory.bytes)
    this.read((firstPage, content) => copy.write(firstPage * pageBytes, content))
    return copy
  }

  /** Hands over the memory before the first epoch, piece by piece; what is left out is zeros. */
  read(take: (firstPage: number, content: Uint8Array) => void): void {
    for (let left = this.used; left.pageCount > 0; ) {
      const [piece, rest] = left.take(piecePages)
      left = rest
      for (const { first, count } of piece)
        take(first, this.memory.read(first * pageBytes, count * pageBytes))
    }
  }

  [Symbol.dispose](): void {
    this.memory.close()
  }
}

/** What happens at the moments of an epoch of a replay. */
export interface EpochCourse {
  /** After a step, the epoch not being over. @param part of the epoch that has passed, below 1 */
  within(part: number): Promise<void>
  /** @param lengthMs that it had */
  end(lengthMs: number): Promise<void>
}

/**
 * Plays the recording in epochs of at least this length, each ending with the first step that completes it. What is left
 * over at the end is no epoch.
 */
export async function play(
  { steps, stepMs }: Recording,
  ram: Region,
  writes: RecordedWrites,
  epochMs: number,
  course: EpochCourse,
): Promise<void> {
  let lengthMs = 0
  for (const step of steps) {
    advance(step, ram, writes)
    lengthMs += step.lengthUs / 1000
    // An epoch that misses its length by less than a quarter of a step is over.
    if (lengthMs < epochMs - stepMs / 4) await course.within(lengthMs / epochMs)
    else {
      await course.end(lengthMs)
      lengthMs = 0
    }
  }
}

function advance(step: TraceEpoch, ram: Region, writes: RecordedWrites): void {
  for (const delta of step.content ?? []) applySync(ram, delta)
  writes.add(step.dirty)
}
