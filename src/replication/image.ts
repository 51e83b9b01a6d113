/**
 * The image as a standby uses it. A host may hold it densely: then much of it is elsewhere, and what is not borrowed must
 * neither be read nor written.
 */
import { hashBlocks } from '../memory/hash.ts'
import { pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import type { Region } from '../memory/region.ts'

export type GiveBack = () => void

export interface Image {
  readonly region: Region
  /**
   * Resolves when these pages are whole in `region`; they stay so until they are given back.
   * @param pages asked for only when it matters
   * @throws SubpageError NO_SPACE, KEEPER_FAILED, STORE_DAMAGED; nothing is borrowed then
   */
  borrow(pages: () => PageRanges): Promise<GiveBack>
  /** XXH3-128 of every page in order, 16 bytes each, wherever it is. @throws SubpageError as `borrow` */
  hashes(): Promise<Uint8Array>
  /** From its resolution on nothing moves in it any more: it becomes a guest's memory. */
  rest(): Promise<void>
}

const nothing = () => undefined

/** All of it is in the region, always. */
export function wholeImage(region: Region): Image {
  return {
    region,
    borrow: async () => nothing,
    hashes: () => hashBlocks(region, PageRanges.all(region.pages), pageBytes),
    rest: async () => undefined,
  }
}
