/**
 * Everything that a report says about a trace, as figures. A pure function of the trace: one pass for the epoch length that was
 * asked for, and one for each other length that the recording can answer for.
 */

import type { CodecName } from 'subpage/delta/codec'
import { SubpageError } from 'subpage/errors'
import { lineBytes, linesPerPage, pageBytes } from 'subpage/memory/page'
import { lineCount, type Trace, type TraceArea, type TraceEnd, type TraceHeader } from '../trace.ts'
import { AreaTotals } from './areas.ts'
import { CleanTimes } from './clean-time.ts'
import { estimatedCodecBytes } from './codec-size.ts'
import { HeatGrid } from './heat-grid.ts'
import { Replay } from './replay.ts'
import { type Span, spans } from './spans.ts'

/** What one epoch of the report's length did. */
export interface EpochFigures {
  startUs: number
  lengthUs: number
  dirtyPages: number
  /** Dirty pages in which nothing changed. */
  silentPages: number
  changedLines: number
  changedBytes: number
  /** Undefined unless the tracker sees them. */
  writtenLines: number | undefined
  codecBytes: Record<CodecName, number>
  afterLostTime: boolean
}

/** Sums over all epochs of one length. */
export interface LengthFigures {
  epochsPerSpan: number
  /** Mean time in which the target ran; 0 for images. */
  epochUs: number
  epochCount: number
  dirtyPages: number
  changedLines: number
  changedBytes: number
  writtenLines: number | undefined
  /** Whether changed lines are exact; else they are an upper bound, and the amplification a lower one. */
  exact: boolean
  codecBytes: Record<CodecName, number>
  codecsExact: boolean
}

export interface TraceSummary {
  path: string
  header: TraceHeader
  areas: TraceArea[]
  notes: string[]
  end: TraceEnd
  /** Recorded epochs of which one epoch here is made. */
  epochsPerSpan: number
  epochs: EpochFigures[]
  /** How many dirty pages had so many changed lines; index 0 to 64. */
  pagesByLines: number[]
  totals: LengthFigures
  lengths: LengthFigures[]
  cleanSurvival: [spans: number, share: number][]
  heat: HeatGrid
  areaTotals: AreaTotals
  counters: Record<string, number>
  gaps: { late: number; lost: number; lateUs: number; lostUs: number }
  /** The target at the ends of recorded epochs: share of the time, and the longest hold. Undefined when it was never held. */
  held: { share: number; longestUs: number } | undefined
}

export interface SummaryOptions {
  /** Another epoch length than the recorded one; a multiple of it. */
  epochUs?: number
  /** How many other lengths to look at, at most. */
  lengthsMax?: number
}

/** @throws SubpageError BAD_ARGUMENT for an epoch length that the recording cannot answer for, TRACE_MALFORMED */
export function summarize(trace: Trace, { epochUs, lengthsMax = 7 }: SummaryOptions = {}): TraceSummary {
  const end = trace.end()
  const areas = trace.areas()
  const epochsPerSpan = multipleOf(trace, epochUs)
  const epochs: EpochFigures[] = []
  const pagesByLines = new Array<number>(linesPerPage + 1).fill(0)
  const clean = new CleanTimes()
  const heat = new HeatGrid(areas, end, trace.header.epochUs === 0)
  const areaTotals = new AreaTotals(areas)
  const counters: Record<string, number> = {}
  const totals = pass(trace, epochsPerSpan, (span, codecBytes) => {
    const figures = figuresOf(span.dirty.pageCount, span.changedMaps, pagesByLines)
    const writtenLines = span.writtenMaps && linesOf(span.writtenMaps)
    const afterLostTime = span.gapBefore?.cause === 'lost'
    if (afterLostTime) clean.forget()
    clean.add(span.dirty)
    heat.add(span)
    areaTotals.add(span)
    for (const [name, value] of Object.entries(span.counters)) counters[name] = (counters[name] ?? 0) + value
    epochs.push({
      startUs: span.startUs,
      lengthUs: span.lengthUs,
      dirtyPages: span.dirty.pageCount,
      changedBytes: span.changedBytes,
      writtenLines,
      codecBytes,
      afterLostTime,
      ...figures,
    })
  })
  if (epochUs !== undefined && totals.epochCount === 0)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${trace.path} holds ${end.lengthUs / 1000} ms, less than one epoch of ${epochUs / 1000} ms: choose a shorter one, or record for longer`,
    )
  const lengths = lengthsOf(trace, end, epochsPerSpan, lengthsMax).map((length) =>
    length === epochsPerSpan ? totals : pass(trace, length),
  )
  return {
    path: trace.path,
    header: trace.header,
    areas,
    notes: trace.notes(),
    end,
    epochsPerSpan,
    epochs,
    pagesByLines,
    totals,
    lengths,
    cleanSurvival: clean.survival(),
    heat,
    areaTotals,
    counters,
    gaps: gapsOf(trace),
    held: heldOf(trace),
  }
}

type Look = (span: Span, bytes: Record<CodecName, number>) => void

/** All epochs of one length. */
function pass(trace: Trace, epochsPerSpan: number, look?: Look): LengthFigures {
  const replay = trace.header.content ? new Replay(trace) : undefined
  const sums: LengthFigures = {
    epochsPerSpan,
    epochUs: 0,
    epochCount: 0,
    dirtyPages: 0,
    changedLines: 0,
    changedBytes: 0,
    writtenLines: trace.header.written ? 0 : undefined,
    exact: true,
    codecBytes: { page: 0, line: 0, 'xor-rle': 0, masked: 0 },
    codecsExact: replay !== undefined,
  }
  try {
    for (const span of spans(trace, epochsPerSpan, replay)) {
      const bytes = span.codecBytes ?? estimatedCodecBytes(span)
      sums.epochCount++
      sums.epochUs += span.lengthUs
      sums.dirtyPages += span.dirty.pageCount
      sums.changedLines += linesOf(span.changedMaps)
      sums.changedBytes += span.changedBytes
      if (span.writtenMaps) sums.writtenLines! += linesOf(span.writtenMaps)
      sums.exact &&= span.exact
      for (const codec of Object.keys(bytes) as CodecName[]) sums.codecBytes[codec] += bytes[codec]
      look?.(span, bytes)
    }
  } finally {
    replay?.close()
  }
  sums.epochUs /= Math.max(1, sums.epochCount)
  return sums
}

/** Bytes of dirty pages for each byte of changed lines; NaN when nothing changed. */
export function amplification({
  dirtyPages,
  changedLines,
}: Pick<LengthFigures, 'dirtyPages' | 'changedLines'>): number {
  return changedLines === 0 ? Number.NaN : (dirtyPages * pageBytes) / (changedLines * lineBytes)
}

function figuresOf(pageCount: number, maps: Uint32Array, pagesByLines: number[]) {
  let [changedLines, silentPages] = [0, 0]
  for (let page = 0; page < pageCount; page++) {
    const lines = lineCount(maps, page)
    changedLines += lines
    if (lines === 0) silentPages++
    pagesByLines[lines]!++
  }
  return { changedLines, silentPages }
}

function linesOf(maps: Uint32Array): number {
  let lines = 0
  for (let page = 0; page < maps.length / 2; page++) lines += lineCount(maps, page)
  return lines
}

/** Of the recorded epoch. */
function multipleOf({ header, path }: Trace, epochUs: number | undefined): number {
  if (epochUs === undefined) return 1
  if (header.epochUs === 0)
    throw new SubpageError('BAD_ARGUMENT', `${path} is a series of images and has no time: leave out --epoch`)
  const multiple = Math.round(epochUs / header.epochUs)
  if (multiple < 1 || Math.abs(multiple * header.epochUs - epochUs) > 0.01 * header.epochUs) {
    const ms = header.epochUs / 1000
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${path} was recorded with epochs of ${ms} ms and cannot answer for ${epochUs / 1000} ms: choose a multiple, such as ${2 * ms}ms or ${10 * ms}ms`,
    )
  }
  return multiple
}

const factors = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
/** Fewer epochs than this say nothing about a length. */
const epochsMin = 3

function lengthsOf(trace: Trace, end: TraceEnd, chosen: number, most: number): number[] {
  const recorded = trace.header.epochUs === 0 ? end.epochCount : end.lengthUs / trace.header.epochUs
  const possible = factors.filter((factor) => factor === 1 || factor * epochsMin <= recorded).slice(0, most)
  return [...new Set([...possible, chosen])].sort((a, b) => a - b)
}

function gapsOf(trace: Trace): TraceSummary['gaps'] {
  const gaps = { late: 0, lost: 0, lateUs: 0, lostUs: 0 }
  for (const { gapBefore } of trace.epochs()) {
    if (!gapBefore) continue
    gaps[gapBefore.cause]++
    gaps[`${gapBefore.cause}Us`] += gapBefore.lengthUs
  }
  return gaps
}

function heldOf(trace: Trace): TraceSummary['held'] {
  let [heldUs, ranUs, longestUs] = [0, 0, 0]
  for (const { pauseUs, lengthUs } of trace.epochs()) {
    heldUs += pauseUs
    ranUs += lengthUs
    longestUs = Math.max(longestUs, pauseUs)
  }
  return heldUs === 0 ? undefined : { share: heldUs / (heldUs + ranUs), longestUs }
}
