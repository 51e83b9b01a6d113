/**
 * Writes a trace as it is recorded: each block goes to the file at once, so memory stays bounded by one epoch and a
 * recording that is killed leaves all but its last epoch on the disk. The file has its name when it is whole
 * (output-file.ts). Format: docs/trace-format.md.
 */
import { SubpageError } from 'subpage/errors'
import type { PageRanges } from 'subpage/memory/page-ranges'
import { OutputFile } from 'subpage/output-file'
import { counted } from 'subpage/units'
import type { TraceArea, TraceEnd, TraceGap, TraceHeader } from '../trace.ts'
import { type BlockKind, encodeBlock, magic } from './block.ts'
import { ByteWriter } from './bytes.ts'

/** What the recorder knows of an epoch; its content was written before it, with `content`. */
export interface NewEpoch {
  startUs: number
  lengthUs: number
  pauseUs: number
  dirty: PageRanges
  /** Two numbers a page, as TraceEpoch has them; longer arrays are fine. */
  changedMaps: Uint32Array
  changedBytes: Uint16Array
  writtenMaps?: Uint32Array
  counters?: Record<string, number>
}

export class TraceWriter {
  readonly path: string
  readonly header: TraceHeader
  readonly #file: OutputFile
  readonly #body = new ByteWriter()
  #epochCount = 0
  #gapCount = 0
  #bytes = 0
  /** Up to the last whole epoch. */
  #whole = { bytes: 0, gapCount: 0, endUs: 0 }

  /** @throws SubpageError FILE_EXISTS unless `replace`, NO_SPACE, BAD_ARGUMENT when the file cannot be made */
  constructor(path: string, header: TraceHeader, { replace = false } = {}) {
    this.path = path
    this.header = header
    this.#file = new OutputFile(path, { replace, mode: 0o600 })
    try {
      this.#write(magic)
      this.#block('header', Buffer.from(JSON.stringify(header)), false)
    } catch (error) {
      this.abandon()
      throw error
    }
  }

  get bytes(): number {
    return this.#bytes
  }

  get epochCount(): number {
    return this.#epochCount
  }

  get gapCount(): number {
    return this.#gapCount
  }

  /** New memory; its pages may occur from the next epoch on. */
  areas(areas: readonly TraceArea[]): void {
    this.#body.varint(areas.length)
    for (const { firstPage, pageCount, address, name } of areas) {
      this.#body.varint(firstPage)
      this.#body.varint(pageCount)
      this.#body.varint(address)
      this.#body.text(name)
    }
    this.#block('areas', this.#body.take(), true)
  }

  /** A delta of the memory as it was when the recording began, or of new areas. */
  base(delta: Uint8Array): void {
    this.#block('base', delta, true)
  }

  /** A delta of the epoch that is written next. */
  content(delta: Uint8Array): void {
    this.#block('content', delta, false)
  }

  epoch({
    startUs,
    lengthUs,
    pauseUs,
    dirty,
    changedMaps,
    changedBytes,
    writtenMaps,
    counters = {},
  }: NewEpoch): void {
    const body = this.#body
    for (const us of [startUs, lengthUs, pauseUs]) body.varint(Math.max(0, Math.round(us)))
    for (const name of this.header.counters) body.varint(counters[name] ?? 0)
    body.varint(dirty.runCount)
    let end = 0
    for (const { first, count } of dirty) {
      body.varint(first - end)
      body.varint(count - 1)
      end = first + count
    }
    body.maps(changedMaps, dirty.pageCount)
    for (let page = 0; page < dirty.pageCount; page++)
      if (changedMaps[2 * page] !== 0 || changedMaps[2 * page + 1] !== 0) body.varint(changedBytes[page]!)
    if (this.header.written) {
      if (writtenMaps === undefined) throw new TypeError('the trace promises written lines: give writtenMaps')
      body.maps(writtenMaps, dirty.pageCount)
    }
    this.#block('epoch', body.take(), true)
    this.#epochCount++
    this.#whole = {
      bytes: this.#bytes,
      gapCount: this.#gapCount,
      endUs: Math.max(0, Math.round(startUs)) + Math.max(0, Math.round(lengthUs)),
    }
  }

  gap({ startUs, lengthUs, cause, epochsMissed, reason }: TraceGap): void {
    const body = this.#body
    body.varint(Math.max(0, Math.round(startUs)))
    body.varint(Math.max(0, Math.round(lengthUs)))
    body.byte(gapCauses.indexOf(cause))
    body.varint(epochsMissed)
    body.text(reason)
    this.#block('gap', body.take(), false)
    this.#gapCount++
  }

  /** What the tracker cannot see, found out while it recorded. */
  note(text: string): void {
    this.#body.text(text)
    this.#block('note', this.#body.take(), false)
  }

  /** Ends the file, which gets its name. */
  end(cause: RecordedEnd, lengthUs: number): void {
    this.#end(this.#gapCount, cause, lengthUs)
    this.#file.finish()
  }

  #end(gapCount: number, cause: RecordedEnd, lengthUs: number): void {
    const body = this.#body
    body.take()
    body.varint(this.#epochCount)
    body.varint(gapCount)
    body.varint(Math.max(0, Math.round(lengthUs)))
    body.byte(endCauses.indexOf(cause))
    this.#block('end', body.take(), false)
  }

  /** Closes and removes a file that was not ended; harmless afterwards. */
  abandon(): void {
    this.#file.abandon()
  }

  /**
   * Something went wrong: what was recorded until then stays, up to the last whole epoch; without one nothing does. An older
   * file of this name is left as it is.
   * @returns the error to throw, which says where the recording is
   */
  fail(error: unknown): unknown {
    if (this.#epochCount === 0) {
      this.abandon()
      return error
    }
    const { bytes, gapCount, endUs } = this.#whole
    try {
      this.#file.cut(bytes)
      this.#end(gapCount, 'interrupted', endUs)
    } catch {
      // No room even for that: a reader takes the whole epochs of a file without an end.
    }
    const where = this.#file.leave()
    if (!(error instanceof SubpageError)) return error
    return new SubpageError(
      error.code,
      `${error.message}; what was recorded until then (${counted(this.#epochCount, 'epoch')}) is in ${where}`,
      { cause: error },
    )
  }

  #block(kind: BlockKind, body: Uint8Array, compress: boolean): void {
    for (const part of encodeBlock(kind, body, compress)) this.#write(part)
  }

  #write(data: Uint8Array): void {
    this.#file.write(data)
    this.#bytes += data.length
  }
}

/** A reader finds out by itself that a recording was cut short. */
export type RecordedEnd = Exclude<TraceEnd['cause'], 'cut-short'>

export const gapCauses: readonly TraceGap['cause'][] = ['late', 'lost']
export const endCauses: readonly RecordedEnd[] = ['time', 'interrupted', 'target-ended']
