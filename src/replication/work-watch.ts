/**
 * Work of a standby's host for a checkpoint that may hang, as a disk can. Its supervisor beats meanwhile, so nobody would suspect it,
 * and what the guest has sent would wait for as long as the disk does.
 */
import { SubpageError } from '../errors.ts'
import type { Clock } from './clock.ts'
import type { Connection } from './connection.ts'
import { type Frame, frameType } from './frame.ts'
import type { StandbyMachine } from './standby-state.ts'

/** A disk that takes longer for what a guest writes in an epoch counts as one that hangs. */
const workMsMax = 10_000
/** In pieces: only time in which this process ran counts. */
export const lookMs = workMsMax / 10

const kinds: readonly number[] = [
  frameType.pages,
  frameType.raw,
  frameType.reduced,
  frameType.disk,
  frameType.commit,
]

interface Watch {
  clock: Clock
  machine: Pick<StandbyMachine, 'explain'>
  connection: Pick<Connection, 'refuse'>
}

/**
 * The primary goes on without this standby when the work takes too long.
 * @param frame that it is done with: of what is seeded it may take its time
 */
export async function watchWork(
  { clock, machine, connection }: Watch,
  { type, epoch }: Frame,
  work: Promise<void>,
): Promise<void> {
  if (epoch === 0 || !kinds.includes(type)) return await work
  let leftMs = workMsMax
  const look = () => {
    leftMs -= lookMs
    if (leftMs > 0) {
      cancel = clock.after(lookMs, look)
      return
    }
    const why = new SubpageError(
      'DISK_FAILED',
      `what belongs to a checkpoint could not be kept within ${workMsMax / 1000} s: does a disk of that host hang?`,
    )
    machine.explain(why)
    void connection.refuse(why)
  }
  let cancel = clock.after(lookMs, look)
  await work.finally(() => cancel())
}
