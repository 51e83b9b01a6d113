/**
 * The same measurement with a guest as the workload: all of its memory, its kernel's too, held by pausing its processor as a
 * checkpoint does. One guest runs one workload after the other.
 */
import type { Region } from '../../memory/region.ts'
import { openTracker, type Tracker } from '../../tracking/tracker.ts'
import { type GuestWorkload, guestWorkloads } from '../guest-workload.ts'
import { WorkloadGuest } from '../workload-guest.ts'
import { type Epochs, type Holdable, measure, type Plan } from './measure.ts'

export interface MeasuredGuest {
  workload: GuestWorkload
  /** Programs that the guest's image lacks: there are no epochs then. */
  lacks: string[]
  epochs: Epochs[]
  memoryBytes: number
}

/** @throws SubpageError as WorkloadGuest.start */
export async function measureInGuest(
  chosen: readonly GuestWorkload[],
  plan: Plan,
  note: (text: string) => void,
  signal: AbortSignal,
  done: (measured: MeasuredGuest) => unknown,
): Promise<void> {
  note('starting a guest')
  const guest = await WorkloadGuest.start(signal)
  try {
    for (const workload of chosen) {
      note(nameInGuest(workload))
      const lacks = await guest.lacks(workload)
      if (lacks.length > 0) {
        done({ workload, lacks, epochs: [], memoryBytes: 0 })
        continue
      }
      const { epochs, memoryBytes } = await guest.at(workload, async () => {
        await using held = new HeldGuest(guest)
        return await measure(held, plan, async () => false, signal)
      })
      done({ workload, lacks, epochs, memoryBytes })
    }
  } finally {
    await guest.end()
  }
}

/** Of all workloads, those of guests are told apart by it. */
export const nameInGuest = ({ name }: Pick<GuestWorkload, 'name'>) => `guest/${name}`

/** @param only names; all when left out */
export function chosenInGuest(only: readonly string[] | undefined): GuestWorkload[] {
  return guestWorkloads().filter((workload) => !only || only.includes(nameInGuest(workload)))
}

class HeldGuest implements Holdable {
  readonly ram: Region
  readonly #guest: WorkloadGuest
  readonly #tracker: Tracker
  #goneOnAt = performance.now()
  #going: Promise<unknown> = Promise.resolve()

  constructor(guest: WorkloadGuest) {
    const { files, record, ram } = guest.qemu
    this.#guest = guest
    this.ram = ram
    this.#tracker = openTracker(
      {
        pid: record.process.pid,
        ramPath: files.ram,
        ramPages: ram.pages,
        shimStatusPath: files.shimStatus,
      },
      'userfault',
    )
  }

  /** It counts as running from when it is told to until it is known to stand: on a busy host QEMU hears of it late. */
  async holdStill() {
    await Promise.all([this.#going, this.#guest.stop()])
    return {
      ranUs: 1000 * (performance.now() - this.#goneOnAt),
      cpuUs: this.#guest.processorNs() / 1000,
    }
  }

  goOn(): void {
    this.#goneOnAt = performance.now()
    // Not waited for, since the epoch runs.
    this.#going = this.#guest.go()
    // Whoever holds it next, or closes it, is told.
    this.#going.catch(() => undefined)
  }

  harvest() {
    return { dirty: this.#tracker.harvest() }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#tracker.close()
    await this.#going
  }
}
