/** A guest that is started for a study and given one workload after the other. */
import { setTimeout as delay } from 'node:timers/promises'
import { consoleLength, typeLine } from 'subpage/qemu/demo-guest'
import type { GuestWorkload } from './guest-workload.ts'
import { type Started, StudyGuest, startGuest } from './study-guest.ts'

export const workloadImage = 'initrd-workloads.gz'
const ramBytes = 512 * 2 ** 20

export class WorkloadGuest extends StudyGuest {
  readonly signal: AbortSignal

  protected constructor(started: Started, signal: AbortSignal) {
    super(started)
    this.signal = signal
  }

  /** @throws SubpageError as startGuest */
  static async start(signal: AbortSignal, moreOptions: readonly string[] = []): Promise<WorkloadGuest> {
    return new WorkloadGuest(
      await startGuest({ name: 'study', initrd: workloadImage, ramBytes, moreOptions }),
      signal,
    )
  }

  /** What the workload needs and the guest lacks. */
  async lacks({ needs }: GuestWorkload): Promise<string[]> {
    const said = await this.#say(
      `for p in ${needs.join(' ')}; do command -v $p >/dev/null || echo "study: lacks $p"; done`,
    )
    return [...said.matchAll(/^study: lacks (\S+)/gm)].map(([, program]) => program!)
  }

  /** Has the guest at this work while `look` looks at it; it has ended afterwards, unless the study is to end. */
  async at<T>({ run, ready, settleMs }: GuestWorkload, look: () => Promise<T>): Promise<T> {
    const from = consoleLength(this.console)
    // A group of its own: ended with all its programs.
    await this.#say(`setsid sh -c '${run.replaceAll("'", `'\\''`)}' >/dev/ttyS0 2>&1 & echo $! >/run/study`)
    try {
      await this.until(new RegExp(ready, 'm'), from)
      await delay(settleMs, undefined, { signal: this.signal })
      return await look()
    } finally {
      if (!this.signal.aborted) await this.#say('kill -9 -$(cat /run/study); sleep 0.2; rm -rf /tmp/*')
    }
  }

  /** Runs a line of shell on the console. @returns what was printed until it was done */
  async #say(line: string): Promise<string> {
    const from = consoleLength(this.console)
    await typeLine(this.console, `run ${line}`)
    return await this.until(/^subpage-guest: exit /m, from)
  }
}
