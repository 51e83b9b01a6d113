/**
 * Reads from outside which pages of guest RAM the kernel calls written, or present, in the process that runs the guest:
 * PAGEMAP_SCAN over all mappings of the RAM. Source: Linux Documentation/admin-guide/mm/pagemap.rst.
 */
import { closeSync, openSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { errorCode, SubpageError } from '../errors.ts'
import { type FileLock, lockFile } from '../memory/file-lock.ts'
import { addon } from '../memory/native.ts'
import { pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import { type Mapping, mappingsOf } from './mappings.ts'
import { describeShim, readShimStatus } from './shim.ts'
import type { TrackerTarget } from './tracker.ts'
import { processEnded, type WatchedProcess } from './watched-process.ts'

/** Of linux/fs.h. */
export const category = { written: 1 << 1, present: 1 << 3 } as const

/** 2 GiB. A scan of fewer takes about a millisecond or less, which two threads were not seen to make shorter. */
const parallelPagesMin = 2 ** 19
const threadsMax = Math.min(16, availableParallelism())

export class Pagemap {
  readonly #watched: WatchedProcess
  readonly #mappings: Mapping[]
  readonly #pagemap: number

  /** @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE */
  constructor(watched: WatchedProcess, mappings: Mapping[]) {
    this.#watched = watched
    this.#mappings = mappings
    this.#pagemap = readingProc(watched.pid, () => openSync(`/proc/${watched.pid}/pagemap`, 'r'))
  }

  /**
   * @param rearm for written pages: takes the mark away in the same step, so that the next scan finds what came after
   * @param among looks at these pages only; a run costs a system call, some tenths of a microsecond
   * @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE
   */
  scan(wanted: number, rearm: boolean, among?: PageRanges): PageRanges {
    this.#watched.assertRunning()
    try {
      let found = PageRanges.empty
      for (const mapping of this.#mappings) {
        const mapped = pagesOf(mapping)
        found = found.union(this.#scan(mapping, wanted, rearm, among ? among.intersect(mapped) : mapped))
      }
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

  /** Closes the watched process too. False when it was closed before. */
  close(): boolean {
    if (!this.#watched.close()) return false
    closeSync(this.#pagemap)
    return true
  }

  #scan({ start, firstPage }: Mapping, wanted: number, rearm: boolean, among: PageRanges): PageRanges {
    const base = firstPage - start / pageBytes
    const { pairs, runCount, pageCount } = among
    const threads = pageCount < parallelPagesMin ? 1 : threadsMax
    return PageRanges.fromPairs(
      addon.pagemapScan(this.#pagemap, pairs, runCount, base, wanted, rearm, threads),
    )
  }
}

const pagesOf = ({ start, end, firstPage }: Mapping) =>
  PageRanges.of([[firstPage, (end - start) / pageBytes]])

/**
 * The right to take the marks of written pages away. Two who did would each miss what the other took: a protected guest
 * would lose writes.
 * @returns undefined while somebody else has it
 */
export const lockMarks = ({ pid, ramPath }: TrackerTarget): FileLock | undefined =>
  readingProc(pid, () => lockFile(ramPath))

/** The mappings to scan: they cover the first `ramPages` of the RAM file, and no other one can change these. */
export function trackedMappings({ pid, ramPath, ramPages, shimStatusPath }: TrackerTarget): Mapping[] {
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
  if (covered < ramPages)
    throw because(`process ${pid} maps ${covered} pages of ${ramPath} in one piece, its RAM has ${ramPages}`)
  return mappings
    .filter(({ firstPage }) => firstPage < ramPages)
    .map((mapping) => ({
      ...mapping,
      end: Math.min(mapping.end, mapping.start + (ramPages - mapping.firstPage) * pageBytes),
    }))
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
