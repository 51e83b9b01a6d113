/**
 * From a part of the pages to all of them: how many of a guest's pages have a property, when only `watched` ones were looked
 * at, and how far off that may be.
 *
 * The part is a stratified sample of blocks (plan.ts), so its error comes from how neighbouring blocks differ: the
 * successive-difference estimator of variance (Wolter, Introduction to Variance Estimation, chapter 8). For memory used in
 * one piece it is nearly nothing, for pages scattered at random it is that of simple random sampling.
 */
import type { PageRanges } from '../memory/page-ranges.ts'

export interface Share {
  pages: number
  /** Half the width of the 95 % interval. */
  plusMinus: number
}

const z95 = 1.96

/**
 * @param pages of the guest
 * @param found those of `watched` that have the property
 */
export function scaleUp(pages: number, watched: PageRanges, found: PageRanges): Share {
  if (watched.pageCount === 0) return { pages: 0, plusMinus: pages }
  const scale = pages / watched.pageCount
  const share = { pages: found.pageCount * scale, plusMinus: 0 }
  if (watched.pageCount >= pages || watched.runCount < 2) return share
  const counts = countsIn(watched, found)
  let differences = 0
  for (let i = 1; i < counts.length; i++) differences += (counts[i]! - counts[i - 1]!) ** 2
  const unwatched = 1 - watched.pageCount / pages
  const variance = (unwatched * counts.length * differences) / (2 * (counts.length - 1))
  // Where all looked alike, one block may still have been missed: the rule of three.
  const atLeast = 3 * (watched.pageCount / watched.runCount) * unwatched
  share.plusMinus = scale * Math.max(z95 * Math.sqrt(variance), found.pageCount > 0 ? atLeast / 2 : 0)
  return share
}

/** How many of `found` are in each run of `watched`. */
function countsIn(watched: PageRanges, found: PageRanges): number[] {
  const counts: number[] = []
  let at = 0
  for (const { first, count } of watched) {
    const end = first + count
    let inside = 0
    while (at < found.runCount && found.end(at) <= first) at++
    for (let run = at; run < found.runCount && found.first(run) < end; run++)
      inside += Math.min(found.end(run), end) - Math.max(found.first(run), first)
    counts.push(inside)
  }
  return counts
}
