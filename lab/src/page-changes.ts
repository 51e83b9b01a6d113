/**
 * What changed in each page of a set, as numbers: its changed lines and how many of its bytes. For recordings; one native
 * call for all pages (native/core/changes.c).
 */
import { addon } from 'subpage/memory/native'
import type { PageRanges } from 'subpage/memory/page-ranges'
import type { Region } from 'subpage/memory/region'

/** Arrays that grow with the largest set seen; what they hold is overwritten by the next call. */
export class PageChanges {
  /** Per page, ascending: bits of the changed lines, 0 to 31 and 32 to 63. */
  maps = new Uint32Array(0)
  /** Per page: how many bytes differ. */
  byteCounts = new Uint16Array(0)

  /** @param update the shadow takes the changes; else it stays as it is */
  compare(ram: Region, shadow: Region, pages: PageRanges, update: boolean): void {
    if (pages.endPage > ram.pages)
      throw new TypeError(`the ranges reach to page ${pages.endPage} of memory with ${ram.pages} pages`)
    if (this.byteCounts.length < pages.pageCount) {
      const room = Math.max(1024, 2 ** Math.ceil(Math.log2(pages.pageCount)))
      this.maps = new Uint32Array(2 * room)
      this.byteCounts = new Uint16Array(room)
    }
    addon.pageChanges(
      ram.handle,
      shadow.handle,
      pages.pairs,
      pages.runCount,
      update,
      this.maps,
      this.byteCounts,
    )
  }
}
