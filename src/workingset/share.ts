/**
 * From a part of the pages to all of them: how many of a guest's pages have a property, when only `watched` ones were looked
 * at, and how far off that may be.
 *
 * The part is a stratified sample of blocks (plan.ts), so its error comes from how neighbouring blocks differ: the
 * successive-difference estimator of variance (Wolter, Introduction to Variance Estimation, chapter 8). For memory used in
 * one piece it is nearly nothing, for pages scattered at random it is that of simple random sampling.
 */
import type { PageRanges } from '../memory/page-ranges.ts'
import type { Sampled } from './observation.ts'

export interface Share {
  pages: number
  /** Half the width of the 95 % interval. */
  plusMinus: number
}

const z95 = 1.96

/**
 * @param pages of the guest
 * @param found those of `watched` that have the property
 * @param sampled the part of `watched` that stands for others too; all of it when left out
 */
export function scaleUp(pages: number, watched: PageRanges, found: PageRanges, sampled?: Sampled): Share {
  if (!sampled) return scalePart(pages, watched, found)
  const inSample = found.intersect(sampled.part)
  const share = scalePart(sampled.of, sampled.part, inSample)
  return { pages: found.pageCount - inSample.pageCount + share.pages, plusMinus: share.plusMinus }
}

/** A ratio estimator, since blocks may hold unequal numbers of pages. */
function scalePart(pages: number, watched: PageRanges, found: PageRanges): Share {
  if (watched.pageCount === 0) return { pages: pages / 2, plusMinus: pages / 2 }
  const scale = pages / watched.pageCount
  const share = { pages: found.pageCount * scale, plusMinus: 0 }
  if (watched.pageCount >= pages) return share
  const ratio = found.pageCount / watched.pageCount
  const off = countsIn(watched, found).map((count, i) => count - ratio * (watched.end(i) - watched.first(i)))
  let differences = 0
  for (let i = 1; i < off.length; i++) differences += (off[i]! - off[i - 1]!) ** 2
  const unwatched = 1 - watched.pageCount / pages
  const variance = off.length < 2 ? 0 : (unwatched * off.length * differences) / (2 * (off.length - 1))
  // Where all looked alike, blocks that differ may still have been missed: the rule of three. Where some differed, half of it.
  const alike = found.pageCount === 0 || found.pageCount === watched.pageCount
  const missed = (alike ? 3 : 1.5) * (watched.pageCount / watched.runCount) * unwatched
  // Never beyond what can be: none of the others, or all of them.
  const most = Math.max(
    share.pages - found.pageCount,
    pages - watched.pageCount - (share.pages - found.pageCount),
  )
  share.plusMinus = Math.min(scale * Math.max(z95 * Math.sqrt(variance), missed), most)
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
