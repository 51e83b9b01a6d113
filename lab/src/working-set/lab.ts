/**
 * The guest that this study measures in, with the programs of the workload image. It is watched as every guest of subpage
 * is.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { SubpageError } from 'subpage/errors'
import type { PluginPart } from 'subpage/qemu/plugin'
import { QemuGuest } from 'subpage/qemu/qemu-guest'
import { clearReferences, readReferences } from 'subpage/tracking/referenced'
import type { Estimate, Estimator } from 'subpage/workingset/estimator'
import { type LiveSettings, LiveWatch } from 'subpage/workingset/live'
import type { Observation } from 'subpage/workingset/observation'
import type { Plan } from 'subpage/workingset/plan'
import { scaleUp } from 'subpage/workingset/share'
import { ConsoleReader, type Line } from '../console-reader.ts'
import { type Started, StudyGuest, startGuest } from '../study-guest.ts'

/** Room for 400 MiB and the guest's own. */
const ramBytes = 640 * 2 ** 20
const pollMs = 5

/** What one interval of a watch found. */
export interface Window {
  /** Of the host's steady clock. */
  startMs: number
  endMs: number
  /** Of this interval alone, and how many of them were written. */
  pages: number
  writtenPages: number | undefined
  watchedPages: number
  estimate: Estimate
  /** By the accessed bits. */
  referencedPages?: number
}

export interface Watched {
  windows: Window[]
  /** What the guest said meanwhile. */
  lines: Line[]
  /** By the watch's own account. */
  costShare: number
}

export interface WatchOrder {
  intervals: number
  settings: LiveSettings
  estimator: Estimator
  plan?: Plan
  /** Take the accessed bits at the end of each interval. */
  metered?: boolean
  /** Called then too. */
  atInterval?: () => void
}

export class Lab extends StudyGuest {
  readonly ramPages = ramBytes / 4096
  readonly #guest: QemuGuest
  readonly #signal: AbortSignal

  private constructor(started: Started, signal: AbortSignal) {
    super(started)
    this.#guest = new QemuGuest(started.qemu)
    this.#signal = signal
  }

  /**
   * @param additions further images that its programs are in
   * @param track what QEMU's plugin is to note; TCG then
   * @throws SubpageError as startGuest
   */
  static async start(
    signal: AbortSignal,
    additions: readonly string[],
    track: PluginPart[] = [],
  ): Promise<Lab> {
    const initrd = ['initrd-workloads.gz', ...additions]
    return new Lab(await startGuest({ name: 'study', initrd, ramBytes, track }), signal)
  }

  /** Watches until it is told not to, for nobody. */
  startWatch(settings: LiveSettings): LiveWatch {
    return this.#newWatch(settings).start()
  }

  #newWatch(settings: LiveSettings, plan?: Plan): LiveWatch {
    return new LiveWatch(this.#guest.watchAccesses(), settings, { plan })
  }

  /** Watches for some intervals, and reads the console meanwhile. */
  async watch(order: WatchOrder): Promise<Watched> {
    const { intervals, settings, estimator, plan, metered } = order
    const watch = this.#newWatch(settings, plan)
    const windows: Window[] = []
    let failure: SubpageError | undefined
    watch.on('failed', (error) => {
      failure = error
    })
    watch.on('observation', (observation) => {
      estimator.add(observation)
      if (!observation.endsInterval) return
      order.atInterval?.()
      const window = windowOf(this.ramPages, observation, estimator)
      windows.push(metered ? { ...window, referencedPages: this.#takeReferenced() } : window)
    })
    const reader = this.#reader()
    if (metered) this.#takeReferenced()
    watch.start()
    try {
      while (windows.length < intervals && !failure) {
        await this.#moment()
        reader.read()
      }
    } finally {
      await watch.stop()
    }
    if (failure) throw failure
    return { windows, lines: reader.lines, costShare: watch.cost.share }
  }

  /** Reads the console for so long. */
  async listen(ms: number): Promise<Line[]> {
    const reader = this.#reader()
    const until = performance.now() + ms
    while (performance.now() < until) {
      await this.#moment()
      reader.read()
    }
    return reader.lines
  }

  /**
   * Pages of the guest that were accessed since this was asked last, by the accessed bits of QEMU's page tables: a count
   * that has nothing to do with forgetting, and reaches all of the memory. TCG only.
   */
  #takeReferenced(): number {
    const { record, files } = this.qemu
    const ram = readReferences(record.process.pid).filter(({ name }) => name === files.ram)
    clearReferences(record.process.pid)
    return ram.reduce((pages, { referencedPages }) => pages + referencedPages, 0)
  }

  #reader(): ConsoleReader {
    return new ConsoleReader(this.console, () => this.processorNs())
  }

  async #moment(): Promise<void> {
    this.#signal.throwIfAborted()
    await delay(pollMs)
  }
}

function windowOf(ramPages: number, observation: Observation, estimator: Estimator): Window {
  const { startMs, endMs, watched, accessed, written, sampled } = observation
  const { estimate } = estimator
  if (!estimate) throw new TypeError('an interval has ended, so there is an estimate')
  return {
    startMs,
    endMs,
    pages: scaleUp(ramPages, watched, accessed, sampled).pages,
    writtenPages: written && scaleUp(ramPages, watched, written, sampled).pages,
    watchedPages: watched.pageCount,
    estimate,
  }
}
