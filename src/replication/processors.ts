/** How busy this host's processors are: what reducing takes is taken from guests when none is idle. */
import { cpus } from 'node:os'

/** Looking takes tens of microseconds for each processor. */
const lookAgainMs = 1000

let lookedAt = Number.NEGATIVE_INFINITY
let times = { busy: 0, all: 0 }
let share = 0

/** Share of processor time that was used lately, by anyone: 0 to 1. */
export function busyShare(): number {
  const now = performance.now()
  if (now - lookedAt < lookAgainMs) return share
  const before = times
  times = { busy: 0, all: 0 }
  for (const { times: t } of cpus()) {
    times.all += t.user + t.nice + t.sys + t.irq + t.idle
    times.busy += t.user + t.nice + t.sys + t.irq
  }
  // Since the machine was started, at first.
  if (times.all > before.all) share = (times.busy - before.busy) / (times.all - before.all)
  lookedAt = now
  return share
}
