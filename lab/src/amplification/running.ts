/**
 * One workload, running: its folder with inputs, the program, what drives it. The program is a child of the holder that
 * watches it. All of it works in the folder, so that the reaper ends it whatever happens to us.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { asSubpageError, SubpageError } from 'subpage/errors'
import { identify, isRunning } from 'subpage/qemu/process'
import { Reaper } from '../reaper.ts'
import { openProcess, type ProcessTarget } from '../record/process/process-target.ts'
import { writeInput } from './inputs.ts'
import type { Workload } from './workload.ts'

/** From its start until it is ready. Some of the parts of a suite come late. */
const readyMsMax = 180_000
const setupMsMax = 180_000

export class RunningWorkload {
  readonly #workload: Workload
  readonly #folder: string
  readonly #reaper: Reaper
  readonly #signal: AbortSignal
  #program: ProcessTarget | undefined
  #target: ProcessTarget | undefined

  constructor(workload: Workload, signal: AbortSignal) {
    this.#workload = workload
    this.#signal = signal
    this.#folder = mkdtempSync(join(tmpdir(), 'subpage-workload-'))
    this.#reaper = new Reaper(this.#folder)
  }

  /** @throws SubpageError WORKLOAD_FAILED with the last words of what failed */
  async start(): Promise<ProcessTarget> {
    const { inputs = {}, files = {}, setup = [], warmMs = 0 } = this.#workload
    for (const [file, { make, size }] of Object.entries(inputs))
      writeInput(join(this.#folder, file), make, size)
    for (const [file, text] of Object.entries(files)) writeFileSync(join(this.#folder, file), text)
    for (const command of setup) await this.#succeed(command)
    this.#program = await this.#launch()
    await this.#run(this.#program)
    await this.#ready()
    this.#target = this.#workload.pid === undefined ? this.#program : await this.#child()
    if (this.#workload.drive !== undefined) this.#shell(this.#workload.drive)
    if (warmMs > 0) await delay(warmMs, undefined, { signal: this.#signal })
    return this.#target
  }

  /** Whether the part of interest is over. */
  async over(): Promise<boolean> {
    return this.#workload.until !== undefined && (await this.#status(this.#workload.until)) === 0
  }

  async end(): Promise<void> {
    for (const target of new Set([this.#target, this.#program])) await target?.close()
    await this.#reaper.end()
  }

  get #options() {
    const { environment } = this.#workload
    const env = {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin:/usr/games',
      HOME: this.#folder,
      LC_ALL: 'C',
      ...environment,
    }
    return { cwd: this.#folder, env }
  }

  async #launch(): Promise<ProcessTarget> {
    const { stdin = '/dev/null', run } = this.#workload
    const input = openSync(join(stdin.startsWith('/') ? '/' : this.#folder, stdin), 'r')
    const log = openSync(join(this.#folder, 'output.log'), 'w')
    try {
      return await openProcess(
        // The leader of a session, and so of a group: its children end with it.
        { command: ['/usr/bin/setsid', ...run], ...this.#options, stdio: [input, log, log] },
        'userfault',
      )
    } finally {
      closeSync(input)
      closeSync(log)
    }
  }

  /** A command stands at its first instruction until it is held again. */
  async #run(target: ProcessTarget): Promise<void> {
    while (!(await target.hold(() => true))) await delay(1)
  }

  async #ready(): Promise<void> {
    const { ready } = this.#workload
    const program = identify(this.#program!.pid)
    const deadline = performance.now() + readyMsMax
    while (ready !== undefined && (await this.#status(ready)) !== 0) {
      if (performance.now() > deadline) throw this.#failed(`is not ready after ${readyMsMax / 1000} s`)
      // It is not held to find out: that copies all that it has written meanwhile, and slows it down.
      if (!program || !isRunning(program)) throw this.#failed('ended before it could be recorded')
      await delay(50, undefined, { signal: this.#signal })
    }
  }

  async #child(): Promise<ProcessTarget> {
    const shell = this.#shell(this.#workload.pid!, 'pipe')
    let printed = ''
    shell.stdout!.on('data', (text) => {
      printed += text
    })
    await once(shell, 'close')
    const pid = Number.parseInt(printed, 10)
    if (!(pid > 0)) throw this.#failed('has no such child')
    try {
      return await openProcess({ pid }, 'userfault')
    } catch (cause) {
      throw this.#failed(`has a child that cannot be recorded: ${asSubpageError(cause).message}`, cause)
    }
  }

  async #succeed(command: string): Promise<void> {
    if ((await this.#status(command)) !== 0) throw this.#failed(`cannot be set up: ${command}`)
  }

  async #status(command: string): Promise<number | null> {
    this.#signal.throwIfAborted()
    const shell = this.#shell(command)
    const over = AbortSignal.any([this.#signal, AbortSignal.timeout(setupMsMax)])
    const end = () => endGroup(shell)
    over.addEventListener('abort', end)
    const [status] = await once(shell, 'exit')
    over.removeEventListener('abort', end)
    this.#signal.throwIfAborted()
    return status as number | null
  }

  #shell(command: string, stdout: 'pipe' | undefined = undefined): ChildProcess {
    const log = openSync(join(this.#folder, 'shell.log'), 'a')
    const { cwd, env } = this.#options
    const shell = spawn('/bin/sh', ['-c', command], {
      cwd,
      env: { ...env, ...(this.#program && { PROGRAM: String(this.#program.pid) }) },
      stdio: ['ignore', stdout ?? log, log],
      detached: true,
    })
    closeSync(log)
    return shell
  }

  #failed(what: string, cause?: unknown): SubpageError {
    const words = ['shell.log', 'output.log']
      .map((file) => lastLine(join(this.#folder, file)))
      .filter(Boolean)
    return new SubpageError('WORKLOAD_FAILED', [`${this.#workload.name} ${what}`, ...words].join(' · '), {
      cause,
    })
  }
}

function lastLine(path: string): string {
  try {
    return readFileSync(path, 'utf8').trimEnd().split('\n').at(-1)!.slice(0, 200)
  } catch {
    // It has said nothing.
    return ''
  }
}

/** A shell is the leader of its own group. */
function endGroup({ pid, exitCode, signalCode }: ChildProcess): void {
  if (pid !== undefined && exitCode === null && signalCode === null) process.kill(-pid, 'SIGKILL')
}
