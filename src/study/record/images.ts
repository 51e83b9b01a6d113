/**
 * Records a series of memory images: from each to the next is one epoch. It has no time, and a dirty page is one that
 * differs. Images of a machine have one size; cores of a process may map more or less from one to the next.
 */
import { type CapturePosition, capture } from '../../delta/capture.ts'
import { PageChanges } from '../../delta/page-changes.ts'
import { SubpageError } from '../../errors.ts'
import { type MemoryImage, openImage } from '../../memory/images/memory-image.ts'
import { pageBytes } from '../../memory/page.ts'
import { PageRanges } from '../../memory/page-ranges.ts'
import { Region } from '../../memory/region.ts'
import { lineCount, type TraceArea, TraceWriter } from '../trace.ts'
import { onlyChanged } from './only-changed.ts'
import { headerOf, type RecordOptions, type RecordSummary } from './recorder.ts'

/** What a hole of an image after the first means: `unchanged` in a diff snapshot, `zero` in a full one. */
export type Holes = 'unchanged' | 'zero'

type SeriesOptions = Pick<RecordOptions, 'path' | 'replace' | 'content' | 'progress'>

const pieceBytes = 1024 * 1024

/** @throws SubpageError BAD_ARGUMENT when they are no series, IMAGE_MALFORMED, FILE_EXISTS, NO_SPACE */
export async function recordImages(
  paths: readonly string[],
  holes: Holes | undefined,
  options: SeriesOptions,
): Promise<RecordSummary> {
  if (paths.length < 2) throw new SubpageError('BAD_ARGUMENT', 'a series has two images at least: name more')
  const images: MemoryImage[] = []
  try {
    for (const path of paths) images.push(openImage(path))
    checkSeries(images, holes)
    return await new Series(images, holes ?? 'zero', options).record()
  } finally {
    for (const image of images) image.close()
  }
}

function checkSeries([first, ...later]: readonly MemoryImage[], holes: Holes | undefined): void {
  for (const image of later) {
    if (image.kind !== first!.kind)
      throw new SubpageError('BAD_ARGUMENT', `${image.path} is of another kind than ${first!.path}`)
    if (image.kind !== 'raw') continue
    if (image.pageCount !== first!.pageCount)
      throw new SubpageError(
        'BAD_ARGUMENT',
        `${image.path} has ${image.pageCount * pageBytes} bytes and ${first!.path} ${first!.pageCount * pageBytes}: images of one series have one size`,
      )
    if (holes === undefined && image.held.pageCount < image.pageCount)
      throw new SubpageError(
        'BAD_ARGUMENT',
        `${image.path} has holes: say --holes unchanged if it is a diff snapshot, or --holes zero if it is a full image`,
      )
  }
}

class Series {
  readonly #images: readonly MemoryImage[]
  readonly #holes: Holes
  readonly #options: SeriesOptions
  readonly #areas: TraceArea[]
  readonly #pageCount: number
  readonly #changes = new PageChanges()
  readonly #out = new Uint8Array(pieceBytes)
  readonly #piece = new Uint8Array(pieceBytes)
  #changedLines = 0
  #dirtyPages = 0

  constructor(images: readonly MemoryImage[], holes: Holes, options: SeriesOptions) {
    this.#images = images
    this.#holes = holes
    this.#options = options
    this.#areas = joinAreas(images)
    this.#pageCount = this.#areas.reduce((sum, { pageCount }) => sum + pageCount, 0)
  }

  async record(): Promise<RecordSummary> {
    const { path, replace, content, progress } = this.#options
    using now = Region.anonymous(this.#pageCount * pageBytes)
    using before = Region.anonymous(now.bytes)
    const target = {
      kind: 'images' as const,
      name: this.#images.map((image) => image.path).join(' '),
      tracker: 'images' as const,
      guesses: true,
      written: false,
      counters: [],
      notes: ['From each image to the next is one epoch; what was written with the same value is not seen.'],
      areas: this.#areas,
      memoryBytes: now.bytes,
      endedHow: undefined,
    }
    const began = performance.now()
    const writer = new TraceWriter(path, headerOf(target, { epochMs: 0, content }), { replace })
    try {
      writer.areas(this.#areas)
      const all = PageRanges.all(this.#pageCount)
      for (const [index, image] of this.#images.entries()) {
        this.#load(image, now, index === 0 ? 'zero' : this.#holes)
        if (index === 0) await this.#encode(now, before, all, true, (delta) => content && writer.base(delta))
        else await this.#epoch(writer, now, before, all)
        progress(this.#so(writer, began, undefined))
      }
      writer.end('time', 0)
    } catch (error) {
      throw writer.fail(error)
    }
    return this.#so(writer, began, 'time')
  }

  async #epoch(writer: TraceWriter, now: Region, before: Region, all: PageRanges): Promise<void> {
    this.#changes.compare(now, before, all, false)
    const { maps, byteCounts } = this.#changes
    const pages = onlyChanged({ dirty: all, changedMaps: maps, changedBytes: byteCounts })
    await this.#encode(
      now,
      before,
      pages.dirty,
      false,
      (delta) => this.#options.content && writer.content(delta),
    )
    writer.epoch({ startUs: 0, lengthUs: 0, pauseUs: 0, ...pages })
    this.#dirtyPages += pages.dirty.pageCount
    for (let page = 0; page < pages.dirty.pageCount; page++)
      this.#changedLines += lineCount(pages.changedMaps, page)
  }

  /** Brings `before` to what `now` is; `keep` gets the deltas. */
  async #encode(
    now: Region,
    before: Region,
    pages: PageRanges,
    whole: boolean,
    keep: (delta: Uint8Array) => unknown,
  ): Promise<void> {
    let from: CapturePosition | undefined
    do {
      const { bytes, next } = await capture(now, before, pages, {
        codec: 'masked',
        whole,
        out: this.#out,
        ...(from && { from }),
      })
      keep(this.#out.subarray(0, bytes))
      from = next
    } while (from)
  }

  /** Makes `into` what the image is. */
  #load(image: MemoryImage, into: Region, holes: Holes): void {
    let zeroFrom = 0
    for (const { first, count, page } of this.#pieces(image)) {
      if (holes === 'zero') this.#zero(into, zeroFrom, page)
      zeroFrom = page + count
      const piece = this.#piece.subarray(0, count * pageBytes)
      image.read(first, piece)
      into.write(page * pageBytes, piece)
    }
    if (holes === 'zero') this.#zero(into, zeroFrom, this.#pageCount)
  }

  /** Pages that are zero already are only read: they take no memory. */
  #zero(region: Region, from: number, end: number): void {
    for (let page = from; page < end; ) {
      const count = Math.min(end - page, pieceBytes / pageBytes)
      const piece = this.#piece.subarray(0, count * pageBytes)
      region.readInto(page * pageBytes, piece)
      if (piece.some((byte) => byte !== 0)) region.write(page * pageBytes, piece.fill(0))
      page += count
    }
  }

  /** What an image holds, in pieces: pages of the image, and which page of the series the first one is. */
  *#pieces(image: MemoryImage): Generator<{ first: number; count: number; page: number }> {
    for (const area of image.areas) {
      const held = image.held.intersect(PageRanges.of([[area.firstPage, area.pageCount]]))
      const place = this.#areas.findLast(({ address }) => address <= area.address)!
      const base = place.firstPage + (area.address - place.address) / pageBytes - area.firstPage
      for (const run of held)
        for (let first = run.first; first < run.first + run.count; ) {
          const count = Math.min(run.first + run.count - first, pieceBytes / pageBytes)
          yield { first, count, page: base + first }
          first += count
        }
    }
  }

  #so(writer: TraceWriter, began: number, cause: RecordSummary['cause']): RecordSummary {
    return {
      epochs: writer.epochCount,
      gaps: 0,
      dirtyPages: this.#dirtyPages,
      changedLines: this.#changedLines,
      traceBytes: writer.bytes,
      elapsedMs: performance.now() - began,
      cause,
    }
  }
}

/** The memory of all images together, sorted by address. */
function joinAreas(images: readonly MemoryImage[]): TraceArea[] {
  const spans = images
    .flatMap(({ areas }) => areas)
    .map(({ address, pageCount }) => ({ address, end: address + pageCount * pageBytes }))
    .sort((a, b) => a.address - b.address)
  const joined: { address: number; end: number }[] = []
  for (const span of spans) {
    const last = joined.at(-1)
    if (last && span.address <= last.end) last.end = Math.max(last.end, span.end)
    else joined.push({ ...span })
  }
  let firstPage = 0
  return joined.map(({ address, end }) => {
    const area = { firstPage, pageCount: (end - address) / pageBytes, address, name: 'memory' }
    firstPage += area.pageCount
    return area
  })
}
