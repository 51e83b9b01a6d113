/**
 * Records a series of memory images: from each to the next is one epoch. It has no time, and a dirty page is one that
 * differs. Images of a machine have one size; cores of a process may map more or less from one to the next.
 */
import { type CapturePosition, capture } from 'subpage/delta/capture'
import { SubpageError } from 'subpage/errors'
import { type ImageArea, type MemoryImage, openImage } from 'subpage/memory/images/memory-image'
import { pageBytes } from 'subpage/memory/page'
import { PageRanges, type PageRun } from 'subpage/memory/page-ranges'
import { Region } from 'subpage/memory/region'
import { PageChanges } from '../page-changes.ts'
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
  /** All other pages are zero and take no memory. */
  #written = PageRanges.empty
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
      for (const [index, image] of this.#images.entries()) {
        const loaded = this.#load(image, now, index === 0 ? 'zero' : this.#holes)
        if (index === 0)
          await this.#encode(now, before, loaded, true, (delta) => content && writer.base(delta))
        else await this.#epoch(writer, now, before, loaded)
        progress(this.#so(writer, began, undefined))
      }
      writer.end('time', 0)
    } catch (error) {
      throw writer.fail(error)
    }
    return this.#so(writer, began, 'time')
  }

  /** @param loaded the pages that can differ */
  async #epoch(writer: TraceWriter, now: Region, before: Region, loaded: PageRanges): Promise<void> {
    this.#changes.compare(now, before, loaded, false)
    const { maps, byteCounts } = this.#changes
    const pages = onlyChanged({ dirty: loaded, changedMaps: maps, changedBytes: byteCounts })
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

  /** Makes `into` what the image is. @returns the pages that it has written */
  #load(image: MemoryImage, into: Region, holes: Holes): PageRanges {
    const offsets = areaOffsets(image.areas, this.#areas)
    const data = moved(image.data, image.areas, offsets)
    // What an image leaves out is zero or as it was, as the caller says; a hole within what it names is always zero.
    const named = holes === 'zero' ? this.#written : moved(image.held, image.areas, offsets)
    const zero = this.#written.intersect(named).subtract(data)
    this.#piece.fill(0)
    for (const { first, count } of pieces(zero))
      into.write(first * pageBytes, this.#piece.subarray(0, count * pageBytes))
    for (const { first, count, area } of inAreas(pieces(image.data), image.areas)) {
      const piece = this.#piece.subarray(0, count * pageBytes)
      image.read(first, piece)
      into.write((first + offsets[area]!) * pageBytes, piece)
    }
    this.#written = this.#written.union(data)
    return data.union(zero)
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
  const spans: { address: number; end: number }[] = []
  for (const { areas } of images)
    for (const { address, pageCount } of areas) spans.push({ address, end: address + pageCount * pageBytes })
  const joined: { address: number; end: number }[] = []
  for (const span of spans.sort((a, b) => a.address - b.address)) {
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

/** For each area of an image, what to add to its page numbers to have those of the series. Both are sorted by address. */
function areaOffsets(areas: readonly ImageArea[], series: readonly TraceArea[]): number[] {
  let at = 0
  return areas.map(({ address, firstPage }) => {
    while (at + 1 < series.length && series[at + 1]!.address <= address) at++
    const { address: base, firstPage: baseFirst } = series[at]!
    return baseFirst + (address - base) / pageBytes - firstPage
  })
}

/** Pages of an image by their numbers in the series. */
function moved(pages: PageRanges, areas: readonly ImageArea[], offsets: readonly number[]): PageRanges {
  const runs: [number, number][] = []
  for (const { first, count, area } of inAreas(pages, areas)) runs.push([first + offsets[area]!, count])
  return PageRanges.of(runs)
}

/** Runs, ascending, cut where areas end; `area` is the index of theirs. */
function* inAreas(
  runs: Iterable<PageRun>,
  areas: readonly ImageArea[],
): Generator<PageRun & { area: number }> {
  let area = 0
  for (const run of runs)
    for (let { first, count } = run; count > 0; ) {
      while (areas[area]!.firstPage + areas[area]!.pageCount <= first) area++
      const within = Math.min(count, areas[area]!.firstPage + areas[area]!.pageCount - first)
      yield { first, count: within, area }
      first += within
      count -= within
    }
}

/** Runs, cut to what is read and written at once. */
function* pieces(runs: Iterable<PageRun>): Generator<PageRun> {
  const most = pieceBytes / pageBytes
  for (const { first, count } of runs)
    for (let at = 0; at < count; at += most) yield { first: first + at, count: Math.min(most, count - at) }
}
