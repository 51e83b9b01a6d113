/**
 * Records a target into a trace: at each epoch's end it is held, the dirty pages are compared with a copy of what they
 * were, and what changed goes to the file after it runs again. Memory stays bounded: the copy, and one epoch.
 *
 * An epoch is time in which the target ran. A recorder that comes late loses no page: they are in a longer epoch, and a gap
 * in the trace says so.
 */
import { cpus, hostname, release as kernelRelease } from 'node:os'
import { setTimeout as delay, setImmediate } from 'node:timers/promises'
import { type CapturePosition, capture, captureSync } from 'subpage/delta/capture'
import { asSubpageError } from 'subpage/errors'
import type { PageRanges } from 'subpage/memory/page-ranges'
import { Region } from 'subpage/memory/region'
import { release } from 'subpage/release'
import { formatUs } from 'subpage/units'
import { PageChanges } from '../page-changes.ts'
import { lineCount, type RecordedEnd, type TraceHeader, TraceWriter } from '../trace.ts'
import { onlyChanged } from './only-changed.ts'
import type { Harvest, Held, RecordTarget } from './target.ts'

export interface RecordOptions {
  path: string
  replace: boolean
  epochMs: number
  /** How long; until `signal` when left out. */
  forMs: number | undefined
  content: boolean
  signal: AbortSignal
  /** Called after an epoch, about once a second. */
  progress: (so: RecordSummary) => void
  /** Called when something is found out while it records; the trace says it too. */
  noted?: (note: string) => void
}

export interface RecordSummary {
  epochs: number
  gaps: number
  dirtyPages: number
  changedLines: number
  /** Of the file so far. */
  traceBytes: number
  elapsedMs: number
  /** What recording cost the target. Of images nothing is held. */
  held?: HeldFigures
  cause: RecordedEnd | undefined
  /** How the target ended, in words, when that is the cause. */
  endedHow?: string
  /** Of a process that ended by itself, when it is known. */
  exitStatus?: number
  /** That killed it. */
  signal?: number
}

export interface HeldFigures {
  /** Of the time of the recording, 0 to 1. */
  share: number
  longestUs: number
  /** Once, before the first epoch; 0 for a command, which has not begun. */
  startUs: number
}

const deltaBytes = 1024 * 1024
const progressMs = 1000
/** Before a moment is tried again in which the target could not be held. */
const retryMs = 1
/** While an epoch lasts: whether its memory may still be read. */
const lookMs = 500

/** @throws SubpageError FILE_EXISTS, NO_SPACE, TRACKER_UNAVAILABLE, …; what was recorded until then stays (TraceWriter.fail) */
export async function record(target: RecordTarget, options: RecordOptions): Promise<RecordSummary> {
  using shadow = Region.anonymous(target.ram.bytes)
  const writer = new TraceWriter(options.path, headerOf(target, options), { replace: options.replace })
  try {
    return await new Recording(target, options, shadow, writer).run()
  } catch (error) {
    throw writer.fail(error)
  }
}

export function headerOf(
  target: Omit<
    RecordTarget,
    'hold' | 'harvest' | 'catchUp' | 'assertReadable' | 'startPauseUs' | 'ended' | 'close' | 'ram'
  >,
  { epochMs, content }: Pick<RecordOptions, 'epochMs' | 'content'>,
): TraceHeader {
  return {
    format: 1,
    target: { kind: target.kind, name: target.name },
    tracker: target.tracker,
    epochUs: Math.round(epochMs * 1000),
    memoryBytes: target.memoryBytes,
    written: target.written,
    content,
    counters: [...target.counters],
    notes: [...target.notes],
    host: { name: hostname(), kernel: kernelRelease(), cpu: cpus()[0]?.model.trim() ?? 'unknown' },
    release,
    startedAt: new Date().toISOString(),
  }
}

/** What was seen in one moment; the arrays are the recorder's own and are overwritten in the next. */
interface Look extends Harvest {
  /** Made while it was held, because their content was to be captured. */
  pages: ReturnType<typeof onlyChanged> | undefined
  deltas: Uint8Array[]
}

class Recording {
  readonly #target: RecordTarget
  readonly #options: RecordOptions
  readonly #shadow: Region
  readonly #writer: TraceWriter
  readonly #changes = new PageChanges()
  readonly #out = new Uint8Array(deltaBytes)
  readonly #summary: RecordSummary
  #began = 0
  #heldUs = 0
  #longestUs = 0
  #startUs = 0

  constructor(target: RecordTarget, options: RecordOptions, shadow: Region, writer: TraceWriter) {
    this.#target = target
    this.#options = options
    this.#shadow = shadow
    this.#writer = writer
    this.#summary = {
      epochs: 0,
      gaps: 0,
      dirtyPages: 0,
      changedLines: 0,
      traceBytes: 0,
      elapsedMs: 0,
      cause: undefined,
    }
  }

  async run(): Promise<RecordSummary> {
    const { forMs } = this.#options
    let epochStart = await this.#seed()
    this.#began = epochStart
    const end = forMs === undefined ? Number.POSITIVE_INFINITY : epochStart + forMs
    let cause: RecordedEnd | undefined
    let told = epochStart
    while (cause === undefined) {
      const due = Math.min(epochStart + this.#options.epochMs, end)
      if (!(await this.#until(due))) cause = 'interrupted'
      const held = await this.#hold()
      if (held === 'ended') {
        cause = 'target-ended'
        break
      }
      this.#write(epochStart, held)
      epochStart = held.resumedAt
      if (held.heldAt >= end) cause ??= 'time'
      if (epochStart - told >= progressMs) {
        told = epochStart
        this.#options.progress(this.#so(undefined))
      }
    }
    this.#writer.end(cause, 1000 * (epochStart - this.#began))
    return this.#so(cause)
  }

  /** False when it was interrupted. */
  async #until(due: number): Promise<boolean> {
    for (;;) {
      const next = Math.min(due, performance.now() + lookMs)
      if (!(await sleepUntil(next, this.#options.signal))) return false
      if (next === due) return true
      this.#target.assertReadable()
    }
  }

  /** Copies the memory while the target runs, then what it wrote meanwhile. Returns when it ran again. */
  async #seed(): Promise<number> {
    const { areas } = this.#target
    this.#writer.areas(areas)
    const { dirty, newNotes = [] } = this.#target.harvest()
    for (const note of newNotes) this.#note(note)
    await this.#base(dirty)
    await this.#catchUp()
    const held = await this.#hold()
    if (held === 'ended') throw this.#ended
    this.#startUs = this.#target.kind === 'command' ? 0 : Math.max(this.#target.startPauseUs, held.pauseUs)
    if (this.#startUs > 0)
      this.#writer.note(`The target was held for ${formatUs(this.#startUs)} at the start.`)
    for (const note of held.value.newNotes ?? []) this.#note(note)
    if (held.value.newAreas.length > 0) this.#writer.areas(held.value.newAreas)
    for (const delta of held.value.deltas) this.#writer.base(delta)
    return held.resumedAt
  }

  async #catchUp(): Promise<void> {
    try {
      await this.#target.catchUp()
    } catch (error) {
      // The hold that follows says so.
      if (asSubpageError(error).code !== 'GUEST_DIED') throw error
    }
  }

  async #base(pages: PageRanges): Promise<void> {
    let from: CapturePosition | undefined
    do {
      const { bytes, next } = await capture(this.#target.ram, this.#shadow, pages, {
        codec: 'masked',
        whole: true,
        out: this.#out,
        ...(from && { from }),
      })
      if (this.#options.content) this.#writer.base(this.#out.subarray(0, bytes))
      from = next
      this.#target.assertReadable()
    } while (from)
  }

  #ended: unknown

  /** Tries until the target can be held. */
  async #hold(): Promise<Held<Look> | 'ended'> {
    for (;;) {
      try {
        const held = await this.#target.hold(() => this.#look())
        if (held) return held
      } catch (error) {
        if (asSubpageError(error).code !== 'GUEST_DIED') throw error
        this.#ended = error
        return 'ended'
      }
      await delay(retryMs)
    }
  }

  #look(): Look {
    const { content } = this.#options
    const { ram } = this.#target
    const harvest = this.#target.harvest()
    this.#changes.compare(ram, this.#shadow, harvest.dirty, !content)
    if (!content) return { ...harvest, pages: undefined, deltas: [] }
    // Memory that is not held may have changed again: what is not in `pages` is left for the next epoch.
    const pages = this.#counted(harvest)
    return { ...harvest, pages, deltas: this.#capture(pages.dirty) }
  }

  /** What was harvested, or of a tracker that guesses what changed. */
  #counted({ dirty }: Harvest) {
    const { maps, byteCounts } = this.#changes
    const seen = { dirty, changedMaps: maps, changedBytes: byteCounts }
    return this.#target.guesses ? onlyChanged(seen) : seen
  }

  #capture(dirty: PageRanges): Uint8Array[] {
    const deltas: Uint8Array[] = []
    let from: CapturePosition | undefined
    do {
      const { bytes, next, stats } = captureSync(this.#target.ram, this.#shadow, dirty, {
        codec: 'masked',
        out: this.#out,
        ...(from && { from }),
      })
      if (stats.changedPages > 0) deltas.push(this.#out.slice(0, bytes))
      from = next
    } while (from)
    return deltas
  }

  #note(text: string): void {
    this.#writer.note(text)
    this.#options.noted?.(text)
  }

  #write(start: number, { value, heldAt, pauseUs, torn, lost }: Held<Look>): void {
    const { epochMs } = this.#options
    if (lost)
      this.#writer.gap({
        startUs: 1000 * (start - this.#began),
        lengthUs: 1000 * (lost.until - start),
        cause: 'lost',
        epochsMissed: Math.floor((lost.until - start) / epochMs),
        reason: lost.reason,
      })
    const epochStart = lost?.until ?? start
    const startUs = 1000 * (epochStart - this.#began)
    const lengthUs = 1000 * (heldAt - epochStart)
    const epochsMissed = Math.floor(lengthUs / 1000 / epochMs) - 1
    if (epochsMissed > 0 || torn !== undefined)
      this.#writer.gap({
        startUs: startUs + 1000 * epochMs,
        lengthUs: Math.max(0, lengthUs - 1000 * epochMs),
        cause: 'late',
        epochsMissed: Math.max(0, epochsMissed),
        reason: torn ?? 'the recorder fell behind',
      })
    for (const note of value.newNotes ?? []) this.#note(note)
    if (value.newAreas.length > 0) this.#writer.areas(value.newAreas)
    for (const delta of value.deltas) this.#writer.content(delta)
    const pages = value.pages ?? this.#counted(value)
    this.#writer.epoch({
      startUs,
      lengthUs,
      pauseUs,
      ...pages,
      ...(value.writtenMaps && { writtenMaps: withChanged(value.writtenMaps, this.#changes.maps) }),
      ...(value.counters && { counters: value.counters }),
    })
    this.#heldUs += pauseUs
    this.#longestUs = Math.max(this.#longestUs, pauseUs)
    this.#summary.dirtyPages += pages.dirty.pageCount
    for (let page = 0; page < pages.dirty.pageCount; page++)
      this.#summary.changedLines += lineCount(pages.changedMaps, page)
  }

  #so(cause: RecordedEnd | undefined): RecordSummary {
    const { endedHow, ended } = this.#target
    const { epochCount, gapCount, bytes } = this.#writer
    const elapsedMs = performance.now() - this.#began
    return {
      ...this.#summary,
      epochs: epochCount,
      gaps: gapCount,
      traceBytes: bytes,
      elapsedMs,
      held: {
        share: elapsedMs > 0 ? this.#heldUs / 1000 / elapsedMs : 0,
        longestUs: this.#longestUs,
        startUs: this.#startUs,
      },
      cause,
      ...(endedHow !== undefined && { endedHow }),
      ...ended,
    }
  }
}

/** A line that changed was written, by whomever: a device's writes have no marks of their own. */
function withChanged(written: Uint32Array, changed: Uint32Array): Uint32Array {
  for (let i = 0; i < written.length; i++) written[i]! |= changed[i]!
  return written
}

/** To a fraction of a millisecond: timers alone come up to one late. False when interrupted. */
async function sleepUntil(due: number, signal: AbortSignal): Promise<boolean> {
  const timerMs = Math.floor(due - performance.now()) - 1
  // An interruption ends the wait; that is all that is to know.
  if (timerMs > 0) await delay(timerMs, undefined, { signal }).catch(() => undefined)
  while (!signal.aborted && performance.now() < due) await setImmediate()
  return !signal.aborted
}
