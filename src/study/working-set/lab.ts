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
import { DistEstimator } from '../../workingset/dist.ts'
import type { Estimate } from '../../workingset/estimator.ts'
import { type LiveSettings, LiveWatch } from '../../workingset/live.ts'
import type { Observation } from '../../workingset/observation.ts'
import type { Plan } from '../../workingset/plan.ts'
import { scaleUp } from '../../workingset/share.ts'

/** Room for 400 MiB and the guest's own. */
const ramBytes = 640 * 2 ** 20
const startMsMax = 120_000
const faultNsUnknown = 5_000

/** What one interval of a watch found. */
export interface Window {
  /** Of the host's steady clock. */
  startMs: number
  endMs: number
  pages: number
  writtenPages: number | undefined
  watchedPages: number
  estimate: Estimate
}

/** A line of the guest's console and when it was seen. */
export interface Line {
  atMs: number
  text: string
}

export class Lab {
  readonly console: Console
  readonly accel: string
  readonly ramPages = ramBytes / 4096
  readonly #guest: QemuGuest
  readonly #directory: string
  readonly #signal: AbortSignal

  private constructor(guest: QemuGuest, directory: string, signal: AbortSignal) {
    this.#guest = guest
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
      const lab = new Lab(new QemuGuest(qemu), directory, signal)
      try {
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
  async watch(
    settings: LiveSettings,
    intervals: number,
    plan?: Plan,
  ): Promise<{ windows: Window[]; lines: Line[]; costShare: number }> {
    const faultNs = addon.forgetFaultNs() || faultNsUnknown
    const watch = new LiveWatch({ ...this.#guest.watchAccesses(), faultNs }, settings, plan)
    const estimator = new DistEstimator(this.ramPages)
    const windows: Window[] = []
    let failure: SubpageError | undefined
    watch.on('failed', (error) => {
      failure = error
    })
    watch.on('observation', (observation) => {
      estimator.add(observation)
      if (observation.endsInterval) windows.push(windowOf(this.ramPages, observation, estimator))
    })
    const reader = new ConsoleReader(this.console)
    watch.start()
    try {
      while (windows.length < intervals && !failure) {
        this.#signal.throwIfAborted()
        await delay(10)
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
    const reader = new ConsoleReader(this.console)
    const until = performance.now() + ms
    while (performance.now() < until) {
      this.#signal.throwIfAborted()
      await delay(10)
      reader.read()
    }
    return reader.lines
  }

  /** Time that the guest's processor has run, in nanoseconds: of its thread in QEMU (proc(5), schedstat). */
  async processorNs(): Promise<number> {
    const [cpu] = await this.#guest.qemu.qmp.run<{ 'thread-id': number }[]>('query-cpus-fast')
    const pid = this.#guest.qemu.record.process.pid
    return Number(readFileSync(`/proc/${pid}/task/${cpu?.['thread-id']}/schedstat`, 'utf8').split(' ')[0])
  }
}

function windowOf(ramPages: number, observation: Observation, estimator: DistEstimator): Window {
  const { startMs, endMs, watched, written } = observation
  if (!estimator.latest || !estimator.estimate)
    throw new TypeError('an interval has ended, so there is an estimate')
  return {
    startMs,
    endMs,
    pages: estimator.latest.pages,
    writtenPages: written && scaleUp(ramPages, watched, written).pages,
    watchedPages: watched.pageCount,
    estimate: estimator.estimate,
  }
}

/** Whole lines as they come, with the time at which they were seen. */
class ConsoleReader {
  readonly lines: Line[] = []
  readonly #console: Console
  #at: number

  constructor(console: Console) {
    this.#console = console
    this.#at = readConsole(console).length
  }

  read(): void {
    const text = readConsole(this.#console, this.#at)
    const end = text.lastIndexOf('\n') + 1
    if (end === 0) return
    this.#at += end
    const atMs = performance.now()
    for (const line of text.slice(0, end - 1).split('\n')) this.lines.push({ atMs, text: line })
  }
}
