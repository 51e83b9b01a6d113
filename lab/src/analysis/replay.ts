/**
 * Rebuilds the recorded memory from the content of a trace: `image` is the memory at the end of the last epoch, `shadow`
 * what it was at the end of the last span. Capturing one against the other is what a checkpoint would have done, so lines,
 * bytes and the size of each codec's delta are exact.
 */
import { applySync, checkDelta } from 'subpage/delta/apply'
import { pageBytes } from 'subpage/memory/page'
import type { PageRanges } from 'subpage/memory/page-ranges'
import { Region } from 'subpage/memory/region'
import type { Trace, TraceEpoch } from '../trace.ts'
import { endOfAreas } from './areas.ts'
import { type Settled, Settling } from './settle.ts'

export class Replay {
  readonly #image: Region
  readonly #shadow: Region
  readonly #settling = new Settling()

  /** Takes memory for the pages that hold something, twice. @throws SubpageError NO_SPACE, TRACE_MALFORMED */
  constructor(trace: Trace) {
    if (!trace.header.content) throw new TypeError('this trace has no content to replay')
    const pages = endOfAreas(trace.areas())
    this.#image = Region.anonymous(pages * pageBytes)
    this.#shadow = Region.anonymous(pages * pageBytes)
    for (const delta of trace.base())
      for (const region of [this.#image, this.#shadow]) applySync(region, delta)
  }

  /** Moves the image to the end of the epoch. */
  advance({ content = [] }: TraceEpoch): void {
    for (const delta of content) {
      applySync(this.#image, delta)
      // The first content of memory that appeared: its start, not a change.
      if (checkDelta(delta, this.#shadow.pages).whole) applySync(this.#shadow, delta)
    }
  }

  /**
   * Ends a span: compares its dirty pages with the shadow and lets the shadow follow.
   * @param maps of changed lines where they are known already
   */
  settle(dirty: PageRanges, maps?: Uint32Array): Settled {
    return this.#settling.settle(this.#image, this.#shadow, dirty, maps)
  }

  close(): void {
    this.#image.close()
    this.#shadow.close()
  }
}
