/**
 * Reads a trace: a pure function of the file, strict, one epoch in memory at a time. Of a file that was cut short the whole
 * epochs are read. Format: docs/trace-format.md.
 */

import { SubpageError } from 'subpage/errors'
import { pageBytes } from 'subpage/memory/page'
import { PageRanges } from 'subpage/memory/page-ranges'
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import type { TraceArea, TraceEnd, TraceEpoch, TraceGap, TraceHeader } from '../trace.ts'
import { cutShort, damaged, readBlocks } from './block.ts'
import { ByteReader } from './bytes.ts'
import { endCauses, gapCauses } from './writer.ts'

/** What a trace file holds; each method reads the file again. @throws SubpageError TRACE_MALFORMED from all of them */
export interface Trace {
  readonly path: string
  readonly header: TraceHeader
  /** Epochs in order. */
  epochs(): Iterable<TraceEpoch>
  /** Those of the header, and what was found out later. */
  notes(): string[]
  /** All of the recording's memory, in the order in which it appeared. */
  areas(): TraceArea[]
  /**
   * With content: deltas of the memory at the start, against zero. Those of areas that appeared later come with `content`
   * of the epoch after.
   */
  base(): Iterable<Uint8Array>
  /** How the recording ended. Reads the whole file. */
  end(): TraceEnd
}

type Damaged = (what: string) => SubpageError

/** @throws SubpageError BAD_ARGUMENT when the file cannot be read, TRACE_MALFORMED when it is no trace of this format */
export function readTrace(path: string): Trace {
  const header = readHeader(path)
  return {
    path,
    header,
    *epochs() {
      for (const record of records(path, header)) if ('epoch' in record) yield record.epoch
    },
    notes() {
      const found = [...header.notes]
      for (const record of records(path, header)) if ('note' in record) found.push(record.note)
      return found
    },
    areas() {
      const found: TraceArea[] = []
      for (const record of records(path, header))
        if ('areas' in record) for (const area of record.areas) found.push(area)
      return found
    },
    *base() {
      for (const { kind, body } of readBlocks(path)) {
        if (kind === 'base') yield body
        if (kind === 'epoch' || kind === 'cut') break
      }
    },
    end() {
      for (const record of records(path, header)) if ('end' in record) return record.end
      throw cutShort(path)
    },
  }
}

type TraceRecord = { note: string } | { epoch: TraceEpoch } | { areas: TraceArea[] } | { end: TraceEnd }

/** Every record; checks what holds between them. */
function* records(path: string, header: TraceHeader): Generator<TraceRecord> {
  const wrong: Damaged = (what) => damaged(path, undefined, what)
  let content: Uint8Array[] = []
  let gapBefore: TraceGap | undefined
  let [epochCount, gapCount] = [0, 0]
  let ended = false
  let lastUs = 0
  for (const { kind, body } of readBlocks(path)) {
    if (ended) throw wrong('something follows its end')
    const reader = new ByteReader(body, wrong)
    switch (kind) {
      case 'header':
      case 'cut':
        break
      case 'areas':
        yield { areas: parseAreas(reader) }
        break
      case 'base':
        // Of memory that appeared later: its first content.
        if (epochCount > 0) content.push(body)
        break
      case 'content':
        content.push(body)
        break
      case 'gap':
        gapBefore = mergeGaps(gapBefore, parseGap(reader, wrong))
        gapCount++
        break
      case 'note':
        yield { note: parseNote(reader) }
        break
      case 'epoch':
        {
          const epoch = parseEpoch(reader, header, epochCount++, content, gapBefore, wrong)
          lastUs = epoch.startUs + epoch.lengthUs
          yield { epoch }
        }
        content = []
        gapBefore = undefined
        break
      case 'end': {
        const end = parseEnd(reader, wrong)
        if (end.epochCount !== epochCount || end.gapCount !== gapCount)
          throw wrong(`it has ${epochCount} epochs and should have ${end.epochCount}`)
        ended = true
        yield { end }
      }
    }
  }
  if (ended) return
  if (epochCount === 0) throw cutShort(path)
  yield { end: { epochCount, gapCount, lengthUs: lastUs, cause: 'cut-short' } }
}

function parseAreas(reader: ByteReader): TraceArea[] {
  const areas = Array.from({ length: reader.varint(reader.left) }, () => ({
    firstPage: reader.varint(2 ** 32 - 1),
    pageCount: reader.varint(2 ** 32 - 1),
    address: reader.varint(),
    name: reader.text(),
  }))
  reader.end()
  return areas
}

function parseGap(reader: ByteReader, wrong: Damaged): TraceGap {
  const [startUs, lengthUs] = [reader.varint(), reader.varint()]
  const cause = gapCauses[reader.byte()]
  if (cause === undefined) throw wrong('a gap has an unknown cause')
  const gap = { startUs, lengthUs, cause, epochsMissed: reader.varint(), reason: reader.text() }
  reader.end()
  return gap
}

function parseNote(reader: ByteReader): string {
  const note = reader.text()
  reader.end()
  return note
}

/** Several in a row are one: from the first to the last, and lost if one of them is. */
function mergeGaps(first: TraceGap | undefined, next: TraceGap): TraceGap {
  if (first === undefined) return next
  return {
    startUs: first.startUs,
    lengthUs: next.startUs + next.lengthUs - first.startUs,
    cause: first.cause === 'lost' ? 'lost' : next.cause,
    epochsMissed: first.epochsMissed + next.epochsMissed,
    reason: first.reason === next.reason ? first.reason : `${first.reason}; ${next.reason}`,
  }
}

function parseEpoch(
  reader: ByteReader,
  header: TraceHeader,
  index: number,
  content: Uint8Array[],
  gapBefore: TraceGap | undefined,
  wrong: Damaged,
): TraceEpoch {
  const [startUs, lengthUs, pauseUs] = [reader.varint(), reader.varint(), reader.varint()]
  const counters = Object.fromEntries(header.counters.map((name) => [name, reader.varint()]))
  const dirty = parseRanges(reader, wrong)
  // A top byte for each page at least.
  if (dirty.pageCount > reader.left) throw wrong('an epoch names more pages than it describes')
  const changedMaps = reader.maps(dirty.pageCount)
  const changedBytes = new Uint16Array(dirty.pageCount)
  for (let page = 0; page < dirty.pageCount; page++)
    if (changedMaps[2 * page] !== 0 || changedMaps[2 * page + 1] !== 0)
      changedBytes[page] = reader.varint(pageBytes)
  const writtenMaps = header.written ? reader.maps(dirty.pageCount) : undefined
  reader.end()
  return {
    index,
    startUs,
    lengthUs,
    pauseUs,
    dirty,
    changedMaps,
    changedBytes,
    writtenMaps,
    content: header.content ? content : undefined,
    counters,
    gapBefore,
  }
}

function parseRanges(reader: ByteReader, wrong: Damaged): PageRanges {
  const runCount = reader.varint(reader.left / 2)
  const pairs = new Uint32Array(2 * runCount)
  let end = 0
  for (let run = 0; run < runCount; run++) {
    const first = end + reader.varint()
    const count = reader.varint() + 1
    // Runs that touch would have been one.
    if ((run > 0 && first === end) || first + count >= 2 ** 32)
      throw wrong('pages of an epoch are out of order')
    pairs[2 * run] = first
    pairs[2 * run + 1] = count
    end = first + count
  }
  return PageRanges.fromPairs(pairs)
}

function parseEnd(reader: ByteReader, wrong: Damaged): TraceEnd {
  const [epochCount, gapCount, lengthUs] = [reader.varint(), reader.varint(), reader.varint()]
  const cause = endCauses[reader.byte()]
  if (cause === undefined) throw wrong('its end has an unknown cause')
  reader.end()
  return { epochCount, gapCount, lengthUs, cause }
}

const words = (...values: string[]) => Type.Union(values.map((value) => Type.Literal(value)))

const headerForm = Type.Object({
  format: Type.Literal(1),
  target: Type.Object({ kind: words('vm', 'pid', 'command', 'images'), name: Type.String() }),
  tracker: words('userfault', 'compare', 'images', 'lines', 'pml', 'prl'),
  epochUs: Type.Number({ minimum: 0 }),
  memoryBytes: Type.Integer({ minimum: 0 }),
  written: Type.Boolean(),
  content: Type.Boolean(),
  counters: Type.Array(Type.String()),
  notes: Type.Array(Type.String()),
  host: Type.Object({ name: Type.String(), kernel: Type.String(), cpu: Type.String() }),
  release: Type.String(),
  startedAt: Type.String(),
})

function readHeader(path: string): TraceHeader {
  for (const { kind, body } of readBlocks(path)) {
    if (kind !== 'header') break
    let parsed: unknown
    try {
      parsed = JSON.parse(Buffer.from(body).toString('utf8'))
    } catch (cause) {
      throw Object.assign(damaged(path, undefined, 'its header is not JSON'), { cause })
    }
    const format = (parsed as { format?: unknown } | null)?.format
    if (typeof format === 'number' && format !== 1)
      throw new SubpageError(
        'TRACE_MALFORMED',
        `${path} is of trace format ${format}; this release reads format 1: read it with the release that wrote it`,
      )
    if (!Value.Check(headerForm, parsed))
      throw damaged(path, undefined, 'its header lacks what every header has')
    return parsed as TraceHeader
  }
  throw cutShort(path)
}
