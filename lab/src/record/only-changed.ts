/** Of pages that may not have been written, those whose content changed: all that comparing can tell. */
import { PageRanges } from 'subpage/memory/page-ranges'

interface Pages {
  dirty: PageRanges
  /** Two words a page; longer is fine. */
  changedMaps: Uint32Array
  changedBytes: Uint16Array
}

export function onlyChanged({ dirty, changedMaps, changedBytes }: Pages): Pages {
  const runs: [number, number][] = []
  const maps: number[] = []
  const bytes: number[] = []
  let index = 0
  for (const { first, count } of dirty)
    for (let page = first; page < first + count; page++, index++) {
      const [low, high] = [changedMaps[2 * index]!, changedMaps[2 * index + 1]!]
      if (low === 0 && high === 0) continue
      maps.push(low, high)
      bytes.push(changedBytes[index]!)
      const last = runs.at(-1)
      if (last && last[0] + last[1] === page) last[1]++
      else runs.push([page, 1])
    }
  return {
    dirty: PageRanges.of(runs),
    changedMaps: Uint32Array.from(maps),
    changedBytes: Uint16Array.from(bytes),
  }
}
