/** A guest stands still for some work of ours, under the pause lease: it goes on though we die in it. */
import type { PauseLease } from './pause-lease.ts'
import type { Qmp } from './qmp.ts'

/** A pause takes milliseconds; one of this length means that this process hangs. */
export const leaseMs = 2_000

/**
 * One that stood still already goes on doing so. Not beside a checkpoint, whose pause is its own.
 * @returns false: the guard has resumed the guest before the work was done
 * @throws SubpageError PAUSE_BROKEN, and what `work` throws
 */
export async function standStill(
  { qmp, lease }: { qmp: Qmp; lease: PauseLease },
  work: () => Promise<void>,
): Promise<boolean> {
  const { running } = await qmp.run<{ running: boolean }>('query-status')
  if (!running) {
    await work()
    return true
  }
  await lease.settled()
  lease.acquire(leaseMs)
  try {
    await qmp.run('stop')
  } catch (error) {
    lease.resumed()
    throw error
  }
  let whole = false
  try {
    await work()
  } finally {
    whole = lease.release()
    await qmp.run('cont')
    lease.resumed()
  }
  return whole
}
