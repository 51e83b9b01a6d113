/**
 * How written pages of a guest are found while it is recorded: by a tracker of pages, or by QEMU's plugin together with
 * one. The plugin does not see what devices write, the kernel does; and a page of the kernel's has its lines from the plugin.
 */
import { SubpageError } from 'subpage/errors'
import { PageRanges } from 'subpage/memory/page-ranges'
import { openTracker, type Tracker, type TrackerChoice, type TrackerTarget } from 'subpage/tracking/tracker'
import { logEntries } from '../plugin/layout.ts'
import { openLines } from '../plugin/lines.ts'
import { openPml } from '../plugin/pml.ts'
import { loggedMoreThan, openPrl } from '../plugin/prl.ts'
import { PluginShare, pluginBlindSpots } from '../plugin/share.ts'
import { HeldPages } from './held-pages.ts'
import type { Harvest, RecordTarget } from './target.ts'

export type PluginTracker = 'lines' | 'pml' | 'prl'
export type RecordTracker = TrackerChoice | PluginTracker

export interface VmTracking
  extends Pick<RecordTarget, 'tracker' | 'guesses' | 'written' | 'counters' | 'notes'> {
  harvest(): Omit<Harvest, 'newAreas'>
  /** Resolves when nothing that is written is missed any more. @throws SubpageError TRACKER_UNAVAILABLE */
  begin(pause: () => Promise<void>): Promise<void>
  close(): void
}

const isPluginTracker = (choice: RecordTracker): choice is PluginTracker =>
  choice === 'lines' || choice === 'pml' || choice === 'prl'

/**
 * @param sharePath the file of the plugin
 * @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE
 */
export function openVmTracking(target: TrackerTarget, sharePath: string, choice: RecordTracker): VmTracking {
  const held = new HeldPages(target.ramPath, target.ramPages)
  try {
    return openTracking(target, sharePath, choice, held)
  } catch (error) {
    held.close()
    throw error
  }
}

function openTracking(
  target: TrackerTarget,
  sharePath: string,
  choice: RecordTracker,
  held: HeldPages,
): VmTracking {
  if (!isPluginTracker(choice)) return pagesOnly(openTracker(target, choice), held)
  const share = PluginShare.open(sharePath)
  try {
    const part = parts[choice](share)
    return withPlugin({ share, name: choice, part, kernel: openUserfault(target), held })
  } catch (error) {
    share.close()
    throw error
  }
}

function pagesOnly(tracker: Tracker, held: HeldPages): VmTracking {
  const guesses = tracker.name === 'compare'
  return {
    tracker: tracker.name,
    guesses,
    written: false,
    counters: [],
    notes: [
      guesses
        ? 'Pages were compared: what was written with the same value is not seen.'
        : 'Written pages include those that devices wrote.',
      ...(tracker.fallback === undefined ? [] : [`userfault was not available: ${tracker.fallback}`]),
    ],
    begin: async () => undefined,
    harvest: () => ({ dirty: held.among(tracker.harvest()) }),
    close() {
      tracker.close()
      held.close()
    },
  }
}

/** What a part of the plugin adds to the pages that the kernel calls written; none when it cannot be asked. */
interface Part {
  counters: string[]
  written: boolean
  /** Names pages that were only read, too. */
  readsToo: boolean
  harvest(kernel: PageRanges): Omit<Harvest, 'newAreas'>
}

const parts: Record<PluginTracker, (share: PluginShare) => Part> = {
  lines(share) {
    const lines = openLines(share)
    return {
      counters: [],
      written: true,
      readsToo: false,
      harvest(kernel) {
        const dirty = lines.pages().union(kernel)
        return { dirty, writtenMaps: lines.take(dirty) }
      },
    }
  },
  pml(share) {
    const pml = openPml(share)
    return {
      counters: ['logged', ...logEntries.map((entries) => `logFull${entries}`)],
      written: false,
      readsToo: false,
      harvest(kernel) {
        const { pages, full } = pml.harvest()
        const counters = { logged: pages.pageCount, ...named(full) }
        return { dirty: pages.union(kernel), counters }
      },
    }
  },
  prl(share) {
    const prl = openPrl(share)
    return {
      counters: ['accessedPages', 'logged', ...logEntries.map((entries) => `logFull${entries}`)],
      written: false,
      readsToo: true,
      harvest(kernel) {
        const { counts, full } = prl.harvest()
        const accessed = loggedMoreThan(0, counts)
        const logged = counts.reduce((sum, count) => sum + count, 0)
        const counters = { accessedPages: accessed.pageCount, logged, ...named(full) }
        return { dirty: accessed.union(kernel), counters }
      },
    }
  },
}

const named = (full: Record<number, number>) =>
  Object.fromEntries(Object.entries(full).map(([entries, count]) => [`logFull${entries}`, count]))

interface WithPlugin {
  share: PluginShare
  name: PluginTracker
  part: Part
  /** The tracker of pages, or why there is none. */
  kernel: Tracker | string
  held: HeldPages
}

function withPlugin({ share, name, part, kernel, held }: WithPlugin): VmTracking {
  let first = true
  return {
    tracker: name,
    guesses: part.readsToo,
    written: part.written,
    counters: part.counters,
    notes: [
      pluginBlindSpots,
      typeof kernel === 'string'
        ? `Such writes are missing from this recording, unless a CPU wrote the page too: ${kernel}`
        : 'What was written so was found with userfault.',
      ...(part.readsToo ? ['Pages were read or written: only those whose content changed count.'] : []),
    ],
    begin: (pause) => share.untilActive(pause),
    harvest() {
      const pages =
        typeof kernel !== 'string' ? kernel.harvest() : first ? PageRanges.all(share.pages) : PageRanges.empty
      first = false
      const harvest = part.harvest(held.among(pages))
      if (share.unknown > 0)
        throw new SubpageError(
          'TRACKER_UNAVAILABLE',
          `QEMU could not tell the plugin the place of ${share.unknown} accesses: a recording would miss them`,
        )
      return harvest
    },
    close() {
      if (typeof kernel !== 'string') kernel.close()
      share.close()
      held.close()
    },
  }
}

/** The tracker of pages, or why there is none. */
function openUserfault(target: TrackerTarget): Tracker | string {
  try {
    return openTracker(target, 'userfault')
  } catch (error) {
    if (error instanceof SubpageError && error.code === 'TRACKER_UNAVAILABLE') return error.message
    throw error
  }
}
