/** A guest to measure in, started for the study with QEMU's plugin or without, and gone afterwards. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { SubpageError } from '../../errors.ts'
import {
  type Console,
  consoleAt,
  demoGuestOptions,
  readConsole,
  typeLine,
  untilConsole,
  victimLines,
} from '../../qemu/demo-guest.ts'
import { guestFiles } from '../../qemu/guest-files.ts'
import { launch } from '../../qemu/launch.ts'
import { QemuProcess } from '../../qemu/qemu-process.ts'
import type { PluginPart } from '../../tracking/plugin/layout.ts'
import { PluginShare } from '../../tracking/plugin/share.ts'
import type { TrackerTarget } from '../../tracking/tracker.ts'

export const ramBytes = 320 * 2 ** 20
const startMsMax = 120_000
const pollMs = 5
/** A guest that reports nothing for so long after its window has gone, or hangs. */
const workMsMax = 30_000

/** Work without end, whose amount the console tells. */
export const endlessWork = { command: 'victim mib=32 rate=0 </dev/null', ends: 'victim' }

export class LabGuest {
  readonly qemu: QemuProcess
  readonly console: Console
  readonly #directory: string
  readonly #signal: AbortSignal

  private constructor(qemu: QemuProcess, directory: string, signal: AbortSignal) {
    this.qemu = qemu
    this.#directory = directory
    this.#signal = signal
    this.console = consoleAt(qemu.files.consoleLog)
  }

  /** @throws SubpageError BAD_ARGUMENT when the guest's image is not built; what `launch` throws */
  static async start(track: PluginPart[], image: string, signal: AbortSignal): Promise<LabGuest> {
    signal.throwIfAborted()
    const options = demoGuestOptions(['workload=idle'], image)
    const directory = mkdtempSync(join(tmpdir(), 'subpage-study-'))
    let guest: LabGuest | undefined
    try {
      const machine = { type: 'q35', ramBytes, accel: 'tcg' as const, options, nics: [], track }
      const files = guestFiles(directory, 'study')
      const identity = { id: randomUUID(), name: 'study', generation: 1 }
      const qemu = new QemuProcess(files, await launch(identity, machine, files, false))
      guest = new LabGuest(qemu, directory, signal)
      await untilConsole(
        guest.console,
        0,
        (text) => (/^idle started/m.test(text) ? true : undefined),
        startMsMax,
      )
      return guest
    } catch (error) {
      if (guest) await guest.end()
      else rmSync(directory, { recursive: true, force: true })
      throw error
    }
  }

  get target(): TrackerTarget {
    const { files, record, ram } = this.qemu
    return {
      pid: record.process.pid,
      ramPath: files.ram,
      ramPages: ram.pages,
      shimStatusPath: files.shimStatus,
    }
  }

  /** Has the plugin note accesses from now on. */
  async openShare(): Promise<PluginShare> {
    const share = PluginShare.open(this.qemu.files.accesses)
    try {
      await share.untilActive(async () => {
        await this.stop()
        await this.go()
      })
      return share
    } catch (error) {
      share.close()
      throw error
    }
  }

  async begin(command: string, ready: RegExp): Promise<void> {
    const from = readConsole(this.console).length
    await typeLine(this.console, `run ${command} >/dev/ttyS0 2>&1 &`)
    await untilConsole(this.console, from, (text) => (ready.test(text) ? true : undefined), startMsMax)
  }

  /** Ends programs by name and waits until they are gone. */
  async kill(names: string): Promise<void> {
    const from = readConsole(this.console).length
    await typeLine(
      this.console,
      `run killall -9 ${names}; while pidof ${names} >/dev/null; do sleep 0.1; done; echo "study: gone"`,
    )
    await untilConsole(
      this.console,
      from,
      (text) => (/^study: gone/m.test(text) ? true : undefined),
      startMsMax,
    )
  }

  stop = () => this.qemu.qmp.run('stop')
  go = () => this.qemu.qmp.run('cont')

  /**
   * How much of the endless work gets done, in steps per second that the guest's processor runs: on a busy host it waits
   * for its turn, with a tracker or without.
   * @param each called every `everyMs` meanwhile
   */
  async workRate(ms: number, everyMs: number, each: () => void): Promise<number> {
    const until = performance.now() + ms
    const atMost = until + workMsMax
    let next = performance.now() + everyMs
    const [cpu] = await this.qemu.qmp.run<{ 'thread-id': number }[]>('query-cpus-fast')
    const clock = `/proc/${this.qemu.record.process.pid}/task/${cpu?.['thread-id']}/schedstat`
    const seen: { ranNs: number; step: number }[] = []
    for (let at = readConsole(this.console).length; performance.now() < until || seen.length < 2; ) {
      this.#signal.throwIfAborted()
      await delay(pollMs)
      if (performance.now() > atMost)
        throw new SubpageError('GUEST_DIED', 'the guest of the study does not work any more')
      const last = victimLines(readConsole(this.console, at)).at(-1)
      if (last) {
        // The first field of proc(5), schedstat: time on a processor.
        seen.push({ ranNs: Number(readFileSync(clock, 'utf8').split(' ')[0]), step: last.step })
        at = readConsole(this.console).length
      }
      if (performance.now() >= next) {
        each()
        next += everyMs
      }
    }
    const [first, last] = [seen[0], seen.at(-1)]
    if (!first || !last) throw new TypeError('two reports were waited for')
    return (1e9 * (last.step - first.step)) / (last.ranNs - first.ranNs)
  }

  async end(): Promise<void> {
    await this.qemu.end()
    rmSync(this.#directory, { recursive: true, force: true })
  }
}
