/**
 * Policies that decide which pages a cache of sent pages holds, over epochs of dirty pages: ours as it is in production, and
 * what it is compared with. A hit is a dirty page that is held when its epoch ends.
 */
import { PageCache } from '../src/delta/page-cache.ts'
import type { PageRanges } from '../src/memory/page-ranges.ts'

export interface Policy {
  /** Takes the pages of one epoch; returns how many of them were held. */
  epoch(dirty: PageRanges): number
}

export const policies: Readonly<Record<string, (pages: number, slots: number) => Policy>> = {
  ours(pages, slots) {
    const cache = new PageCache(pages, slots)
    return {
      epoch(dirty) {
        const { held, missed } = cache.touch(dirty)
        cache.admit(missed)
        return held.pageCount
      },
    }
  },

  /**
   * As QEMU documents its XBZRLE cache: a page has one place, by its address, in a table whose size is a power of two. It
   * takes that place unless the page there was seen in the present round or the one before.
   */
  qemuAge(_, slots) {
    const lifetime = 2
    const places = 2 ** Math.floor(Math.log2(slots))
    const pageAt = new Int32Array(places).fill(-1)
    const ageAt = new Int32Array(places)
    let round = 0
    return {
      epoch(dirty) {
        round++
        let hits = 0
        for (const page of dirty.pages()) {
          const place = page & (places - 1)
          if (pageAt[place] === page) hits++
          else if (pageAt[place] !== -1 && ageAt[place]! + lifetime > round) continue
          pageAt[place] = page
          ageAt[place] = round
        }
        return hits
      },
    }
  },

  lru(_, slots) {
    // A Map keeps the order of insertion.
    const held = new Map<number, true>()
    return {
      epoch(dirty) {
        let hits = 0
        for (const page of dirty.pages()) {
          if (held.delete(page)) hits++
          else if (held.size === slots) held.delete(held.keys().next().value!)
          held.set(page, true)
        }
        return hits
      },
    }
  },
}
