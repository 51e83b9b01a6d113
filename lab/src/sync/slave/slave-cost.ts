/**
 * What an epoch costs on the link with an active slave and without one, in several ways of sending. Nothing is estimated: the
 * codecs and reducers of `protect` run, and the last way's bytes are restored as the standby would.
 *
 * With a slave the primary sends a hash of each page that may differ, the standby answers with a bit for each, and the pages
 * go that differ. Not counted, as it is the same both ways: frames, and the state of the devices.
 */
import { captureSync, outBytesMin } from 'subpage/delta/capture'
import type { CodecName } from 'subpage/delta/codec'
import { Reducer, Restorer } from 'subpage/delta/reduce'
import { pageBytes } from 'subpage/memory/page'
import type { PageRanges } from 'subpage/memory/page-ranges'
import type { Region } from 'subpage/memory/region'
import { readPages, writePages } from '../../pages.ts'

export const ways = ['whole pages', 'lines', 'masked', '+ dictionary, zstd'] as const
export type Way = (typeof ways)[number]

const sentHashBytes = 8
const restoredBytesMax = 2 ** 30
/** What hashes of so many pages, and the answer, take. */
export const askingBytes = (pages: number) => pages * sentHashBytes + Math.ceil(pages / 8)

export interface SlaveCost {
  /** Pages that the primary has written, those of them that it changed, and those of these that the slave did not have. */
  dirtyPages: number
  changedPages: number
  differingPages: number
  without: Record<Way, number>
  with: Record<Way, number>
}

/** The epochs of one pair, in order: its reducers learn. */
export class SlaveCosts {
  readonly #ram: Region
  readonly #checkpoint: Region
  readonly #out = new Uint8Array(Math.max(outBytesMin, 2 ** 20))
  readonly #all: Reducer
  readonly #differing: Reducer
  readonly #restorer = new Restorer()

  /** @param checkpoint the memory at the last one; it is written to, and is as it was afterwards */
  constructor(ram: Region, checkpoint: Region) {
    this.#ram = ram
    this.#checkpoint = checkpoint
    this.#all = new Reducer(ram.pages, ['dictionary'])
    this.#differing = new Reducer(ram.pages, ['dictionary'])
  }

  /**
   * @param equal those of the dirty pages that the slave has
   * @param image the slave's, to restore from; no page is referred to
   * @returns what it costs, and what the slave is to be corrected with
   */
  async epoch(
    dirty: PageRanges,
    equal: PageRanges,
    image: Region,
  ): Promise<{ cost: SlaveCost; deltas: Uint8Array[] }> {
    const differing = dirty.subtract(equal)
    const before = readPages(this.#checkpoint, dirty)
    const capture = (pages: PageRanges, codec: CodecName) => {
      const captured = this.#capture(pages, codec)
      writePages(this.#checkpoint, dirty, before)
      return captured
    }
    const [all, some] = [capture(dirty, 'masked'), capture(differing, 'masked')]
    const deltas: Uint8Array[] = []
    const reduced = { all: await reduce(this.#all, dirty, all.deltas), some: 0 }
    reduced.some = await reduce(this.#differing, dirty, some.deltas, async (bytes, delta) => {
      if (bytes) deltas.push(await this.#restorer.restore(bytes, image, restoredBytesMax))
      else {
        this.#restorer.learn(delta)
        deltas.push(delta)
      }
    })
    const asking = askingBytes(all.changedPages)
    const cost: SlaveCost = {
      dirtyPages: dirty.pageCount,
      changedPages: all.changedPages,
      differingPages: some.changedPages,
      without: {
        'whole pages': dirty.pageCount * pageBytes,
        lines: capture(dirty, 'line').bytes,
        masked: all.bytes,
        '+ dictionary, zstd': reduced.all,
      },
      with: {
        'whole pages': askingBytes(dirty.pageCount) + differing.pageCount * pageBytes,
        lines: asking + capture(differing, 'line').bytes,
        masked: asking + some.bytes,
        '+ dictionary, zstd': asking + reduced.some,
      },
    }
    return { cost, deltas }
  }

  close(): void {
    this.#all.close()
    this.#differing.close()
    this.#restorer.close()
  }

  #capture(pages: PageRanges, codec: CodecName) {
    const deltas: Uint8Array[] = []
    let [bytes, changedPages] = [0, 0]
    for (let from: { run: number; offset: number } | undefined = { run: 0, offset: 0 }; from; ) {
      const captured = captureSync(this.#ram, this.#checkpoint, pages, { codec, out: this.#out, from })
      if (captured.stats.changedPages > 0) {
        deltas.push(this.#out.slice(0, captured.bytes))
        bytes += captured.bytes
        changedPages += captured.stats.changedPages
      }
      from = captured.next
    }
    return { deltas, bytes, changedPages }
  }
}

/** @returns bytes; what becomes of each delta is told, undefined: it goes as it is */
async function reduce(
  reducer: Reducer,
  dirty: PageRanges,
  deltas: readonly Uint8Array[],
  tell: (reduced: Uint8Array | undefined, delta: Uint8Array) => Promise<void> = async () => undefined,
): Promise<number> {
  reducer.begin(true)
  reducer.include(dirty)
  let bytes = 0
  for (const delta of deltas) {
    const stats = { lines: 0, dictionaryLines: 0, sharedLines: 0, similarPages: 0, bodyBytes: 0 }
    const reduced = await reducer.reduce(delta, undefined, 'zstd', stats)
    bytes += (reduced ?? delta).length
    await tell(reduced, delta)
  }
  return bytes
}
