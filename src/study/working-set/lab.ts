/**
 * A guest to measure in: started for the study, with the programs of the workload image, and gone afterwards. It is watched
 * as every guest of subpage is.
 */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { SubpageError } from '../../errors.ts'
import { addon } from '../../memory/native.ts'
import { probeAccel } from '../../qemu/accel.ts'
import {
  type Console,
  consoleAt,
  demoGuestOptions,
  readConsole,
  typeLine,
  untilConsole,
} from '../../qemu/demo-guest.ts'
import { guestFiles } from '../../qemu/guest-files.ts'
import { launch } from '../../qemu/launch.ts'
import { QemuGuest } from '../../qemu/qemu-guest.ts'
import { QemuProcess } from '../../qemu/qemu-process.ts'
import { clearReferences, readReferences } from '../../tracking/referenced.ts'
import type { Estimate, Estimator } from '../../workingset/estimator.ts'
import { type LiveSettings, LiveWatch } from '../../workingset/live.ts'
import type { Observation } from '../../workingset/observation.ts'
import type { Plan } from '../../workingset/plan.ts'
import { scaleUp } from '../../workingset/share.ts'
import { ConsoleReader, type Line } from './console-reader.ts'

/** Room for 400 MiB and the guest's own. */
const ramBytes = 640 * 2 ** 20
const startMsMax = 120_000
const pollMs = 5
const faultNsUnknown = 5_000

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
}

export class Lab {
  readonly console: Console
  readonly accel: string
  readonly ramPages = ramBytes / 4096
  readonly #guest: QemuGuest
  readonly #directory: string
  readonly #schedstat: string
  readonly #signal: AbortSignal

  private constructor(guest: QemuGuest, directory: string, schedstat: string, signal: AbortSignal) {
    this.#guest = guest
    this.#schedstat = schedstat
    this.#directory = directory
    this.#signal = signal
    this.accel = guest.qemu.record.machine.accel
    this.console = consoleAt(guest.qemu.files.consoleLog)
  }

  /** @throws SubpageError BAD_ARGUMENT when the guest's image is not built; what `launch` throws */
  static async start(signal: AbortSignal): Promise<Lab> {
    const options = demoGuestOptions(['workload=idle'], 'initrd-workloads.gz')
    const directory = mkdtempSync(join(tmpdir(), 'subpage-study-'))
    try {
      const machine = { type: 'q35', ramBytes, accel: await probeAccel(), options, nics: [] }
      const files = guestFiles(directory, 'study')
      const identity = { id: randomUUID(), name: 'study', generation: 1 }
      const qemu = new QemuProcess(files, await launch(identity, machine, files, false))
      try {
        const [cpu] = await qemu.qmp.run<{ 'thread-id': number }[]>('query-cpus-fast')
        const schedstat = `/proc/${qemu.record.process.pid}/task/${cpu?.['thread-id']}/schedstat`
        const lab = new Lab(new QemuGuest(qemu), directory, schedstat, signal)
        await untilConsole(
          lab.console,
          0,
          (text) => (/^idle started/m.test(text) ? true : undefined),
          startMsMax,
        )
        return lab
      } catch (error) {
        await qemu.end()
        throw error
      }
    } catch (error) {
      rmSync(directory, { recursive: true, force: true })
      throw error
    }
  }

  async end(): Promise<void> {
    await this.#guest.qemu.end()
    rmSync(this.#directory, { recursive: true, force: true })
  }

  /** Starts a program and waits until it says that it is ready. */
  async begin(command: string, ready: RegExp): Promise<void> {
    const from = readConsole(this.console).length
    await typeLine(this.console, `run ${command} >/dev/ttyS0 2>&1 &`)
    await untilConsole(this.console, from, (text) => (ready.test(text) ? true : undefined), startMsMax)
  }

  /** Ends programs by name and waits until they are gone. */
  async stop(names: string): Promise<void> {
    const from = readConsole(this.console).length
    await typeLine(
      this.console,
      `run killall ${names}; while pidof ${names} >/dev/null; do sleep 0.1; done; echo "study: gone"`,
    )
    await untilConsole(
      this.console,
      from,
      (text) => (/^study: gone/m.test(text) ? true : undefined),
      startMsMax,
    )
  }

  /** Watches for some intervals, and reads the console meanwhile. */
  async watch({ intervals, settings, estimator, plan, metered }: WatchOrder): Promise<Watched> {
    const faultNs = addon.forgetFaultNs() || faultNsUnknown
    const watch = new LiveWatch({ ...this.#guest.watchAccesses(), faultNs }, settings, plan)
    const windows: Window[] = []
    let failure: SubpageError | undefined
    watch.on('failed', (error) => {
      failure = error
    })
    watch.on('observation', (observation) => {
      estimator.add(observation)
      if (!observation.endsInterval) return
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
    const { record, files } = this.#guest.qemu
    const ram = readReferences(record.process.pid).filter(({ name }) => name === files.ram)
    clearReferences(record.process.pid)
    return ram.reduce((pages, { referencedPages }) => pages + referencedPages, 0)
  }

  #reader(): ConsoleReader {
    return new ConsoleReader(this.console, () => this.#processorNs())
  }

  async #moment(): Promise<void> {
    this.#signal.throwIfAborted()
    await delay(pollMs)
  }

  /** Time that the guest's processor has run: of its thread in QEMU (proc(5), schedstat). */
  #processorNs(): number {
    return Number(readFileSync(this.#schedstat, 'utf8').split(' ')[0])
  }
}

function windowOf(ramPages: number, observation: Observation, estimator: Estimator): Window {
  const { startMs, endMs, watched, accessed, written } = observation
  const { estimate } = estimator
  if (!estimate) throw new TypeError('an interval has ended, so there is an estimate')
  return {
    startMs,
    endMs,
    pages: scaleUp(ramPages, watched, accessed).pages,
    writtenPages: written && scaleUp(ramPages, watched, written).pages,
    watchedPages: watched.pageCount,
    estimate,
  }
}
