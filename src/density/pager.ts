/**
 * Serves the page faults of a guest whose pages are in the store: native threads of this process, one for each guest
 * (native/core/pager.h). The userfaultfd is that of its QEMU, which the shim has made and which stays open there, so a
 * process that serves after us finds everybody who still waits.
 */
import { closeSync, openSync } from 'node:fs'
import { constants } from 'node:os'
import { SubpageError } from '../errors.ts'
import { addon } from '../memory/native.ts'
import { trackedMappings } from '../tracking/pagemap.ts'
import { describeShim, readShimStatus } from '../tracking/shim.ts'
import type { TrackerTarget } from '../tracking/tracker.ts'
import { type Store, type StoredKind, storedKinds } from './store.ts'

const buckets = 128
const head = storedKinds.length + 4

export interface Served {
  pages: number
  /** Microseconds from reading the fault to its answer; null when there was none. */
  us: Percentiles | null
  /** Of them, rebuilding the page. */
  rebuildUs: Percentiles | null
}

export interface Percentiles {
  p50: number
  p99: number
}

export interface PagerStats {
  served: Record<StoredKind, Served>
  /** Faults of pages that never held anything. */
  zeros: number
  /** Answers that had to be put off; `reason` why the latest is, empty when it was given. */
  retries: number
  reason: string
  /** The process is gone. */
  ended: boolean
}

/**
 * From now on no fault of this process is answered by anybody else.
 * @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE when its faults cannot be served
 */
export function startPager(store: Store, guest: number, target: TrackerTarget & { shimStatusPath: string }) {
  const shim = readShimStatus(target.shimStatusPath)
  if (shim?.tracking !== 'ok' || shim.kind !== 'full')
    throw new SubpageError(
      'TRACKER_UNAVAILABLE',
      `page faults of process ${target.pid} cannot be served: ${shim ? (shim.tracking === 'ok' ? 'it may only be tracked; run the agent as root, or allow /dev/userfaultfd' : describeShim(shim)) : 'it runs without the shim'}`,
    )
  const mappings = trackedMappings(target)
  const pidfd = addon.pidfdOpen(target.pid)
  try {
    const fields = mappings.flatMap(({ start, end, firstPage }) => [start, end - start, firstPage])
    addon.pagerStart(store.handle, guest, pidfd, shim.uffd, Float64Array.from(fields), mappings.length)
  } catch (cause) {
    throw new SubpageError(
      'TRACKER_UNAVAILABLE',
      `page faults of process ${target.pid} cannot be served: ${(cause as Error).message}`,
      { cause },
    )
  } finally {
    closeSync(pidfd)
  }
}

/**
 * Every page must be back, else false is returned and it is served on. The process of the guest goes on alone, and all its
 * pages count as written. Also for a process that has ended.
 */
export function stopPager(store: Store, guest: number): boolean {
  const error = addon.pagerStop(store.handle, guest, false)
  return error === 0 || error === constants.errno.ENOENT
}

/** Undefined for a guest that is not served. */
export function readPager(store: Store, guest: number): PagerStats | undefined {
  const kinds = storedKinds.length
  const results = new Float64Array(head + 2 * kinds * buckets)
  if (!addon.pagerRead(store.handle, guest, results)) return undefined
  const [zeros, retries, errno, ended] = results.subarray(storedKinds.length) as unknown as number[]
  const served = storedKinds.map((kind, index) => {
    const times = (at: number) =>
      percentiles(results.subarray(head + at * buckets, head + (at + 1) * buckets))
    return [kind, { pages: results[index]!, us: times(index), rebuildUs: times(kinds + index) }] as const
  })
  return {
    served: Object.fromEntries(served) as Record<StoredKind, Served>,
    zeros: zeros!,
    retries: retries!,
    reason: errno === 0 ? '' : reasonOf(errno!),
    ended: ended !== 0,
  }
}

function percentiles(times: Float64Array): Percentiles | null {
  const total = times.reduce((sum, count) => sum + count, 0)
  if (total === 0) return null
  const at = (share: number) => {
    let [seen, bucket] = [0, -1]
    while (seen < share * total) seen += times[++bucket]!
    return startNs(bucket + 1) / 1000
  }
  return { p50: at(0.5), p99: at(0.99) }
}

/** How an accessed page was held; packed ones by packing. */
export const accessKinds = ['filled', 'whole', 'patched', 'words', 'lz4', 'zstd', 'swapped'] as const
export type AccessKind = (typeof accessKinds)[number]

/** Of one access to a stored page, in nanoseconds; each is part of the one before. */
export interface AccessTime {
  kind: AccessKind
  /** As the thread that reads the page sees it: the fault and all that follows. */
  accessNs: number
  /** From reading the fault to its answer. */
  answerNs: number
  rebuildNs: number
}

/**
 * Reads pages of a guest that nobody serves, in the order given, each once, and times it. Those that were in the store are
 * in the RAM file afterwards. @throws SubpageError TRACKER_UNAVAILABLE
 */
export async function timeAccesses(
  store: Store,
  guest: number,
  ramPath: string,
  pages: Uint32Array,
): Promise<AccessTime[]> {
  // Write protection can be asked for where writing is possible only.
  const fd = openSync(ramPath, 'r+')
  try {
    const results = new Float64Array(1 + 4 * pages.length)
    const error = await addon.pagerTimeAccesses(store.handle, guest, fd, pages, results)
    if (error !== 0)
      throw new SubpageError('TRACKER_UNAVAILABLE', `page faults cannot be served here: errno ${error}`)
    return Array.from({ length: results[0]! }, (_, i) => {
      const [kind, accessNs, answerNs, rebuildNs] = results.subarray(1 + 4 * i) as unknown as number[]
      return { kind: accessKinds[kind!]!, accessNs: accessNs!, answerNs: answerNs!, rebuildNs: rebuildNs! }
    })
  } finally {
    closeSync(fd)
  }
}

/** Where a bucket begins: quarters of powers of two (pager_bucket). */
const startNs = (bucket: number) =>
  bucket < 4 ? bucket : (4 + (bucket % 4)) * 2 ** (Math.floor(bucket / 4) - 1)

function reasonOf(errno: number): string {
  const { ENOSPC, ENOMEM, EBADMSG, ENODATA, EIO } = constants.errno
  if (errno === ENOSPC || errno === ENOMEM)
    return 'no memory to bring a page back into: free some in /dev/shm'
  if (errno === EBADMSG) return 'a stored page is damaged'
  if (errno === ENODATA) return 'the swap file does not hold what was written to it'
  if (errno === EIO) return 'the swap file cannot be read'
  return `errno ${errno}`
}
