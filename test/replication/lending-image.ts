/**
 * An image that is never all there: what is not borrowed is rubbish in the region, and what is written to it is lost. Whoever
 * forgets to borrow finds out.
 */
import { hashBlocks } from '../../src/memory/hash.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'
import type { GiveBack, Image } from '../../src/replication/image.ts'

export class LendingImage implements Image {
  readonly region: Region
  /** What the image really is. */
  readonly content: Region
  readonly #lent: Uint8Array

  constructor(pages: number) {
    this.region = Region.anonymous(pages * pageBytes)
    this.content = Region.anonymous(pages * pageBytes)
    this.#lent = new Uint8Array(pages)
    for (let page = 0; page < pages; page++) this.#spoil(page)
  }

  get lentPages(): number {
    return this.#lent.filter((count) => count > 0).length
  }

  async borrow(pages: () => PageRanges): Promise<GiveBack> {
    const lent = [...pages().pages()]
    for (const page of lent)
      if (this.#lent[page]!++ === 0)
        this.region.write(page * pageBytes, this.content.read(page * pageBytes, pageBytes))
    return () => {
      for (const page of lent.splice(0))
        if (--this.#lent[page]! === 0) {
          this.content.write(page * pageBytes, this.region.read(page * pageBytes, pageBytes))
          this.#spoil(page)
        }
    }
  }

  hashes(): Promise<Uint8Array> {
    return hashBlocks(this.content, PageRanges.all(this.content.pages), pageBytes)
  }

  async rest(): Promise<void> {
    for (let page = 0; page < this.content.pages; page++) this.#lent[page]!++
  }

  close(): void {
    this.region.close()
    this.content.close()
  }

  #spoil(page: number): void {
    this.region.write(page * pageBytes, new Uint8Array(pageBytes).fill(0xa5))
  }
}
