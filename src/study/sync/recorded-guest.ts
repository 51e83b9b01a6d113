/** A guest that is started for the study, given one workload after the other, recorded with its content, and ended. */
import { setTimeout as delay } from 'node:timers/promises'
import { readConsole, typeLine } from '../../qemu/demo-guest.ts'
import { record } from '../record/recorder.ts'
import { openVm } from '../record/vm-target.ts'
import { type Started, StudyGuest, startGuest } from '../study-guest.ts'
import type { Workload } from './workloads.ts'

const name = 'sync'
const ramBytes = 512 * 2 ** 20
/** A recording takes no longer, however little it holds. */
const limitMs = 60_000
/** Fine enough to show what an epoch of 10 ms looks like in its middle. */
export const stepMs = 2.5

export class RecordedGuest extends StudyGuest {
  readonly #signal: AbortSignal

  private constructor(started: Started, signal: AbortSignal) {
    super(started)
    this.#signal = signal
  }

  /** @throws SubpageError as startGuest */
  static async start(signal: AbortSignal): Promise<RecordedGuest> {
    return new RecordedGuest(await startGuest({ name, initrd: 'initrd-workloads.gz', ramBytes }), signal)
  }

  /** What the workload needs and the guest lacks. */
  async lacks({ needs }: Workload): Promise<string[]> {
    const said = await this.#say(
      `for p in ${needs.join(' ')}; do command -v $p >/dev/null || echo "study: lacks $p"; done`,
    )
    return [...said.matchAll(/^study: lacks (\S+)/gm)].map(([, program]) => program!)
  }

  /**
   * Records the guest under a workload, which is gone afterwards.
   * @param forMs time of the guest, in whole steps
   * @throws SubpageError FILE_EXISTS
   */
  async record(workload: Workload, path: string, forMs: number): Promise<void> {
    const from = readConsole(this.console).length
    // A group of its own: ended with all its programs.
    await this.#say(
      `setsid sh -c '${workload.command.replaceAll("'", `'\\''`)}' >/dev/ttyS0 2>&1 & echo $! >/run/study`,
    )
    try {
      await this.until(workload.ready, from)
      await delay(workload.settleMs, undefined, { signal: this.#signal })
      const enough = new AbortController()
      const target = await openVm(this.directory, name, 'auto')
      try {
        await record(target, {
          path,
          replace: false,
          epochMs: stepMs,
          forMs: limitMs,
          content: true,
          signal: AbortSignal.any([this.#signal, enough.signal]),
          // On a busy host the guest gets to run for less time than passes.
          progress: ({ epochs }) => {
            if (epochs * stepMs >= forMs) enough.abort()
          },
        })
      } finally {
        await target.close()
      }
      this.#signal.throwIfAborted()
    } finally {
      if (!this.#signal.aborted) await this.#say('kill -9 -$(cat /run/study); sleep 0.2; rm -rf /tmp/*')
    }
  }

  /** Runs a line of shell on the console. @returns what was printed until it was done */
  async #say(line: string): Promise<string> {
    const from = readConsole(this.console).length
    await typeLine(this.console, `run ${line}`)
    return await this.until(/^subpage-guest: exit /m, from)
  }
}
