/**
 * Writes a trace as it is recorded: each block goes to the file at once, so memory stays bounded by one epoch and a
 * recording that is killed leaves all but its last epoch on the disk. Format: docs/trace-format.md.
 */
import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs'
import { errorCode, SubpageError } from '../../errors.ts'
import type { PageRanges } from '../../memory/page-ranges.ts'
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
  #fd: number | undefined
  readonly #body = new ByteWriter()
  #epochCount = 0
  #gapCount = 0
  #bytes = 0

  /** @throws SubpageError FILE_EXISTS unless `replace`, NO_SPACE, BAD_ARGUMENT when the file cannot be made */
  constructor(path: string, header: TraceHeader, { replace = false } = {}) {
    this.path = path
    this.header = header
    this.#fd = create(path, replace)
    this.#write(magic)
    this.#block('header', Buffer.from(JSON.stringify(header)), false)
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

  /** Ends the file; without it a reader says that it is cut short. */
  end(cause: TraceEnd['cause'], lengthUs: number): void {
    const body = this.#body
    body.varint(this.#epochCount)
    body.varint(this.#gapCount)
    body.varint(Math.max(0, Math.round(lengthUs)))
    body.byte(endCauses.indexOf(cause))
    this.#block('end', body.take(), false)
    this.#close()
  }

  /** Closes and removes a file that was not ended; harmless afterwards. */
  abandon(): void {
    if (this.#fd === undefined) return
    this.#close()
    unlinkSync(this.path)
  }

  #close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
  }

  #block(kind: BlockKind, body: Uint8Array, compress: boolean): void {
    for (const part of encodeBlock(kind, body, compress)) this.#write(part)
  }

  #write(data: Uint8Array): void {
    if (this.#fd === undefined) throw new TypeError(`the trace ${this.path} is closed`)
    try {
      for (let at = 0; at < data.length; ) at += writeSync(this.#fd, data, at)
    } catch (cause) {
      throw writeFailed(this.path, cause)
    }
    this.#bytes += data.length
  }
}

export const gapCauses: readonly TraceGap['cause'][] = ['late', 'lost']
export const endCauses: readonly TraceEnd['cause'][] = ['time', 'interrupted', 'target-ended']

function create(path: string, replace: boolean): number {
  try {
    return openSync(path, replace ? 'w' : 'wx', 0o600)
  } catch (cause) {
    if (errorCode(cause) === 'EEXIST')
      throw new SubpageError(
        'FILE_EXISTS',
        `${path} exists: choose another name, or replace it with --force`,
        {
          cause,
        },
      )
    throw writeFailed(path, cause)
  }
}

function writeFailed(path: string, cause: unknown): unknown {
  const code = errorCode(cause)
  if (code === undefined) return cause
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG')
    return new SubpageError('NO_SPACE', `no room for the trace ${path}: ${(cause as Error).message}`, {
      cause,
    })
  return new SubpageError('BAD_ARGUMENT', `cannot write ${path}: ${(cause as Error).message}`, { cause })
}
