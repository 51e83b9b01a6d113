/**
 * An ordinary process as something to record: one that runs already, or a command that is started for it. Both are watched
 * the same way, by the holder (native/holder/holder.h says how, and why the target survives us).
 *
 * One process is recorded: the one that is named, or the command itself; not its children. When it executes another
 * program, as a shell's `exec` does, the recording goes on with that one from its first instruction.
 */
import { constants, totalmem } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { getSystemErrorName } from 'node:util'
import { SubpageError } from 'subpage/errors'
import { pageBytes } from 'subpage/memory/page'
import { PageRanges } from 'subpage/memory/page-ranges'
import { Region } from 'subpage/memory/region'
import { assertOwnProc } from 'subpage/qemu/process'
import type { TrackerChoice } from 'subpage/tracking/tracker'
import { formatBytes } from 'subpage/units'
import type { TraceArea } from '../../trace.ts'
import type { Harvest, Held, RecordTarget } from '../target.ts'
import { type HeldAnswer, Holder, type Left, leftReasons, type Ready, type Watched } from './holder.ts'
import { commandOf, failure, oneLine, reason } from './refusals.ts'

/**
 * @throws SubpageError BAD_ARGUMENT when there is no such process or command; PROCESS_REFUSED when it may not be watched;
 * TRACKER_UNAVAILABLE when `choice` is userfault and cannot be had; GUEST_DIED
 */
export async function openProcess(watched: Watched, choice: TrackerChoice): Promise<ProcessTarget> {
  assertOwnProc()
  if ('pid' in watched && watched.pid === process.pid)
    throw new SubpageError('BAD_ARGUMENT', `process ${watched.pid} is this one, which cannot watch itself`)
  const holder = new Holder(watched, choice, numbersAtMost())
  let mirror: Region | undefined
  try {
    const ready = await holder.answer()
    if (ready?.kind === 'failed') throw failure(watched, ready)
    if (ready?.kind !== 'ready')
      throw new SubpageError(
        'TRACKER_UNAVAILABLE',
        `cannot record ${'pid' in watched ? `process ${watched.pid}` : watched.command[0]}: the program that watches it (build/native/holder) ${await holder.howEnded()}`,
      )
    mirror = Region.map(`/proc/${holder.pid}/fd/${ready.mirror}`, { writable: false })
    const target = new ProcessTarget(watched, ready, holder, mirror)
    await target.begin()
    return target
  } catch (error) {
    await holder.close()
    mirror?.close()
    throw error
  }
}

/**
 * How many pages can get numbers. Where what is resident lies far apart, 16 pages do for one of it (native/holder/space.c); memory
 * of ours is taken only for what is copied.
 */
const numbersAtMost = () => Math.min(2 ** 31, 16 * Math.floor(totalmem() / pageBytes))

/** performance.now() of a moment of CLOCK_MONOTONIC. */
const clockOffsetMs = performance.now() - Number(process.hrtime.bigint()) / 1e6
const toMs = (ns: bigint) => Number(ns) / 1e6 + clockOffsetMs

const executed =
  'it executed another program, whose memory follows; what the former one wrote last is not known'

const untracked = (answer: HeldAnswer) =>
  `The program that it executed is compared: what it writes with the same value is not seen (userfault was not available: ${reason(answer)})`

/** Copied in about a millisecond. */
const catchUpPages = 1024
const catchUpRoundsMax = 8

/** How long the first hold may take: a process that waits in the kernel cannot be held. */
const beginMsMax = 5_000

export class ProcessTarget implements RecordTarget {
  readonly kind: 'pid' | 'command'
  readonly name: string
  readonly tracker: 'userfault' | 'compare'
  #tracked: boolean
  readonly written = false
  readonly counters = []
  readonly notes: string[]
  readonly ram: Region
  readonly pid: number
  startPauseUs: number
  readonly #holder: Holder
  #areas: readonly TraceArea[] = []
  /** What was found since the last harvest. */
  #dirty = PageRanges.empty
  #newAreas: TraceArea[] = []
  #newNotes: string[] = []
  #endedHow: string | undefined
  #ended: { exitStatus: number } | { signal: number } | undefined

  constructor(watched: Watched, ready: Ready, holder: Holder, mirror: Region) {
    this.kind = 'pid' in watched ? 'pid' : 'command'
    this.name =
      'pid' in watched ? `${watched.pid} (${commandOf(watched.pid)})` : oneLine(watched.command.join(' '))
    this.pid = ready.pid
    this.tracker = ready.tracked ? 'userfault' : 'compare'
    this.#tracked = ready.tracked
    this.startPauseUs = Number(ready.heldNs) / 1000
    this.#holder = holder
    this.ram = mirror
    this.notes = [
      'The process was held at the end of each epoch. Its private memory is recorded, and shared memory that is no file; not that of its children.',
      ...(!ready.tracked ? ['Pages were compared: what was written with the same value is not seen.'] : []),
      ...(ready.step === '' ? [] : [`userfault was not available: ${reason(ready)}`]),
    ]
  }

  /** A program that is executed later may not be tracked where the first one was. */
  get guesses(): boolean {
    return !this.#tracked
  }

  get areas() {
    return this.#areas
  }

  get memoryBytes(): number {
    return pageBytes * this.#areas.reduce((sum, { pageCount }) => sum + pageCount, 0)
  }

  get endedHow(): string | undefined {
    return this.#endedHow
  }

  get ended() {
    return this.#ended
  }

  /** The first hold finds what the memory holds now. A command stands until the one after it. */
  async begin(): Promise<void> {
    const deadline = performance.now() + beginMsMax
    while (!(await this.#begun())) {
      if (performance.now() > deadline)
        throw new SubpageError(
          'PROCESS_REFUSED',
          `process ${this.pid} cannot be held: it waits in the kernel and does not come back`,
        )
      await delay(1)
    }
    this.#areas = [...this.#newAreas]
  }

  async #begun(): Promise<boolean> {
    return this.kind === 'command' ? !!(await this.#ask('sharp')) : (await this.#copyBriefly()) !== undefined
  }

  /** Copies what was written while the process runs. Returns how many pages; undefined: try again in a moment. */
  async #copyBriefly(): Promise<number | undefined> {
    const answer = await this.#ask('brief')
    if (!answer) return undefined
    this.startPauseUs = Math.max(this.startPauseUs, Number(answer.resumedNs - answer.askedNs) / 1000)
    return answer.dirty.pageCount
  }

  /** It is read from a copy. */
  assertReadable(): void {}

  /** Until little is left, or it becomes no less: the process writes as fast as it is copied. */
  async catchUp(): Promise<void> {
    if (this.kind === 'command') return
    for (let round = 0, former = Number.POSITIVE_INFINITY; round < catchUpRoundsMax; round++) {
      const pages = await this.#copyBriefly()
      if (pages === undefined) continue
      if (pages < catchUpPages || pages > former / 2) return
      former = pages
    }
  }

  async hold<T>(look: () => T): Promise<Held<T> | undefined> {
    const answer = await this.#ask('sharp')
    if (!answer) return undefined
    const { executedNs } = answer
    return {
      // The bytes are copies: the process runs already.
      value: look(),
      heldAt: toMs(answer.heldNs),
      resumedAt: toMs(answer.resumedNs),
      pauseUs: Number(answer.resumedNs - answer.askedNs) / 1000,
      torn: undefined,
      ...(executedNs > 0n && { lost: { until: toMs(executedNs), reason: executed } }),
    }
  }

  /**
   * Holds it until `goOn`: an observer who needs time sees epochs of the length that was asked for all the same.
   * @returns how long it ran before, and how much processor time it used in all; undefined: try again in a moment
   * @throws as hold
   */
  async holdStill(): Promise<{ ranUs: number; cpuUs: number } | undefined> {
    const answer = await this.#ask('still')
    if (!answer) return undefined
    return { ranUs: Number(answer.heldNs - answer.goneOnNs) / 1000, cpuUs: Number(answer.cpuNs) / 1000 }
  }

  goOn(): void {
    this.#holder.goOn()
  }

  async #ask(how: 'sharp' | 'still' | 'brief'): Promise<HeldAnswer | undefined> {
    const answer = await this.#holder.hold(how)
    switch (answer?.kind) {
      case 'held':
        this.#dirty = this.#dirty.union(answer.dirty)
        for (const area of answer.newAreas) this.#newAreas.push(area)
        this.#tracked = answer.tracked
        if (answer.executedNs > 0n && answer.step !== '') this.#newNotes.push(untracked(answer))
        this.#newNotes.push(...answer.left.map(leftNote))
        return answer
      case 'busy':
        return undefined
      case 'ended':
        this.#endedHow = wordsOf(answer.status)
        this.#ended = endOf(answer.status)
        throw new SubpageError('GUEST_DIED', `process ${this.pid} has ended: ${this.#endedHow}`)
      case 'failed':
        throw new SubpageError(
          'TRACKER_UNAVAILABLE',
          `process ${this.pid} can no longer be recorded: ${reason(answer)}`,
        )
      default:
        throw new SubpageError(
          'TRACKER_UNAVAILABLE',
          `process ${this.pid} can no longer be recorded: the program that watched it (build/native/holder) ${await this.#holder.howEnded()}; the process goes on`,
        )
    }
  }

  harvest(): Harvest {
    const harvest = { dirty: this.#dirty, newAreas: this.#newAreas, newNotes: this.#newNotes }
    this.#dirty = PageRanges.empty
    this.#newAreas = []
    this.#newNotes = []
    return harvest
  }

  async close(): Promise<void> {
    await this.#holder.close()
    this.ram.close()
  }
}

function leftNote({ reason, bytes, mappings, address, name }: Left): string {
  const where = `${name} at 0x${address.toString(16)}`
  const which = mappings === 1 ? where : `${mappings} mappings, the first is ${where}`
  return `Compared, not tracked: ${formatBytes(bytes)} (${which}), because ${whyLeft(reason)}. What was written there with the same value is not seen.`
}

function whyLeft(reason: number): string {
  switch (reason) {
    case leftReasons.huge:
      return 'of hugetlb pages the kernel only tells that something in them was written'
    case leftReasons.own:
      return 'the process has a userfaultfd of its own, and may track this memory with it'
    case leftReasons.buffer:
      return 'it holds buffers that the process has registered with io_uring, which the kernel writes to unseen'
    case constants.errno.EBUSY:
      return 'the process, or another watcher, has registered it with another userfaultfd'
    case constants.errno.EINVAL:
      return 'the kernel does not track memory of this kind, such as droppable memory'
    default:
      return `the kernel does not track it (${getSystemErrorName(-reason)})`
  }
}

function wordsOf(status: number | undefined): string {
  if (status === undefined) return 'how is not known'
  const signal = status & 0x7f
  if (signal === 0) return `it exited with status ${(status >> 8) & 0xff}`
  const name = Object.entries(constants.signals).find(([, number]) => number === signal)?.[0]
  return `it was killed by ${name ?? `signal ${signal}`}`
}

function endOf(status: number | undefined): { exitStatus: number } | { signal: number } | undefined {
  if (status === undefined) return undefined
  const signal = status & 0x7f
  return signal === 0 ? { exitStatus: (status >> 8) & 0xff } : { signal }
}
