/**
 * While a guest is protected its arbiter is looked at now and then, by reading: whether it still knows this host's
 * generation. One that was restored from a backup or set up anew would otherwise be found out when it is to decide, and could
 * not. A connected pair meets again, which writes its generation down anew; a guest that is alone writes it down by itself, for
 * the other host to find it.
 */
import { BrokenInvariant, endProcess } from '../errors.ts'
import type { Holder } from './arbiter.ts'
import type { Clock } from './clock.ts'
import type { PrimarySession } from './primary-session.ts'
import type { PrimaryMachine } from './primary-state.ts'
import type { Succession } from './succession.ts'

export interface ArbiterWatch {
  /** The connection that serves; undefined without one. */
  session: () => PrimarySession | undefined
  machine: PrimaryMachine
  /** @param dispute in words: somebody else holds our generation, or a newer one; undefined: nobody */
  found: (dispute: string | undefined) => void
}

const watchMs = 10_000

/** Ends when the protection does. Never rejects. */
export async function watchArbiter(
  { clock, succession }: { clock: Clock; succession: Succession },
  watch: ArbiterWatch,
): Promise<void> {
  const { stopping } = watch.machine
  while (!stopping.aborted) {
    await clock.sleep(watchMs, stopping)
    if (stopping.aborted) return
    try {
      await look(succession, watch)
    } catch (error) {
      if (error instanceof BrokenInvariant) return endProcess(error)
      // It gives no answer: the agent sees that for all guests (agent/arbiter-health.ts).
    }
  }
}

async function look(succession: Succession, { session, machine, found }: ArbiterWatch): Promise<void> {
  const { stopping } = machine
  const recalled = await succession.recall(stopping)
  if (stopping.aborted) return
  if (recalled === 'forgotten') {
    const serving = session()
    if (serving)
      serving.connection.fail(
        `${succession.arbiter} has lost its memory: the two hosts meet again and remind it`,
      )
    else if (!machine.exposed) await succession.remind(stopping)
  }
  const holder = typeof recalled === 'object' ? recalled : undefined
  found(holder && disputeOf(succession, holder))
  // That copy would go on in place of ours: before it goes on with another standby it asks.
  if (holder && succession.yieldsTo({ ...holder, runs: true })) machine.change('suspect', machine.why)
}

const disputeOf = ({ arbiter }: Succession, { claimant, generation }: Holder): string =>
  `${arbiter} says that ${claimant} holds generation ${generation}: it may run there, too`
