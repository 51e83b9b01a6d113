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
