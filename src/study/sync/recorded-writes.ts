/**
 * A recording played again: its memory, and a tracker of what is written to it. Time is that of the recording, in its steps:
 * what was recorded every 2.5 ms shows what an epoch of 25 ms looked like after each tenth of it.
 */
import { applySync } from '../../delta/apply.ts'
import { pageBytes } from '../../memory/page.ts'
import { PageRanges } from '../../memory/page-ranges.ts'
import { Region } from '../../memory/region.ts'
import type { EarlyHarvest, Tracker } from '../../tracking/tracker.ts'
import type { Trace, TraceEpoch } from '../trace.ts'

const pieceBytes = 2 ** 20

/** Pages that were written since the last harvest, as the recording's tracker named them. */
export class RecordedWrites implements Tracker {
  readonly name = 'userfault'
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

/** The memory when the recording began. */
export function baseOf(trace: Trace): Region {
  const pages = Math.max(1, ...trace.areas().map(({ firstPage, pageCount }) => firstPage + pageCount))
  const base = Region.anonymous(pages * pageBytes)
  for (const delta of trace.base()) applySync(base, delta)
  return base
}

/** Pieces that hold nothing take no memory in the copy. */
export function copyOf(base: Region): Region {
  const copy = Region.anonymous(base.bytes)
  const zero = Buffer.alloc(pieceBytes)
  for (let at = 0; at < base.bytes; at += pieceBytes) {
    const piece = base.read(at, Math.min(pieceBytes, base.bytes - at))
    if (!zero.subarray(0, piece.length).equals(piece)) copy.write(at, piece)
  }
  return copy
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
  trace: Trace,
  ram: Region,
  writes: RecordedWrites,
  epochMs: number,
  course: EpochCourse,
): Promise<void> {
  let lengthMs = 0
  for (const step of trace.epochs()) {
    advance(step, ram, writes)
    lengthMs += step.lengthUs / 1000
    // Steps are of a hundredth of a millisecond more or less than was asked for.
    if (lengthMs < epochMs - stepTolerance(trace)) await course.within(lengthMs / epochMs)
    else {
      await course.end(lengthMs)
      lengthMs = 0
    }
  }
}

/** An epoch that misses its length by less than a quarter of a step is over. */
const stepTolerance = (trace: Trace) => trace.header.epochUs / 4000

function advance(step: TraceEpoch, ram: Region, writes: RecordedWrites): void {
  for (const delta of step.content ?? []) applySync(ram, delta)
  writes.add(step.dirty)
}
