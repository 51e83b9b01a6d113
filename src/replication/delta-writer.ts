/**
 * Captures ranges of pages into reusable buffers. A checkpoint is captured whole before the guest runs again, so buffers are
 * taken as needed, and given back by whoever has sent them.
 */
import { availableParallelism } from 'node:os'
import { type CaptureStats, type CodecName, capture, captureSync } from '../delta/capture.ts'
import type { CaptureStep, Shadow } from '../delta/shadow.ts'
import { spareBuffers } from '../delta/spare-buffers.ts'
import { SubpageError } from '../errors.ts'
import type { PageRanges } from '../memory/page-ranges.ts'
import type { Region } from '../memory/region.ts'

/** Up to this many pages are captured on the event loop's own thread: a thread-pool round trip costs more. */
const inlinePagesMax = 4096

/**
 * From this many pages on two threads take half of them each: with fewer the round trip costs what is gained. On scattered pages
 * that took a tenth to a third less time, on dense ones a tenth, for there one thread keeps the memory busy. A guest that stands
 * still leaves a processor idle.
 */
const sharedPagesMin = 8192
const processors = availableParallelism()

/** One filled buffer: a self-contained delta. */
interface Chunk {
  buffer: Uint8Array
  bytes: number
}

export interface Captured {
  chunks: Chunk[]
  bytes: number
  stats: CaptureStats
}

export class DeltaWriter {
  readonly #ram: Region
  readonly #shadow: Shadow
  readonly #codec: CodecName
  /** Captures that two threads have shared. */
  sharedCaptures = 0

  constructor(ram: Region, shadow: Shadow, codec: CodecName) {
    this.#ram = ram
    this.#shadow = shadow
    this.#codec = codec
  }

  /**
   * Encodes the pages of `ranges` against the shadow and brings the shadow up to date.
   * @param whole the shadow of these pages is not what the standby holds: encode their whole content
   * @param bytesMax about so much; the pages are to be sent in pieces when it is more
   * @param changed becomes 1 where a page is not as the shadow had it
   * @throws SubpageError PAUSE_BROKEN when it is more; the shadow of any of these pages may be up to date then
   */
  async capture(
    ranges: PageRanges,
    whole: boolean,
    bytesMax = Number.POSITIVE_INFINITY,
    changed?: Uint8Array,
  ): Promise<Captured> {
    const result: Captured = {
      chunks: [],
      bytes: 0,
      stats: { pages: 0, changedPages: 0, changedLines: 0, changedBytes: 0 },
    }
    try {
      for (const step of this.#shadow.steps(ranges, whole))
        if (step.pages.pageCount > 0) await this.#captureShared(step, result, bytesMax, changed)
      return result
    } catch (error) {
      for (const { buffer } of result.chunks) spareBuffers.keep(buffer)
      throw error
    }
  }

  /** Pages are apart, and so is what a shadow remembers of them. */
  async #captureShared(
    step: CaptureStep,
    result: Captured,
    bytesMax: number,
    changed: Uint8Array | undefined,
  ): Promise<void> {
    const { pages, whole } = step
    if (pages.pageCount < sharedPagesMin || processors < 2)
      return await this.#captureAlike(step, result, bytesMax, changed)
    this.sharedCaptures++
    const halves = pages.take(Math.ceil(pages.pageCount / 2)).map((half) => ({ pages: half, whole }))
    // Both end before one's error is told: until then they use the memory.
    const ended = await Promise.allSettled(
      halves.map((half) => this.#captureAlike(half, result, bytesMax, changed)),
    )
    for (const one of ended) if (one.status === 'rejected') throw one.reason
  }

  async #captureAlike(
    { pages, whole }: CaptureStep,
    result: Captured,
    bytesMax: number,
    changed: Uint8Array | undefined,
  ): Promise<void> {
    const { region, form } = this.#shadow
    const run = pages.pageCount < inlinePagesMax ? captureSync : capture
    let from: Awaited<ReturnType<typeof capture>>['next']
    do {
      const buffer = spareBuffers.take()
      const part = await run(this.#ram, region, pages, {
        codec: this.#codec,
        form,
        whole,
        out: buffer,
        ...(changed && { changed }),
        ...(from === undefined ? {} : { from }),
      })
      from = part.next
      result.stats.pages += part.stats.pages
      result.stats.changedPages += part.stats.changedPages
      result.stats.changedLines += part.stats.changedLines
      result.stats.changedBytes += part.stats.changedBytes
      if (part.stats.changedPages > 0 || whole) {
        result.chunks.push({ buffer, bytes: part.bytes })
        result.bytes += part.bytes
      } else spareBuffers.keep(buffer)
      if (result.bytes > bytesMax)
        throw new SubpageError(
          'PAUSE_BROKEN',
          'the guest changed more within one epoch than a pause can take up: it is sent while the guest runs',
        )
    } while (from !== undefined)
  }
}
