/** Changed lines by time and place, on a grid small enough to look at. */
import { pageBytes } from 'subpage/memory/page'
import { lineCount, type TraceArea, type TraceEnd } from '../trace.ts'
import { endOfAreas } from './areas.ts'
import type { Span } from './spans.ts'

const columnsMax = 180
const rowsMax = 96

export class HeatGrid {
  readonly columns: number
  readonly rows: number
  /** By row from the lowest page; changed lines. */
  readonly cells: Float64Array
  /** Dirty pages, in the same order. */
  readonly dirty: Float64Array
  readonly pages: number
  readonly #end: number
  readonly #byIndex: boolean
  #index = 0

  /** @param byIndex a series of images has no time: its columns are epochs */
  constructor(areas: readonly TraceArea[], end: TraceEnd, byIndex: boolean) {
    this.pages = endOfAreas(areas)
    this.#byIndex = byIndex
    this.#end = Math.max(1, byIndex ? end.epochCount : end.lengthUs)
    this.columns = Math.max(1, Math.min(columnsMax, end.epochCount))
    this.rows = Math.min(rowsMax, this.pages)
    this.cells = new Float64Array(this.columns * this.rows)
    this.dirty = new Float64Array(this.columns * this.rows)
  }

  get bytes(): number {
    return this.pages * pageBytes
  }

  add(span: Span): void {
    const middle = this.#byIndex ? this.#index + span.epochCount / 2 : span.startUs + span.lengthUs / 2
    this.#index += span.epochCount
    const column = Math.min(this.columns - 1, Math.floor((middle / this.#end) * this.columns))
    let at = 0
    for (const { first, count } of span.dirty)
      for (let page = first; page < first + count; page++, at++) {
        const cell =
          Math.min(this.rows - 1, Math.floor((page / this.pages) * this.rows)) * this.columns + column
        this.cells[cell]! += lineCount(span.changedMaps, at)
        this.dirty[cell]!++
      }
  }
}
