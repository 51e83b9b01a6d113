/**
 * What leaves a guest's memory in one pass: the not-recently-used clock of the Difference Engine (OSDI 2008, 4.4), on the
 * classes of the hot map (workingset/hot-map.ts).
 *
 *   C1 modified   recently modified: stays
 *   C2 accessed   recently accessed: stays; here a page in the store is not mapped, so it would be back at once
 *   C3 idle       not recently accessed: goes if it is shared or becomes a patch, and stays as a whole page
 *   C4 cold       long unaccessed: goes, and the sweep packs and swaps what stays away
 *
 * A guest above its target gives C3 too; one that has reached it gives nothing more.
 */
import { PageRanges } from '../memory/page-ranges.ts'
import type { HotMap } from '../workingset/hot-map.ts'

export interface ClockSettings {
  recentMs: number
  coldMs: number
}

export interface Pass {
  /** These go, whatever becomes of them. */
  cold: PageRanges
  /** These go only if they become smaller. */
  idle: PageRanges
}

/**
 * @param among pages that are in the guest's RAM
 * @param residentPages how many those are
 * @param targetPages undefined: as few as may be
 * @param pagesMax the guest's share of this pass
 */
export function choosePass(
  hotMap: HotMap,
  { recentMs, coldMs }: ClockSettings,
  among: PageRanges,
  residentPages: number,
  targetPages: number | undefined,
  pagesMax: number,
): Pass {
  const over = targetPages === undefined ? Number.POSITIVE_INFINITY : residentPages - targetPages
  const most = Math.min(pagesMax, over)
  if (most <= 0) return { cold: PageRanges.empty, idle: PageRanges.empty }
  const cold = hotMap.cold(Math.max(recentMs, coldMs)).intersect(among)
  if (cold.pageCount >= most) return { cold: coldest(hotMap, cold, most), idle: PageRanges.empty }
  const idle = hotMap.cold(recentMs).intersect(among).subtract(cold)
  const pressed = targetPages === undefined ? 0 : most - cold.pageCount
  const [taken, rest] = [coldest(hotMap, idle, pressed), idle]
  return {
    cold: cold.union(taken),
    idle: coldest(hotMap, rest.subtract(taken), most - cold.pageCount - taken.pageCount),
  }
}

/** Those that have been idle for the longest time. */
function coldest(hotMap: HotMap, pages: PageRanges, count: number): PageRanges {
  if (pages.pageCount <= count) return pages
  if (count <= 0) return PageRanges.empty
  const order = Uint32Array.from(pages.pages()).sort((a, b) => hotMap.idleMs(b) - hotMap.idleMs(a) || a - b)
  return PageRanges.of(Array.from(order.subarray(0, count), (page) => [page, 1] as const))
}
