/** A real QEMU without a machine: for what its monitor does with disks and network backends. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { errorCode } from '../../src/errors.ts'
import { Qmp } from '../../src/qemu/qmp.ts'

export class BareQemu implements AsyncDisposable {
  /** For files of a test's own, too. */
  readonly directory: string
  readonly qmp: Qmp
  readonly #process: ChildProcess

  private constructor(directory: string, qmp: Qmp, process: ChildProcess) {
    this.directory = directory
    this.qmp = qmp
    this.#process = process
  }

  /** @param options of QEMU, given the directory */
  static async start(options: (directory: string) => string[]): Promise<BareQemu> {
    const directory = mkdtempSync(join(tmpdir(), 'subpage-bare-'))
    const socket = join(directory, 'qmp')
    const process = spawn(
      'qemu-system-x86_64',
      ['-machine', 'none', '-display', 'none', '-nodefaults', '-no-user-config', '-S'].concat(
        ['-qmp', `unix:${socket},server=on,wait=off`],
        options(directory),
      ),
      { stdio: 'ignore' },
    )
    try {
      return new BareQemu(directory, await connected(socket, process), process)
    } catch (error) {
      process.kill('SIGKILL')
      rmSync(directory, { recursive: true })
      throw error
    }
  }

  get pid(): number {
    return this.#process.pid!
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.qmp.close()
    this.#process.kill('SIGKILL')
    if (this.#process.exitCode === null && this.#process.signalCode === null)
      await once(this.#process, 'exit')
    rmSync(this.directory, { recursive: true })
  }
}

/** The socket is there a moment before it listens. */
async function connected(socket: string, process: ChildProcess): Promise<Qmp> {
  for (;;)
    try {
      return await Qmp.connect(socket)
    } catch (error) {
      if (process.exitCode !== null || !['ENOENT', 'ECONNREFUSED'].includes(errorCode(error) ?? ''))
        throw error
      await delay(10)
    }
}
