/** The guest that this study measures in, with QEMU's plugin or without. */
import { setTimeout as delay } from 'node:timers/promises'
import { SubpageError } from 'subpage/errors'
import { consoleLength, readConsole, victimLines } from 'subpage/qemu/demo-guest'
import type { PluginPart } from 'subpage/qemu/plugin'
import type { TrackerTarget } from 'subpage/tracking/tracker'
import { type Started, StudyGuest, startGuest } from '../study-guest.ts'

export const ramBytes = 320 * 2 ** 20
const pollMs = 5
/** A guest that reports nothing for so long after its window has gone, or hangs. */
const workMsMax = 30_000

/** Work without end, whose amount the console tells. */
export const endlessWork = { command: 'victim mib=32 rate=0 </dev/null', ends: 'victim' }

export class LabGuest extends StudyGuest {
  readonly #signal: AbortSignal

  private constructor(started: Started, signal: AbortSignal) {
    super(started)
    this.#signal = signal
  }

  /** @throws SubpageError as startGuest */
  static async start(track: PluginPart[], initrd: string, signal: AbortSignal): Promise<LabGuest> {
    signal.throwIfAborted()
    // The guests without a plugin are compared with those that have one.
    return new LabGuest(await startGuest({ name: 'study', initrd, ramBytes, accel: 'tcg', track }), signal)
  }

  get target(): TrackerTarget {
    const { files, record, ram, ramPath } = this.qemu
    return {
      pid: record.process.pid,
      ramPath,
      ramPages: ram.pages,
      shimStatusPath: files.shimStatus,
    }
  }

  /**
   * How much of the endless work gets done, in steps per second that the guest's processor runs: on a busy host it waits
   * for its turn, with a tracker or without.
   * @param each called every `everyMs` meanwhile
   */
  async workRate(ms: number, everyMs: number, each: () => void): Promise<number> {
    const until = performance.now() + ms
    const atMost = until + workMsMax
    let next = performance.now() + everyMs
    const seen: { ranNs: number; step: number }[] = []
    for (let at = consoleLength(this.console); performance.now() < until || seen.length < 2; ) {
      this.#signal.throwIfAborted()
      await delay(pollMs)
      if (performance.now() > atMost)
        throw new SubpageError('GUEST_DIED', 'the guest of the study does not work any more')
      const last = victimLines(readConsole(this.console, at)).at(-1)
      if (last) {
        seen.push({ ranNs: this.processorNs(), step: last.step })
        at = consoleLength(this.console)
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
}
