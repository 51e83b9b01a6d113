/**
 * Where the memory of a guest is and how hot, by cells: runs of pages of one length, few enough to be looked at as a picture. Each page
 * counts once, so that the counts of a cell add up to its pages:
 *
 *   modified, accessed, idle, cold   in RAM, by classes of the hot map (workingset/hot-map.ts); also modified: changed in one of the
 *                                    latest epochs
 *   unknown                          in RAM, or nobody knows where; nobody has looked
 *   holes                            never written
 *   filled … whole                   in the store (store.ts)
 */
import { SubpageError } from '../errors.ts'
import type { PageRanges } from '../memory/page-ranges.ts'
import type { HotMap, PageClass } from '../workingset/hot-map.ts'
import { heldWays } from './store.ts'

const classes = ['modified', 'accessed', 'idle', 'cold', 'unknown'] as const satisfies PageClass[]
export const memoryKinds = [...classes, 'holes', ...heldWays] as const
const holesAt = classes.length
const heldAt = classes.length + 1

/** Cells of a map, at most. */
const cellsMax = 1024
/** Counted at a time: some tenths of a millisecond. */
const slicePages = 2048

/** What is known of a guest's pages; each source may be missing. */
export interface MemorySources {
  pages: number
  hotMap: HotMap | undefined
  /** What counts as recent, and as cold. */
  recentMs: number
  coldMs: number
  /** In how many of the latest epochs a page has changed. */
  changes: ((page: number) => number) | undefined
  /** Of a dense guest: for each cell a row of heldWays, and what is in its RAM file. Pages on the move may be in both. */
  stored: { held: ArrayLike<number>; resident: PageRanges } | undefined
}

export const cellPagesOf = (pages: number): number => 2 ** Math.max(0, Math.ceil(Math.log2(pages / cellsMax)))

/**
 * @param breathe between two slices: a guest's checkpoints do not wait for the rest
 * @returns for each cell how many of its pages are of each of memoryKinds
 */
export async function mapMemory(
  sources: MemorySources,
  breathe: () => Promise<unknown>,
): Promise<number[][]> {
  const { pages, stored } = sources
  const cellPages = cellPagesOf(pages)
  const cells = Array.from({ length: Math.ceil(pages / cellPages) }, () =>
    new Array<number>(memoryKinds.length).fill(0),
  )
  const classOf = classifier(sources)
  let counted = 0
  for (const { first, count } of stored?.resident ?? [{ first: 0, count: pages }])
    for (let page = first; page < Math.min(first + count, pages); page++) {
      cells[Math.floor(page / cellPages)]![classOf(page)]!++
      if (++counted % slicePages === 0) await breathe()
    }
  for (const [index, cell] of cells.entries())
    if (stored) addStored(cell, Math.min(cellPages, pages - index * cellPages), stored.held, index)
  return cells
}

function addStored(cell: number[], pages: number, held: ArrayLike<number>, index: number): void {
  let left = pages
  for (let way = 0; way < heldWays.length; way++) {
    const count = held[index * heldWays.length + way]!
    cell[heldAt + way] = count
    left -= count
  }
  // It is another process: what it says wrong ends no guest's supervisor.
  if (!(left >= 0))
    throw new SubpageError('KEEPER_FAILED', 'the keeper says that it has more of a guest than there is')
  // What is on its way between RAM and the store counts there; the coldest are.
  let twice = classes.reduce((sum, _, at) => sum + cell[at]!, 0) - left
  for (let at = holesAt - 1; at >= 0 && twice > 0; at--) {
    const less = Math.min(twice, cell[at]!)
    cell[at]! -= less
    twice -= less
  }
  cell[holesAt] = Math.max(0, -twice)
}

/** @returns an index into classes */
function classifier({ hotMap, recentMs, coldMs, changes }: MemorySources): (page: number) => number {
  const numbers = Object.fromEntries(classes.map((name, at) => [name, at])) as Record<PageClass, number>
  return (page) => {
    if (changes && changes(page) > 0) return numbers.modified
    return hotMap ? numbers[hotMap.classOf(page, recentMs, coldMs)] : numbers.unknown
  }
}
