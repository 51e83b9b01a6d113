/** How late the event loop of this process is: whoever waits for it waits so long, heartbeats included. */
import { monitorEventLoopDelay } from 'node:perf_hooks'

/** It wakes the process so often. */
const resolutionMs = 50
const lookMs = 1_000
/** It is said at most so often. */
const sayMs = 60_000

const histogram = monitorEventLoopDelay({ resolution: resolutionMs })
histogram.enable()
let worstMs = 0

const lately = () => Math.max(0, histogram.max / 1e6 - resolutionMs)

/** At most, since the process began, in milliseconds. */
export const loopDelayMs = () => Math.max(worstMs, lately())

/**
 * Looks from time to time, for as long as the process runs.
 * @param limitMs what is too late, at this moment
 */
export function watchLoop(limitMs: () => number, late: (ms: number) => void): void {
  let saidAtMs = Number.NEGATIVE_INFINITY
  const look = () => {
    const ms = lately()
    worstMs = Math.max(worstMs, ms)
    histogram.reset()
    const now = performance.now()
    if (ms <= limitMs() || now - saidAtMs < sayMs) return
    saidAtMs = now
    late(ms)
  }
  setInterval(look, lookMs).unref()
}
