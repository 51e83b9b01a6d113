/**
 * Spans: one or more recorded epochs taken as one, which answers what a longer epoch would have seen.
 *
 * Dirty pages and written lines of a span are the union of those of its epochs, which is what a tracker would have named.
 * Changed lines are exact for a single epoch. For several they are exact when the trace has content, since the memory is
 * rebuilt and compared (replay.ts). Without content the union of the maps stands for them: an upper bound, because a line
 * that changed and changed back, or was counted in several epochs, differs less often at the end than in between. The
 * amplification is then a lower bound.
 */
import type { CodecName } from 'subpage/delta/codec'
import { lineBytes } from 'subpage/memory/page'
import { PageRanges } from 'subpage/memory/page-ranges'
import { lineCount, type Trace, type TraceEpoch, type TraceGap } from '../trace.ts'
import type { Replay } from './replay.ts'

/** Valid until the next one is asked for: arrays are used again. */
export interface Span {
  startUs: number
  lengthUs: number
  /** Recorded epochs in it, and those that a late recorder let pass. */
  epochCount: number
  dirty: PageRanges
  /** Two numbers a dirty page, as TraceEpoch has them. */
  changedMaps: Uint32Array
  /** In all pages together; for merged maps an upper bound as the lines are. */
  changedBytes: number
  /** Whether changed lines and bytes are exact. */
  exact: boolean
  writtenMaps: Uint32Array | undefined
  counters: Record<string, number>
  /** Bytes that each codec would send for it; only with content. */
  codecBytes: Record<CodecName, number> | undefined
  /** Before its first epoch. */
  gapBefore: TraceGap | undefined
}

/**
 * @param epochsPerSpan 1 or more. A span that lost time would cut, or that the end of the recording cuts, is left out.
 * @param replay rebuilds the content; for a trace that has it
 */
export function* spans(trace: Trace, epochsPerSpan: number, replay?: Replay): Generator<Span> {
  const merge = new Merge()
  let group: { epochs: number; recorded: number; start: TraceEpoch; lengthUs: number } | undefined
  let counters: Record<string, number> = {}
  for (const epoch of trace.epochs()) {
    replay?.advance(epoch)
    if (epoch.gapBefore?.cause === 'lost' && group) {
      replay?.settle(merge.finish(false).dirty)
      group = undefined
    }
    const passed = epoch.gapBefore?.cause === 'late' ? epoch.gapBefore.epochsMissed : 0
    if (!group) {
      group = { epochs: 0, recorded: 0, start: epoch, lengthUs: 0 }
      counters = Object.fromEntries(trace.header.counters.map((name) => [name, 0]))
    }
    group.epochs += 1 + passed
    group.recorded++
    group.lengthUs += epoch.lengthUs
    for (const name of trace.header.counters) counters[name]! += epoch.counters[name] ?? 0
    const single = group.recorded === 1 && group.epochs >= epochsPerSpan
    if (!single) merge.add(epoch)
    if (group.epochs < epochsPerSpan) continue
    const merged = single ? alone(epoch) : merge.finish(trace.header.written)
    const known = replay?.settle(merged.dirty, single ? epoch.changedMaps : undefined)
    yield {
      startUs: group.start.startUs,
      lengthUs: group.lengthUs,
      epochCount: group.epochs,
      ...merged,
      ...(known && { ...known, exact: true }),
      codecBytes: known?.codecBytes,
      counters,
      gapBefore: group.start.gapBefore,
    }
    group = undefined
  }
}

type Merged = Pick<Span, 'dirty' | 'changedMaps' | 'changedBytes' | 'exact' | 'writtenMaps'>

function alone(epoch: TraceEpoch): Merged {
  let changedBytes = 0
  for (const bytes of epoch.changedBytes) changedBytes += bytes
  return {
    dirty: epoch.dirty,
    changedMaps: epoch.changedMaps,
    changedBytes,
    exact: true,
    writtenMaps: epoch.writtenMaps,
  }
}

/** The union of epochs, by page number. */
class Merge {
  #pages: number[] = []
  #seen = new Uint8Array(0)
  #changed = new Uint32Array(0)
  #written = new Uint32Array(0)
  #bytes = new Uint32Array(0)

  add(epoch: TraceEpoch): void {
    this.#room(epoch.dirty.endPage)
    let at = 0
    for (const { first, count } of epoch.dirty)
      for (let page = first; page < first + count; page++, at++) {
        if (this.#seen[page] === 0) {
          this.#seen[page] = 1
          this.#pages.push(page)
        }
        for (const half of [0, 1]) {
          this.#changed[2 * page + half]! |= epoch.changedMaps[2 * at + half]!
          if (epoch.writtenMaps) this.#written[2 * page + half]! |= epoch.writtenMaps[2 * at + half]!
        }
        this.#bytes[page]! += epoch.changedBytes[at]!
      }
  }

  /** What was added, and begins anew. */
  finish(written: boolean): Merged {
    const pages = Uint32Array.from(this.#pages).sort()
    const changedMaps = new Uint32Array(2 * pages.length)
    const writtenMaps = written ? new Uint32Array(2 * pages.length) : undefined
    let changedBytes = 0
    pages.forEach((page, at) => {
      for (const half of [0, 1]) {
        changedMaps[2 * at + half] = this.#changed[2 * page + half]!
        if (writtenMaps) writtenMaps[2 * at + half] = this.#written[2 * page + half]!
        this.#changed[2 * page + half] = 0
        this.#written[2 * page + half] = 0
      }
      changedBytes += Math.min(this.#bytes[page]!, lineBytes * lineCount(changedMaps, at))
      this.#bytes[page] = 0
      this.#seen[page] = 0
    })
    this.#pages = []
    return { dirty: rangesOf(pages), changedMaps, changedBytes, exact: false, writtenMaps }
  }

  #room(pages: number): void {
    if (pages <= this.#seen.length) return
    const wanted = Math.max(pages, 2 * this.#seen.length)
    const grow = (old: Uint32Array, length: number) => {
      const grown = new Uint32Array(length)
      grown.set(old)
      return grown
    }
    const seen = new Uint8Array(wanted)
    seen.set(this.#seen)
    this.#seen = seen
    this.#changed = grow(this.#changed, 2 * wanted)
    this.#written = grow(this.#written, 2 * wanted)
    this.#bytes = grow(this.#bytes, wanted)
  }
}

/** @param pages ascending, each once */
function rangesOf(pages: Uint32Array): PageRanges {
  const pairs = new Uint32Array(2 * pages.length)
  let runs = 0
  for (const page of pages) {
    if (runs > 0 && pairs[2 * runs - 2]! + pairs[2 * runs - 1]! === page) pairs[2 * runs - 1]!++
    else {
      pairs[2 * runs] = page
      pairs[2 * runs + 1] = 1
      runs++
    }
  }
  return PageRanges.fromPairs(pairs, runs)
}
