/**
 * Epochs of several lengths of one running workload, and what each codec would send for them. The workload stands while an
 * epoch is examined, however long that takes, so that epochs have the length that they are said to have. Lengths take turns:
 * all see the same phases of the program.
 */
import { setTimeout as delay, setImmediate } from 'node:timers/promises'
import { type CapturePosition, capture } from 'subpage/delta/capture'
import type { CodecName } from 'subpage/delta/codec'
import { Reducer, type ReduceStats } from 'subpage/delta/reduce'
import { errorCode, SubpageError } from 'subpage/errors'
import { pageBytes } from 'subpage/memory/page'
import type { PageRanges } from 'subpage/memory/page-ranges'
import { Region } from 'subpage/memory/region'
import { Settling } from '../analysis/settle.ts'
import type { Harvest } from '../record/target.ts'
import { lineCount } from '../trace.ts'

/** A workload, as one that can be held for as long as it takes to examine it. */
export interface Holdable {
  readonly ram: Region
  /**
   * Holds it until `goOn`.
   * @returns how long it ran before, and how much processor time it has used in all; undefined: try again in a moment
   * @throws SubpageError GUEST_DIED when it has ended
   */
  holdStill(): Promise<{ ranUs: number; cpuUs: number } | undefined>
  goOn(): void
  /** While held: what was written since the last time; at first all that holds anything. */
  harvest(): Pick<Harvest, 'dirty'>
}

/** An epoch that took so many times longer than it should is no longer one of its length. */
export const lateMin = 1.5

/** Sums over the epochs of one length. */
export interface Epochs {
  epochMs: number
  count: number
  /** Of them, those that took longer than `lateMin` times their length. */
  lateCount: number
  /** That it really ran, and the processor time that it used in them. */
  ranUs: number
  cpuUs: number
  /** Pages that were written, and those of them in which something changed. */
  dirtyPages: number
  changedPages: number
  changedLines: number
  changedBytes: number
  codecBytes: Record<CodecName, number>
  /** For the epochs that the reducer saw: masked, then with the dictionary of lines, then with zstd behind it. */
  reduced: { masked: number; dictionary: number; dictionaryZstd: number }
}

/** How many epochs of each length make a round, and how many rounds there are. */
export interface Plan {
  round: readonly { epochMs: number; count: number }[]
  rounds: number
}

/** What is larger is not reduced: it would take longer than the workload runs. */
const reducedBytesMax = 64 * 2 ** 20

export async function measure(
  target: Holdable,
  { round, rounds }: Plan,
  over: () => Promise<boolean>,
  signal: AbortSignal,
): Promise<{ epochs: Epochs[]; memoryBytes: number; ended: boolean }> {
  const meter = new Meter(target)
  const epochs = round.map(({ epochMs }) => emptyEpochs(epochMs))
  let ended = false
  try {
    await meter.begin()
    for (let turn = 0; turn < rounds && !ended; turn++)
      for (const [at, { epochMs, count }] of round.entries()) {
        ended = await over()
        for (let i = 0; i < count && !ended; i++) {
          signal.throwIfAborted()
          ended = !(await meter.epoch(epochs[at]!, epochMs))
        }
      }
    return { epochs, memoryBytes: meter.memoryBytes, ended }
  } finally {
    meter.close()
  }
}

/**
 * Why a workload has no figures, in words: the others shall have theirs all the same.
 * @throws the error itself when the study is to end, or when it is a defect
 */
export function failureOf(error: unknown, signal: AbortSignal): string {
  if (signal.aborted) throw error
  if (error instanceof SubpageError) return error.message
  // Of the operating system: a full disk, no memory for one more process.
  if (/^E(?!RR_)/.test(errorCode(error) ?? '')) return (error as Error).message
  throw error
}

function emptyEpochs(epochMs: number): Epochs {
  return {
    epochMs,
    count: 0,
    lateCount: 0,
    ranUs: 0,
    cpuUs: 0,
    dirtyPages: 0,
    changedPages: 0,
    changedLines: 0,
    changedBytes: 0,
    codecBytes: { page: 0, line: 0, 'xor-rle': 0, masked: 0 },
    reduced: { masked: 0, dictionary: 0, dictionaryZstd: 0 },
  }
}

class Meter {
  readonly #target: Holdable
  readonly #shadow: Region
  readonly #settling = new Settling()
  readonly #dictionary: Reducer
  readonly #dictionaryZstd: Reducer
  #cpuUs = 0
  memoryBytes = 0

  constructor(target: Holdable) {
    this.#target = target
    this.#shadow = Region.anonymous(target.ram.bytes)
    this.#dictionary = new Reducer(target.ram.pages, ['dictionary'])
    this.#dictionaryZstd = new Reducer(target.ram.pages, ['dictionary'])
  }

  /** Holds it, and makes the shadow what the memory is. */
  async begin(): Promise<void> {
    const held = await this.#hold()
    if (!held) throw new SubpageError('WORKLOAD_FAILED', 'it ended before its first epoch')
    const { dirty } = this.#target.harvest()
    this.memoryBytes = dirty.pageCount * pageBytes
    const out = new Uint8Array(4 * 2 ** 20)
    for (let from: CapturePosition | undefined = { run: 0, offset: 0 }; from; )
      from = (await capture(this.#target.ram, this.#shadow, dirty, { codec: 'page', out, from })).next
    this.#cpuUs = held.cpuUs
  }

  /** False when the program has ended. */
  async epoch(sums: Epochs, epochMs: number): Promise<boolean> {
    this.#target.goOn()
    await sleep(epochMs)
    const held = await this.#hold()
    if (!held) return false
    const { dirty } = this.#target.harvest()
    const deltas: Uint8Array[] = []
    const { changedMaps, changedBytes, codecBytes } = this.#settling.settle(
      this.#target.ram,
      this.#shadow,
      dirty,
      undefined,
      (delta) => deltas.push(delta.slice()),
    )
    sums.count++
    sums.ranUs += held.ranUs
    if (held.ranUs > 1000 * lateMin * epochMs) sums.lateCount++
    sums.cpuUs += held.cpuUs - this.#cpuUs
    this.#cpuUs = held.cpuUs
    sums.dirtyPages += dirty.pageCount
    sums.changedBytes += changedBytes
    for (let page = 0; page < dirty.pageCount; page++) {
      const lines = lineCount(changedMaps, page)
      sums.changedLines += lines
      if (lines > 0) sums.changedPages++
    }
    for (const codec of Object.keys(codecBytes) as CodecName[]) sums.codecBytes[codec] += codecBytes[codec]
    if (codecBytes.masked <= reducedBytesMax) await this.#reduce(sums, dirty, deltas)
    return true
  }

  async #reduce({ reduced }: Epochs, dirty: PageRanges, deltas: readonly Uint8Array[]): Promise<void> {
    for (const [reducer, name, method] of [
      [this.#dictionary, 'dictionary', 'off'],
      [this.#dictionaryZstd, 'dictionaryZstd', 'zstd'],
    ] as const) {
      reducer.begin(true)
      reducer.include(dirty)
      for (const delta of deltas) {
        const stats: ReduceStats = {
          lines: 0,
          dictionaryLines: 0,
          sharedLines: 0,
          similarPages: 0,
          bodyBytes: 0,
        }
        const smaller = await reducer.reduce(delta, this.#shadow, method, stats)
        reduced[name] += smaller?.length ?? delta.length
      }
    }
    for (const delta of deltas) reduced.masked += delta.length
  }

  /** Tries until it can be held; undefined when the program has ended. */
  async #hold() {
    for (;;) {
      try {
        const held = await this.#target.holdStill()
        if (held) return held
      } catch (error) {
        if (error instanceof SubpageError && error.code === 'GUEST_DIED') return undefined
        throw error
      }
      await delay(1)
    }
  }

  close(): void {
    this.#target.goOn()
    this.#shadow.close()
    this.#dictionary.close()
    this.#dictionaryZstd.close()
  }
}

/** To a fraction of a millisecond: timers alone come up to one late. */
async function sleep(ms: number): Promise<void> {
  const due = performance.now() + ms
  if (ms > 2) await delay(ms - 1.5)
  while (performance.now() < due) await setImmediate()
}
