/**
 * Ends the programs of a study and removes their files, also when the study itself is killed: a process of its own
 * (native/reaper) waits for the pipe that we hold to close. Studies end their programs no other way.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { SubpageError } from 'subpage/errors'
import { buildPrograms, labProgram } from './package-root.ts'

const reaperPath = labProgram('reaper')

export class Reaper {
  readonly #child: ChildProcess

  /**
   * @param folder that the programs run in, each in a session without a terminal; removed with all that is in it
   * @param others what else is to be removed; need not exist
   * @throws SubpageError ADDON_MISSING when the native programs are not built
   */
  constructor(folder: string, others: readonly string[] = []) {
    this.#child = spawn(reaperPath, [folder, ...others], {
      detached: true,
      cwd: '/',
      stdio: ['pipe', 'ignore', 'inherit'],
    })
    // A failed spawn has no pid and reports the reason later, through `error`; both are handled here.
    this.#child.on('error', () => undefined)
    // It is told by the pipe that has gone.
    this.#child.stdin!.on('error', () => undefined)
    if (this.#child.pid === undefined)
      throw new SubpageError('ADDON_MISSING', `cannot start ${reaperPath}: run ${buildPrograms}`)
    this.#child.unref()
  }

  /** Returns once nothing runs there any more and all is removed. */
  async end(): Promise<void> {
    const { exitCode, signalCode, stdin } = this.#child
    if (exitCode !== null || signalCode !== null) return
    this.#child.ref()
    const ended = once(this.#child, 'exit')
    stdin!.end()
    await ended
  }
}
