/** Which parts of the memory the changes are in: sums per area of the target. */
import { lineCount, type TraceArea } from '../trace.ts'
import type { Span } from './spans.ts'

export interface AreaTotal {
  /** Areas of one name are one. */
  name: string
  pages: number
  dirtyPages: number
  changedLines: number
}

/** The page after the last one of a recording's memory; 1 when it has none. A process may have had very many areas. */
export function endOfAreas(areas: readonly TraceArea[]): number {
  return areas.reduce((end, area) => Math.max(end, endOf(area)), 1)
}

export class AreaTotals {
  readonly #ascending: (TraceArea & { total: AreaTotal })[]
  readonly #totals = new Map<string, AreaTotal>()

  constructor(areas: readonly TraceArea[]) {
    this.#ascending = [...areas]
      .sort((a, b) => a.firstPage - b.firstPage)
      .map((area) => ({ ...area, total: this.#totalOf(area) }))
  }

  add({ dirty, changedMaps }: Pick<Span, 'dirty' | 'changedMaps'>): void {
    let [at, area] = [0, 0]
    for (const { first, count } of dirty)
      for (let page = first; page < first + count; page++, at++) {
        while (area < this.#ascending.length && page >= endOf(this.#ascending[area]!)) area++
        const total = this.#ascending[area]?.total
        if (!total) continue
        total.dirtyPages++
        total.changedLines += lineCount(changedMaps, at)
      }
  }

  /** Those that were written to, the busiest first. */
  busiest(): AreaTotal[] {
    return [...this.#totals.values()]
      .filter(({ dirtyPages }) => dirtyPages > 0)
      .sort((a, b) => b.dirtyPages - a.dirtyPages || (a.name < b.name ? -1 : 1))
  }

  #totalOf({ name, pageCount }: TraceArea): AreaTotal {
    const total = this.#totals.get(name) ?? { name, pages: 0, dirtyPages: 0, changedLines: 0 }
    total.pages += pageCount
    this.#totals.set(name, total)
    return total
  }
}

const endOf = ({ firstPage, pageCount }: TraceArea) => firstPage + pageCount
