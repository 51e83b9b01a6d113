/** Runs schedules side by side, and tells of the first that failed: its seed, and the end of its log. */
import { type Result, simulate } from './schedule.ts'
import type { Broken } from './sim-world.ts'

/** They share the turns of the event loop; each is as deterministic as alone. */
const atOnce = 24
const shownLines = 70

export interface Summary {
  schedules: number
  events: number
  epochs: number
  takeovers: number
  packets: number
  hotPages: number
  lost: number
  failed: Result[]
}

/** @param stopAtFailure no further one is begun after the first that fails */
export async function simulateMany(
  firstSeed: number,
  count: number,
  broken: Broken = {},
  stopAtFailure = false,
): Promise<Summary> {
  const summary: Summary = {
    schedules: 0,
    events: 0,
    epochs: 0,
    takeovers: 0,
    packets: 0,
    hotPages: 0,
    lost: 0,
    failed: [],
  }
  let next = 0
  const worker = async () => {
    while (next < count && !(stopAtFailure && summary.failed.length > 0)) {
      const result = await simulate(firstSeed + next++, broken)
      summary.schedules++
      summary.events += result.events
      summary.epochs += result.epochs
      summary.takeovers += result.takeovers
      summary.packets += result.packets
      summary.hotPages += result.hotPages
      if (result.lost) summary.lost++
      if (result.failure) summary.failed.push(result)
    }
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, count) }, worker))
  return summary
}

export function describeFailure({ seed, failure, log }: Result): string {
  const shown = log.length > shownLines ? [log[0], '…', ...log.slice(-shownLines)] : log
  return `schedule ${seed}: ${failure?.message}\nreplay: SUBPAGE_SIM_SEED=${seed}\n${shown.join('\n')}`
}
