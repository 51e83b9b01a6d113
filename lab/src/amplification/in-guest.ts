/**
 * The same measurement with a guest as the workload: all of its memory, its kernel's too, held by pausing its processor as a
 * checkpoint does. One guest runs one workload after the other.
 */
import type { Region } from 'subpage/memory/region'
import { openTracker, type Tracker } from 'subpage/tracking/tracker'
import { type GuestWorkload, guestWorkloads } from '../guest-workload.ts'
import { WorkloadGuest } from '../workload-guest.ts'
import { type Epochs, failureOf, type Holdable, measure, type Plan } from './measure.ts'

export interface MeasuredGuest {
  workload: GuestWorkload
  /** Why there are no epochs. */
  failed?: string
  epochs: Epochs[]
  memoryBytes: number
}

/** @param done is given each as it is measured, or what has failed */
export async function measureInGuest(
  chosen: readonly GuestWorkload[],
  plan: Plan,
  note: (text: string) => void,
  signal: AbortSignal,
  done: (measured: MeasuredGuest) => unknown,
): Promise<void> {
  const left = [...chosen]
  try {
    note('starting a guest')
    await using guest = await WorkloadGuest.start(signal)
    for (let workload = left[0]; workload; workload = left[0]) {
      note(nameInGuest(workload))
      done(await measureOne(guest, workload, plan))
      left.shift()
    }
  } catch (error) {
    // The guest is not one to go on with.
    const failed = failureOf(error, signal)
    note(`  ${failed}`)
    for (const workload of left) done({ workload, failed, epochs: [], memoryBytes: 0 })
  }
}

async function measureOne(guest: WorkloadGuest, workload: GuestWorkload, plan: Plan): Promise<MeasuredGuest> {
  const lacks = await guest.lacks(workload)
  if (lacks.length > 0)
    return { workload, failed: `the guest's image lacks ${lacks.join(', ')}`, epochs: [], memoryBytes: 0 }
  return await guest.at(workload, async () => {
    await using held = new HeldGuest(guest)
    const { epochs, memoryBytes } = await measure(held, plan, async () => false, guest.signal)
    return { workload, epochs, memoryBytes }
  })
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
    const { files, record, ram, ramPath } = guest.qemu
    this.#guest = guest
    this.ram = ram
    this.#tracker = openTracker(
      {
        pid: record.process.pid,
        ramPath,
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
