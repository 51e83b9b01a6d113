/**
 * Of a guest's RAM, the pages that its file holds. What the guest never touched is a hole there, or reserved room, and reads as zeros; but
 * to read it through a mapping makes a page of it, which has to be cleared: for a large guest that takes long, and leaves nothing
 * untouched.
 */
import { closeSync, openSync } from 'node:fs'
import { dataPages } from 'subpage/memory/data-pages'
import { pageBytes } from 'subpage/memory/page'
import { PageRanges } from 'subpage/memory/page-ranges'

export class HeldPages {
  readonly #fd: number
  readonly #ramPages: number
  /** What was held the last time: a page that was given back since has changed. */
  #before = PageRanges.empty

  constructor(ramPath: string, ramPages: number) {
    this.#fd = openSync(ramPath, 'r')
    this.#ramPages = ramPages
  }

  /** Of a tracker's pages, those that can be other than zero, or were. A tracker that knows nothing names all pages. */
  among(pages: PageRanges): PageRanges {
    if (pages.pageCount < this.#ramPages) return pages
    const now = dataPages(this.#fd, this.#ramPages * pageBytes)
    const either = now.union(this.#before)
    this.#before = now
    return either
  }

  close(): void {
    closeSync(this.#fd)
  }
}
