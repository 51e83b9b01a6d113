/** Epochs of a guest and its active slave under each workload. */
import { setTimeout as delay } from 'node:timers/promises'
import { SubpageError } from 'subpage/errors'
import type { GuestWorkload } from '../../guest-workload.ts'
import { StudyGuest, startGuest } from '../../study-guest.ts'
import { WorkloadGuest, workloadImage } from '../../workload-guest.ts'
import { SlaveNetwork } from './network.ts'
import type { Clients, ServedWorkload } from './served.ts'
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
  /** Requests of clients outside that were answered meanwhile; undefined where there are none. */
  answered?: number
}

interface SlavePlan {
  epochLengths: readonly number[]
  epochs: number
}

/** Of clients outside, before anything is measured; a server that is up answers them in a few seconds. */
const answeredFirst = 50
const answeredMsMax = 120_000

/** Its clock is that of the machine, which stands still with it: states of devices can be compared byte by byte. */
const clock = ['-rtc', 'clock=vm']

/** A guest that can have a slave. @throws SubpageError as startGuest */
export const startPrimary = (signal: AbortSignal, network?: SlaveNetwork): Promise<WorkloadGuest> =>
  WorkloadGuest.start(signal, [...clock, ...(network?.ofPrimary ?? [])])

/** Its machine is that of the guest; what it does by itself is lost. @throws SubpageError as startGuest */
export async function startSlave({ qemu }: StudyGuest, network?: SlaveNetwork): Promise<StudyGuest> {
  const { ramBytes, accel } = qemu.record.machine
  const moreOptions = [...clock, ...(network?.ofSlave ?? [])]
  const wanted = { name: 'study-slave', initrd: workloadImage, ramBytes, moreOptions }
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
  plan: SlavePlan,
  done: (cell: SlaveCell) => unknown,
): Promise<void> {
  await guest.at(workload, async () => {
    await using pair = await SlavePair.open(guest, slave)
    for (const epochMs of plan.epochLengths) done(await cellOf(pair, guest, workload, epochMs, plan.epochs))
  })
}

/** Of a pair on a network; clients outside ask the guest all the time. */
export async function measureServed(
  { guest, slave, network }: { guest: WorkloadGuest; slave: StudyGuest; network: SlaveNetwork },
  workload: ServedWorkload,
  plan: SlavePlan,
  done: (cell: SlaveCell) => unknown,
): Promise<void> {
  await guest.at(workload, async () => {
    const clients = workload.clients(await SlaveNetwork.portOf(guest.qemu.qmp))
    try {
      await untilServed(clients, guest.signal)
      await using pair = await SlavePair.open(guest, slave, network)
      for (const epochMs of plan.epochLengths) {
        const before = clients.answered
        const cell = await cellOf(pair, guest, workload, epochMs, plan.epochs)
        done({ ...cell, answered: clients.answered - before })
      }
    } finally {
      clients.close()
    }
  })
}

/** @throws SubpageError QEMU_FAILED when they are not served */
async function untilServed(clients: Clients, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + answeredMsMax
  while (clients.answered < answeredFirst) {
    if (performance.now() > deadline)
      throw new SubpageError(
        'QEMU_FAILED',
        `clients outside had ${clients.answered} answers of the guest in ${answeredMsMax / 1000} s: its network does not work`,
      )
    await delay(10, undefined, { signal })
  }
}

async function cellOf(
  pair: SlavePair,
  { signal }: WorkloadGuest,
  workload: GuestWorkload,
  epochMs: number,
  count: number,
): Promise<SlaveCell> {
  const costs = new SlaveCosts(pair.primary.qemu.ram, pair.committed)
  const epochs: SlaveEpoch[] = []
  try {
    for (let i = 0; i < count; i++) {
      signal.throwIfAborted()
      epochs.push(await epoch(pair, costs, epochMs))
    }
  } finally {
    costs.close()
  }
  return { workload: workload.name, epochMs, epochs }
}

async function epoch(pair: SlavePair, costs: SlaveCosts, epochMs: number): Promise<SlaveEpoch> {
  const diverged = await pair.diverge(epochMs)
  const { primary, slave, equal } = diverged
  const { cost, deltas } = await costs.epoch(primary.dirty, equal, pair.slave.qemu.ram)
  await pair.correct(diverged, deltas)
  const ran = ({ ranUs, processorUs }: Ran): Ran => ({ ranUs, processorUs })
  return { ...cost, slavePages: slave.dirty.pageCount, primary: ran(primary), slave: ran(slave) }
}
