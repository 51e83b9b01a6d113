/** Records a guest of the study, with its content, at a workload. */
import type { GuestWorkload } from '../guest-workload.ts'
import { record } from '../record/recorder.ts'
import { openVm } from '../record/vm-target.ts'
import type { WorkloadGuest } from '../workload-guest.ts'

/** A recording takes no longer, however little it holds. */
const limitMs = 60_000
/** Fine enough to show what an epoch of 10 ms looks like in its middle. */
const stepMs = 2.5

/**
 * @param forMs time of the guest, in whole steps
 * @throws SubpageError FILE_EXISTS; the signal's reason when the study is to end
 */
export async function recordGuest(
  guest: WorkloadGuest,
  workload: GuestWorkload,
  path: string,
  forMs: number,
): Promise<void> {
  await guest.at(workload, async () => {
    const enough = new AbortController()
    const target = await openVm(guest.directory, guest.qemu.record.name, 'auto')
    try {
      await record(target, {
        path,
        replace: false,
        epochMs: stepMs,
        forMs: limitMs,
        content: true,
        signal: AbortSignal.any([guest.signal, enough.signal]),
        // On a busy host the guest gets to run for less time than passes.
        progress: ({ epochs }) => {
          if (epochs * stepMs >= forMs) enough.abort()
        },
      })
    } finally {
      await target.close()
    }
    guest.signal.throwIfAborted()
  })
}
