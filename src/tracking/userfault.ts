/**
 * The exact tracker: QEMU's own userfaultfd (registered by the shim) has the kernel mark written pages, and PAGEMAP_SCAN
 * reads and re-arms the marks from here. Source: Linux Documentation/admin-guide/mm/pagemap.rst.
 *
 * What it cannot see: writes to the RAM file by another process than QEMU, and mappings made after it was opened.
 * subpage does not do the first to a running guest, and QEMU maps its RAM once, at start.
 */
import { closeSync, openSync } from 'node:fs'
import { errorCode, SubpageError } from '../errors.ts'
import { addon } from '../memory/native.ts'
import { pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import { type Mapping, mappingsOf } from './mappings.ts'
import { describeShim, readShimStatus } from './shim.ts'
import type { EarlyHarvest, Tracker, TrackerTarget } from './tracker.ts'
import { processEnded, WatchedProcess } from './watched-process.ts'

/** PAGE_IS_WRITTEN of linux/fs.h. */
const written = 1 << 1
/** Pairs of (first page, page count) that one call returns without another round; the array grows when it was full. */
const pairCountAtStart = 16 * 1024

/** @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE with the reason */
export function openUserfault(target: TrackerTarget): Tracker {
  const watched = new WatchedProcess(target.pid)
  let tracker: UserfaultTracker | undefined
  try {
    tracker = new UserfaultTracker(watched, trackedMappings(target), target.ramPages)
    tracker.arm()
    return tracker
  } catch (error) {
    if (tracker) tracker.close()
    else watched.close()
    throw error
  }
}

class UserfaultTracker implements Tracker {
  readonly name = 'userfault'
  readonly #watched: WatchedProcess
  readonly #mappings: Mapping[]
  readonly #ramPages: number
  readonly #pagemap: number
  #pairs = new Uint32Array(2 * pairCountAtStart)
  /** What was written is unknown: before the first harvest, and after one that failed half-way and had re-armed. */
  #everything = true

  constructor(watched: WatchedProcess, mappings: Mapping[], ramPages: number) {
    this.#watched = watched
    this.#mappings = mappings
    this.#ramPages = ramPages
    this.#pagemap = readingProc(watched.pid, () => openSync(`/proc/${watched.pid}/pagemap`, 'r'))
  }

  /** Proves that a harvest works here. What it finds is not lost: the first harvest reports every page. */
  arm(): void {
    this.#scan(true)
  }

  harvest(): PageRanges {
    const everything = this.#everything
    this.#everything = true
    const found = this.#scan(true)
    this.#everything = false
    return everything ? PageRanges.all(this.#ramPages) : found
  }

  readonly early: EarlyHarvest = {
    peek: () => (this.#everything ? PageRanges.empty : this.#scan(false)),
    harvest: (within) => {
      if (this.#everything) return PageRanges.empty
      this.#everything = true
      const found = this.#scan(true, within)
      this.#everything = false
      return found
    },
  }

  close(): void {
    if (this.#watched.close()) closeSync(this.#pagemap)
  }

  #scan(rearm: boolean, within?: PageRanges): PageRanges {
    this.#watched.assertRunning()
    try {
      let found = PageRanges.empty
      for (const mapping of this.#mappings)
        found = found.union(this.#scanMapping(mapping, rearm, within ?? PageRanges.all(this.#ramPages)))
      return found
    } catch (error) {
      if (errorCode(error) === 'ESRCH') throw processEnded(this.#watched.pid, error)
      if (errorCode(error) !== 'EPERM') throw error
      throw new SubpageError(
        'TRACKER_UNAVAILABLE',
        `process ${this.#watched.pid} is no longer registered for write tracking`,
        { cause: error },
      )
    }
  }

  #scanMapping({ start, end, firstPage }: Mapping, rearm: boolean, within: PageRanges): PageRanges {
    const base = firstPage - start / pageBytes
    const mapped = PageRanges.of([[firstPage, (end - start) / pageBytes]])
    let filled = 0
    for (const { first, count } of within.intersect(mapped)) {
      const from = start + (first - firstPage) * pageBytes
      const to = from + count * pageBytes
      const span = new Float64Array([from, to])
      while (span[0] !== to) {
        if (2 * filled === this.#pairs.length) {
          const grown = new Uint32Array(2 * this.#pairs.length)
          grown.set(this.#pairs)
          this.#pairs = grown
        }
        const room = this.#pairs.subarray(2 * filled)
        filled += addon.pagemapScan(this.#pagemap, span, base, written, rearm, room)
      }
    }
    return PageRanges.fromPairs(this.#pairs.slice(0, 2 * filled))
  }
}

/** The mappings to scan: they cover all RAM, and no other one can change it. */
function trackedMappings({ pid, ramPath, ramPages, shimStatusPath }: TrackerTarget): Mapping[] {
  const mappings = readingProc(pid, () => mappingsOf(pid, ramPath)).filter(({ writable }) => writable)
  const because = (what: string) => {
    const shim = shimStatusPath === undefined ? undefined : readShimStatus(shimStatusPath)
    return new SubpageError('TRACKER_UNAVAILABLE', shim ? `${what} (${describeShim(shim)})` : what)
  }
  if (mappings.length === 0) throw because(`process ${pid} has no shared mapping of ${ramPath}`)
  if (mappings.some(({ tracked }) => !tracked))
    throw because(`the RAM of process ${pid} is not registered for write tracking: it must run with the shim`)
  mappings.sort((a, b) => a.firstPage - b.firstPage)
  let covered = 0
  for (const { start, end, firstPage } of mappings) {
    if (firstPage > covered) break
    covered = Math.max(covered, firstPage + (end - start) / pageBytes)
  }
  if (covered !== ramPages)
    throw because(`process ${pid} maps ${covered} pages of ${ramPath} in one piece, its RAM has ${ramPages}`)
  return mappings
}

/** Runs what reads /proc/PID and gives its failures their meaning. */
function readingProc<T>(pid: number, read: () => T): T {
  try {
    return read()
  } catch (error) {
    const code = errorCode(error)
    if (code === 'ESRCH') throw processEnded(pid, error)
    if (code !== 'EACCES' && code !== 'EPERM') throw error
    throw new SubpageError(
      'TRACKER_UNAVAILABLE',
      `may not look into process ${pid}: run as its user, or with CAP_SYS_PTRACE`,
      { cause: error },
    )
  }
}
