/** Measures what the study needs of a guest: how often logs are full, and how much slower each tracker makes it. */
import { setTimeout as delay } from 'node:timers/promises'
import { Region } from 'subpage/memory/region'
import { openTracker } from 'subpage/tracking/tracker'
import { PageChanges } from '../page-changes.ts'
import { openLines } from '../plugin/lines.ts'
import { addCounts } from '../plugin/log.ts'
import { openPml } from '../plugin/pml.ts'
import { openPrl } from '../plugin/prl.ts'
import type { PluginShare } from '../plugin/share.ts'
import { median } from '../report/statistics.ts'
import { endlessWork, LabGuest } from './lab.ts'
import type { Events } from './model.ts'
import type { Workload } from './workloads.ts'

/** Pages are armed again this often, as a hypervisor does that checkpoints or migrates. */
export const armMs = 100
/** Trackers are harvested this often while their cost is measured. */
const harvestMs = 50

export interface Counted extends Events {
  name: string
}

/** N: logs of all sizes are followed at once, on the same accesses. */
export async function countFull(
  guest: LabGuest,
  share: PluginShare,
  { name, command, ready, ends }: Workload,
  ms: number,
  signal: AbortSignal,
): Promise<Counted> {
  if (command !== undefined) await guest.begin(command, ready)
  const pml = openPml(share)
  pml.harvest()
  const startMs = performance.now()
  let logged = 0
  let full = { 128: 0, 256: 0, 512: 0, 1024: 0, 2048: 0, 4096: 0 }
  let now = startMs
  for (let round = 1; now < startMs + ms; round++) {
    await delay(Math.max(1, startMs + round * armMs - now), undefined, { signal })
    const harvest = pml.harvest()
    logged += harvest.pages.pageCount
    full = addCounts(full, harvest.full)
    now = performance.now()
  }
  if (command !== undefined) await guest.endPrograms(ends, 'KILL')
  return { name, seconds: (now - startMs) / 1000, logged, full }
}

export const trackerNames = ['userfault', 'compare', 'lines', 'pml', 'prl'] as const
export type MeasuredTracker = (typeof trackerNames)[number]

export interface Overhead {
  name: MeasuredTracker
  /** Share of its work that the guest does not get done while it is tracked; the middle one of `pairs`. */
  slowdown: number
  pairs: number[]
  /** Memory of the host that the tracker takes. */
  memoryBytes: number
}

export interface Windows {
  pairs: number
  windowMs: number
}

/**
 * A guest that works without end, tracked and not, window after window.
 * @param plain a guest without a plugin, at that work
 * @throws SubpageError TRACKER_UNAVAILABLE
 */
export async function measureOverhead(
  plain: LabGuest,
  name: MeasuredTracker,
  windows: Windows,
  signal: AbortSignal,
): Promise<Overhead> {
  if (name === 'userfault' || name === 'compare') return await onOneGuest(plain, name, windows)
  return await besideAnother(plain, name, windows, signal)
}

async function onOneGuest(
  guest: LabGuest,
  name: 'userfault' | 'compare',
  { pairs, windowMs }: Windows,
): Promise<Overhead> {
  const tracker = openTracker(guest.target, name)
  const { ram } = guest.qemu
  // What compare needs is the copy that it compares with; whoever replicates has it anyway.
  using shadow = name === 'compare' ? Region.anonymous(ram.bytes) : undefined
  const changes = new PageChanges()
  const harvest = () => {
    const pages = tracker.harvest()
    if (shadow) changes.compare(ram, shadow, pages, true)
  }
  try {
    harvest()
    const slowdowns: number[] = []
    for (let pair = 0; pair < pairs; pair++) {
      const untracked = await guest.workRate(windowMs, windowMs, () => undefined)
      harvest()
      const tracked = await guest.workRate(windowMs, harvestMs, harvest)
      slowdowns.push(1 - tracked / untracked)
    }
    return { name, slowdown: median(slowdowns), pairs: slowdowns, memoryBytes: shadow ? ram.bytes : 0 }
  } finally {
    tracker.close()
  }
}

/** QEMU 7.2 cannot go back to code without the plugin: the other windows are those of the guest that never had it. */
async function besideAnother(
  plain: LabGuest,
  name: 'lines' | 'pml' | 'prl',
  { pairs, windowMs }: Windows,
  signal: AbortSignal,
): Promise<Overhead> {
  await plain.stop()
  try {
    const guest = await LabGuest.start([name], 'initrd.gz', signal)
    try {
      await guest.begin(endlessWork.command, /^victim step=[1-9]/m)
      using share = await guest.openShare()
      const harvest = harvestOf(share, name)
      const slowdowns: number[] = []
      for (let pair = 0; pair < pairs; pair++) {
        await guest.stop()
        await plain.go()
        const untracked = await plain.workRate(windowMs, windowMs, () => undefined)
        await plain.stop()
        await guest.go()
        harvest()
        const tracked = await guest.workRate(windowMs, harvestMs, harvest)
        slowdowns.push(1 - tracked / untracked)
      }
      return { name, slowdown: median(slowdowns), pairs: slowdowns, memoryBytes: share.bytes }
    } finally {
      await guest.end()
    }
  } finally {
    await plain.go()
  }
}

function harvestOf(share: PluginShare, name: 'lines' | 'pml' | 'prl'): () => void {
  if (name === 'lines') {
    const lines = openLines(share)
    return () => void lines.take(lines.pages())
  }
  const tracker = name === 'pml' ? openPml(share) : openPrl(share)
  return () => void tracker.harvest()
}
