/** The jobs of QEMU that copy and tap disks. */
import { setTimeout as delay } from 'node:timers/promises'
import { SubpageError } from '../errors.ts'
import type { Qmp } from './qmp.ts'

export const jobPrefix = 'subpage-mirror-'
const endMsMax = 10_000
const lookMs = 2

interface Job {
  device: string
  len: number
  offset: number
}

/** Of ours. */
export async function mirrorJobs(qmp: Qmp): Promise<Job[]> {
  const jobs = await qmp.run<Job[]>('query-block-jobs')
  return jobs.filter(({ device }) => device.startsWith(jobPrefix))
}

/** Bytes that they have still to copy. */
const leftOf = (jobs: readonly Job[]): number => jobs.reduce((sum, { len, offset }) => sum + len - offset, 0)

interface Settling {
  /** What may be left to copy while the guest stands still. */
  bytesMax: number
  over: () => boolean
}

/** What may be left at first. */
const leftBytesMin = 2 ** 20
const settleMs = 50

/**
 * Resolves when little is left; a guest that writes without a pause is allowed more with time. One that writes faster than is sent would
 * never be done: it is, once all has been copied.
 * @param waitingBytes what was copied, and waits to be sent
 */
export async function untilSettled(
  qmp: Qmp,
  { bytesMax, over }: Settling,
  waitingBytes: () => number,
): Promise<void> {
  const first = new Map<string, number>()
  for (let allowed = leftBytesMin; !over(); allowed = Math.min(allowed * 1.2, bytesMax)) {
    const jobs = await mirrorJobs(qmp)
    for (const { device, len } of jobs) if (!first.has(device)) first.set(device, len)
    if (leftOf(jobs) + waitingBytes() <= allowed) return
    if (allowed === bytesMax && jobs.every(({ device, offset }) => offset >= first.get(device)!)) return
    await delay(settleMs)
  }
}

/** What waits to be sent has room in a file now: the guest stands still only for what the jobs have left. */
export async function untilCaughtUp(qmp: Qmp, { bytesMax, over }: Settling): Promise<void> {
  while (!over() && leftOf(await mirrorJobs(qmp)) > bytesMax) await delay(settleMs)
}

/** @throws SubpageError DISK_FAILED */
export async function untilJobsGone(qmp: Qmp): Promise<void> {
  const deadline = performance.now() + endMsMax
  while ((await mirrorJobs(qmp)).length > 0) {
    if (performance.now() > deadline)
      throw new SubpageError(
        'DISK_FAILED',
        `QEMU does not end its copying of a disk within ${endMsMax / 1000} s`,
      )
    await delay(lookMs)
  }
}
