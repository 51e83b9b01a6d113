/** Epochs of a guest and its active slave under each workload. */
import type { GuestWorkload } from '../../guest-workload.ts'
import { StudyGuest, startGuest } from '../../study-guest.ts'
import { WorkloadGuest, workloadImage } from '../../workload-guest.ts'
import { type SlaveCost, SlaveCosts } from './slave-cost.ts'
import { type Ran, SlavePair } from './slave-pair.ts'

export interface SlaveEpoch extends SlaveCost {
  /** Pages that the slave wrote. */
  slavePages: number
  primary: Ran
  slave: Ran
}

/** A workload with one epoch length. */
export interface SlaveCell {
  workload: string
  epochMs: number
  epochs: SlaveEpoch[]
}

interface SlavePlan {
  epochLengths: readonly number[]
  epochs: number
}

/** Its clock is that of the machine, which stands still with it: states of devices can be compared byte by byte. */
const clock = ['-rtc', 'clock=vm']

/** A guest that can have a slave. @throws SubpageError as startGuest */
export const startPrimary = (signal: AbortSignal): Promise<WorkloadGuest> =>
  WorkloadGuest.start(signal, clock)

/** Its machine is that of the guest; what it does by itself is lost. @throws SubpageError as startGuest */
export async function startSlave({ qemu }: StudyGuest): Promise<StudyGuest> {
  const { ramBytes, accel } = qemu.record.machine
  const wanted = { name: 'study-slave', initrd: workloadImage, ramBytes, moreOptions: clock }
  return new StudyGuest(await startGuest({ ...wanted, accel: accel === 'tcg' ? 'tcg' : 'auto' }))
}

/**
 * Each epoch is checked: the slave is the checkpoint then, page by page.
 * @param slave as startSlave makes it
 * @param done is given each as it is measured
 */
export async function measureSlave(
  guest: WorkloadGuest,
  slave: StudyGuest,
  workload: GuestWorkload,
  { epochLengths, epochs }: SlavePlan,
  done: (cell: SlaveCell) => unknown,
): Promise<void> {
  await guest.at(workload, async () => {
    const pair = await SlavePair.open(guest, slave)
    try {
      await pair.begin()
      for (const epochMs of epochLengths) {
        const costs = new SlaveCosts(guest.qemu.ram, pair.committed)
        const cell: SlaveCell = { workload: workload.name, epochMs, epochs: [] }
        try {
          for (let i = 0; i < epochs; i++) {
            guest.signal.throwIfAborted()
            cell.epochs.push(await epoch(pair, costs, epochMs))
          }
        } finally {
          costs.close()
        }
        done(cell)
      }
    } finally {
      pair.close()
      await guest.go()
    }
  })
}

async function epoch(pair: SlavePair, costs: SlaveCosts, epochMs: number): Promise<SlaveEpoch> {
  const diverged = await pair.diverge(epochMs)
  const { primary, slave, equal } = diverged
  const { cost, deltas } = await costs.epoch(primary.dirty, equal, pair.slave.qemu.ram)
  await pair.correct(diverged, deltas)
  const ran = ({ ranUs, processorUs }: Ran): Ran => ({ ranUs, processorUs })
  return { ...cost, slavePages: slave.dirty.pageCount, primary: ran(primary), slave: ran(slave) }
}
