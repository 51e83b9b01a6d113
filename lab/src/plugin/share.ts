/**
 * What the plugin inside QEMU has noted of a guest's loads and stores: the file it shares, opened by one reader at a time,
 * because reading marks takes them away. The parts are read by lines.ts, pml.ts, prl.ts and exact.ts.
 *
 * A guest has the plugin when it was started with `--track`. It costs the guest nothing until a reader opens: then every
 * memory access of the guest calls the plugin. With QEMU 7.2 that is so for the rest of the process's life, while later
 * versions go back when the reader closes.
 *
 * What the plugin cannot see: memory written by devices (DMA), accessed and dirty bits that the CPU sets in page tables
 * (QEMU writes them), and instructions that are fetched.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { errorCode, SubpageError } from 'subpage/errors'
import { type FileLock, lockFile } from 'subpage/memory/file-lock'
import { addon } from 'subpage/memory/native'
import { PageRanges } from 'subpage/memory/page-ranges'
import { Region } from 'subpage/memory/region'
import { type PluginPart, pluginParts } from 'subpage/qemu/plugin'
import {
  headerAt,
  headerBytes,
  type LogEntries,
  logAt,
  logEntries,
  shareFormat,
  shareLayout,
  shareMagic,
  vcpuAt,
  vcpuBytes,
  vcpuCountMax,
} from './layout.ts'

/** In words for people, for whatever shows what the plugin saw. */
export const pluginBlindSpots =
  'The plugin sees loads and stores of the CPUs, not what devices write (DMA) and not the bits that CPUs set in page tables.'

/** What a log has done: entries, and how often it was full, by its size in entries. All vCPUs together. */
export interface LogCounts {
  logged: number
  full: Record<LogEntries, number>
}

const runsAtStart = 16 * 1024
const partsMax = Object.values(pluginParts).reduce((sum, part) => sum | part, 0)
const placeNames = ['vcpus', 'lines', 'dirty', 'counts', 'read', 'stored'] as const
const pollMs = 1
const activeMsMax = 5_000

export class PluginShare {
  /** Pages of the guest's RAM. */
  readonly pages: number
  readonly #region: Region
  readonly #lock: FileLock
  readonly #path: string
  readonly #parts: number
  readonly #offsets: Record<(typeof placeNames)[number], number>
  readonly #result = new Float64Array(1)
  #pairs = new Uint32Array(2 * runsAtStart)
  #closed = false

  private constructor(path: string, region: Region, lock: FileLock) {
    this.#path = path
    this.#region = region
    this.#lock = lock
    const header = viewOf(region.read(0, headerBytes))
    const number = (at: number) => Number(header.getBigUint64(at, true))
    if (header.getBigUint64(headerAt.magic, true) !== shareMagic)
      throw unavailable(`${path} was not made by the plugin`)
    if (header.getUint32(headerAt.format, true) !== shareFormat)
      throw unavailable(`the guest runs the plugin of another release: start it again`)
    this.pages = number(headerAt.pages)
    this.#parts = header.getUint32(headerAt.parts, true)
    const said = {
      vcpus: number(headerAt.vcpusOffset),
      lines: number(headerAt.linesOffset),
      dirty: number(headerAt.dirtyOffset),
      counts: number(headerAt.countsOffset),
      read: number(headerAt.readOffset),
      stored: number(headerAt.storedOffset),
    }
    // QEMU's process writes this file: what it says of itself must be what the plugin makes, or a part lies elsewhere.
    const made = shareLayout(this.#parts, this.pages)
    const sound =
      this.#parts > 0 &&
      this.#parts <= partsMax &&
      this.pages > 0 &&
      made.bytes === region.bytes &&
      number(headerAt.bytes) === region.bytes &&
      placeNames.every((name) => said[name] === made.offsets[name])
    if (!sound) throw unavailable(`${path} is damaged`)
    this.#offsets = made.offsets
    this.#setWanted(1)
  }

  /**
   * Asks the plugin to note accesses from now on; `untilActive` says when it does.
   * @throws SubpageError TRACKER_UNAVAILABLE: the guest has no plugin, or somebody else reads
   */
  static open(path: string): PluginShare {
    const lock = openLocked(path)
    let region: Region | undefined
    try {
      region = Region.map(path, { writable: true })
      return new PluginShare(path, region, lock)
    } catch (error) {
      region?.close()
      lock.release()
      throw error
    }
  }

  has(part: PluginPart): boolean {
    return (this.#parts & pluginParts[part]) !== 0
  }

  /** @throws SubpageError TRACKER_UNAVAILABLE when the guest was started without it */
  require(part: PluginPart): void {
    if (!this.has(part)) throw unavailable(`the guest does not track ${part}: start it with --track ${part}`)
  }

  /** Whether accesses are noted. All of them are, from a moment before this was first true. */
  get active(): boolean {
    return this.#u32(headerAt.active) === 1
  }

  /**
   * A vCPU has to wake up once after the first opening. One that never sleeps does so at a pause.
   * @param pause stops the guest and lets it run again
   * @throws SubpageError TRACKER_UNAVAILABLE
   */
  async untilActive(pause?: () => Promise<void>): Promise<void> {
    const deadline = performance.now() + activeMsMax
    if (!this.active) await pause?.()
    while (!this.active) {
      if (performance.now() > deadline)
        throw unavailable(
          `the plugin in the guest's QEMU has not begun within ${activeMsMax / 1000} s: is the guest stopped, or is it never idle?`,
        )
      await delay(pollMs)
    }
  }

  /** Accesses whose place QEMU could not name: with any, marks are missing. */
  get unknown(): number {
    return Number(viewOf(this.#region.read(headerAt.unknown, 8)).getBigUint64(0, true))
  }

  /** Entries of the TLB that the PRL model has for each vCPU. */
  get tlbEntries(): number {
    return this.#u32(headerAt.tlbEntries)
  }

  /** Bytes that the plugin's marks take. */
  get bytes(): number {
    return this.#region.bytes
  }

  /** Pages with marks in the part of lines; the marks stay. */
  markedPages(): PageRanges {
    return this.#runs('pluginFindWords', this.#offsets.lines)
  }

  /** Takes the line marks of these pages. Shape: two numbers a page, as TraceEpoch has them. */
  takeLines(pages: PageRanges): Uint32Array {
    this.#assertOpen()
    const maps = new Uint32Array(2 * pages.pageCount)
    addon.pluginTakeWords(
      this.#region.handle,
      this.#offsets.lines,
      this.pages,
      pages.pairs,
      pages.runCount,
      maps,
    )
    return maps
  }

  takePages(part: 'dirty' | 'read' | 'stored'): PageRanges {
    return this.#runs('pluginTakeBits', this.#offsets[part])
  }

  /** Takes how often each page was logged. Shape: `pages` numbers, up to countMax. */
  takeCounts(): Uint16Array {
    this.#assertOpen()
    const counts = new Uint16Array(this.pages)
    const bytes = new Uint8Array(counts.buffer)
    addon.pluginTakeCounts(this.#region.handle, this.#offsets.counts, this.pages, bytes)
    return counts
  }

  /** Since QEMU started. */
  logCounts(log: 'pml' | 'prl'): LogCounts {
    const records = viewOf(this.#region.read(this.#offsets.vcpus, vcpuCountMax * vcpuBytes))
    const counts: LogCounts = { logged: 0, full: { 128: 0, 256: 0, 512: 0, 1024: 0, 2048: 0, 4096: 0 } }
    for (let vcpu = 0; vcpu < vcpuCountMax; vcpu++) {
      const at = vcpu * vcpuBytes + vcpuAt[log]
      counts.logged += Number(records.getBigUint64(at + logAt.logged, true))
      for (const [size, entries] of logEntries.entries())
        counts.full[entries] += Number(records.getBigUint64(at + logAt.full + 8 * size, true))
    }
    return counts
  }

  /** Empties the logs, as a hypervisor does when it reads what they hold; no log-full event is counted for that. */
  emptyLogs(log: 'pml' | 'prl'): void {
    const left = new Uint8Array(new Uint32Array(logEntries).buffer)
    for (let vcpu = 0; vcpu < vcpuCountMax; vcpu++)
      this.#region.write(this.#offsets.vcpus + vcpu * vcpuBytes + vcpuAt[log] + logAt.left, left)
  }

  /** Empties the TLBs of the PRL model: every page that is used again is logged again. */
  emptyTlbs(): void {
    const generation = Uint32Array.of(this.#u32(headerAt.tlbGeneration) + 1)
    this.#region.write(headerAt.tlbGeneration, new Uint8Array(generation.buffer))
  }

  close(): void {
    if (this.#closed) return
    this.#setWanted(0)
    this.#closed = true
    this.#region.close()
    this.#lock.release()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #runs(find: 'pluginFindWords' | 'pluginTakeBits', offset: number): PageRanges {
    this.#assertOpen()
    let found = PageRanges.empty
    for (let from = 0; from < this.pages; from = this.#result[0]!) {
      const runs = addon[find](this.#region.handle, offset, this.pages, from, this.#pairs, this.#result)
      found = found.union(PageRanges.fromPairs(this.#pairs.slice(0, 2 * runs)))
    }
    return found
  }

  #assertOpen(): void {
    if (this.#closed) throw new TypeError(`the share ${this.#path} is closed`)
  }

  #u32(at: number): number {
    return viewOf(this.#region.read(at, 4)).getUint32(0, true)
  }

  #setWanted(wanted: 0 | 1): void {
    this.#region.write(headerAt.wanted, new Uint8Array(Uint32Array.of(wanted).buffer))
  }
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

function openLocked(path: string): FileLock {
  let lock: FileLock | undefined
  try {
    lock = lockFile(path)
  } catch (cause) {
    if (errorCode(cause) === 'ENOENT')
      throw unavailable('the guest was started without the plugin: start it with --track', cause)
    if (errorCode(cause) === 'EACCES')
      throw unavailable(`may not read ${path}: run as the agent's user`, cause)
    throw cause
  }
  if (lock) return lock
  throw unavailable('another program reads what the plugin notes: a recording, or a study')
}

function unavailable(what: string, cause?: unknown): SubpageError {
  return new SubpageError('TRACKER_UNAVAILABLE', what, { cause })
}
