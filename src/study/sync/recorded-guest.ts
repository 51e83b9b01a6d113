/** A guest that is started for the study, given one workload after the other, recorded with its content, and ended. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { probeAccel } from '../../qemu/accel.ts'
import { consoleAt, demoGuestOptions, readConsole, typeLine, untilConsole } from '../../qemu/demo-guest.ts'
import { guestFiles } from '../../qemu/guest-files.ts'
import { launch } from '../../qemu/launch.ts'
import { QemuProcess } from '../../qemu/qemu-process.ts'
import { record } from '../record/recorder.ts'
import { openVm } from '../record/vm-target.ts'
import type { Workload } from './workloads.ts'

const name = 'sync'
const ramBytes = 512 * 2 ** 20
const startMsMax = 120_000
/** A recording takes no longer, however little it holds. */
const limitMs = 60_000
/** Fine enough to show what an epoch of 10 ms looks like in its middle. */
export const stepMs = 2.5

export class RecordedGuest {
  readonly #qemu: QemuProcess
  readonly #directory: string
  readonly #signal: AbortSignal

  private constructor(qemu: QemuProcess, directory: string, signal: AbortSignal) {
    this.#qemu = qemu
    this.#directory = directory
    this.#signal = signal
  }

  /** @throws SubpageError BAD_ARGUMENT when the guest's image is not built; what `launch` throws */
  static async start(signal: AbortSignal): Promise<RecordedGuest> {
    const options = demoGuestOptions(['workload=idle'], 'initrd-workloads.gz')
    const directory = mkdtempSync(join(tmpdir(), 'subpage-sync-'))
    try {
      const machine = { type: 'q35', ramBytes, accel: await probeAccel(), options, nics: [] }
      const files = guestFiles(directory, name)
      const qemu = new QemuProcess(
        files,
        await launch({ id: randomUUID(), name, generation: 1 }, machine, files, false),
      )
      const guest = new RecordedGuest(qemu, directory, signal)
      try {
        await guest.#until(/^idle started/m, 0)
        return guest
      } catch (error) {
        await qemu.end()
        throw error
      }
    } catch (error) {
      rmSync(directory, { recursive: true, force: true })
      throw error
    }
  }

  get accel(): string {
    return this.#qemu.record.machine.accel
  }

  async end(): Promise<void> {
    await this.#qemu.end()
    rmSync(this.#directory, { recursive: true, force: true })
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
    const from = readConsole(this.#console).length
    // A group of its own: ended with all its programs.
    await this.#say(
      `setsid sh -c '${workload.command.replaceAll("'", `'\\''`)}' >/dev/ttyS0 2>&1 & echo $! >/run/study`,
    )
    try {
      await this.#until(workload.ready, from)
      await delay(workload.settleMs, undefined, { signal: this.#signal })
      const enough = new AbortController()
      const target = await openVm(this.#directory, name, 'auto')
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
    const from = readConsole(this.#console).length
    await typeLine(this.#console, `run ${line}`)
    return await this.#until(/^subpage-guest: exit /m, from)
  }

  #until(pattern: RegExp, from: number): Promise<string> {
    return untilConsole(this.#console, from, (text) => (pattern.test(text) ? text : undefined), startMsMax)
  }

  get #console() {
    return consoleAt(this.#qemu.files.consoleLog)
  }
}
