/** How late the event loop of this process has been at most: whoever waits for it waited so long. */
import { monitorEventLoopDelay } from 'node:perf_hooks'

/** It wakes the process so often. */
const resolutionMs = 50
const histogram = monitorEventLoopDelay({ resolution: resolutionMs })
histogram.enable()

/** Since the process began, in milliseconds. */
export const loopDelayMs = () => Math.max(0, histogram.max / 1e6 - resolutionMs)
