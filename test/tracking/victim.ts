/** Starts victim.c with or without the shim, and talks to it: one command, one answer. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { makeOwnedDirectory } from '../../src/agent/owned-directory.ts'
import type { AccessTarget } from '../../src/tracking/accesses.ts'
import { ForgetChannel } from '../../src/tracking/forget.ts'
import { shimEnvironment } from '../../src/tracking/shim.ts'

export interface VictimOptions {
  pages: number
  layout?: 'whole' | 'halves' | 'twice' | 'huge' | 'blocks' | 'backends'
  shim?: boolean
  /** RAM in a memfd, reached through /proc/PID/fd, in place of a file in /dev/shm. */
  memfd?: boolean
  environment?: Record<string, string>
}

export interface Victim {
  readonly pid: number
  readonly target: AccessTarget
  readonly statusPath: string
  run(command: string): Promise<string>
  /** Ends the process and waits for it. */
  kill(): Promise<void>
}

/** Everything that the tests of one file have started; ended by `clear`. */
export class Victims {
  readonly #directory = mkdtempSync(join(tmpdir(), 'subpage-victim-'))
  readonly #memory = makeOwnedDirectory('subpage-test-', '/dev/shm')
  readonly #files: string[] = []
  readonly #children: ChildProcess[] = []

  constructor() {
    const source = join(import.meta.dirname, 'victim.c')
    execFileSync('cc', ['-O1', '-g', '-Wall', '-o', this.#program, source, '-lpthread'])
  }

  get #program(): string {
    return join(this.#directory, 'victim')
  }

  async start({ pages, layout = 'whole', shim = true, memfd = false, environment }: VictimOptions) {
    const id = randomBytes(4).toString('hex')
    const statusPath = join(this.#directory, `${id}.status`)
    const forget = join(this.#directory, `${id}.forget`)
    ForgetChannel.create(forget)
    const file = join(this.#memory, `${id}.ram`)
    if (!memfd) {
      this.#files.push(file)
      writeFileSync(file, '', { mode: 0o600 })
      truncateSync(file, pages * 4096)
    }
    const ram = memfd ? '/proc/self/fd/100' : file
    const child = spawn(this.#program, [memfd ? `memfd:${pages}` : file, layout], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: {
        PATH: process.env.PATH ?? '',
        // For scripts/test-addon.sh, whose preloaded libraries it inherits behind the shim.
        ASAN_OPTIONS: process.env.ASAN_OPTIONS ?? '',
        ...(shim ? shimEnvironment({ ram, status: statusPath, forget }) : {}),
        ...environment,
      },
    })
    this.#children.push(child)
    const lines = createInterface({ input: child.stdout })
    const victim = talkTo(child, lines, {
      statusPath,
      target: {
        pid: child.pid ?? 0,
        ramPath: memfd ? `/proc/${child.pid}/fd/100` : file,
        ramPages: pages,
        shimStatusPath: statusPath,
        forgetPath: forget,
      },
    })
    await answered(lines)
    return victim
  }

  async clear(): Promise<void> {
    for (const child of this.#children.splice(0)) await end(child)
    for (const file of this.#files.splice(0)) rmSync(file, { force: true })
  }

  async close(): Promise<void> {
    await this.clear()
    for (const directory of [this.#directory, this.#memory])
      rmSync(directory, { recursive: true, force: true })
  }
}

function talkTo(child: ChildProcess, lines: Interface, rest: Pick<Victim, 'statusPath' | 'target'>): Victim {
  return {
    ...rest,
    pid: rest.target.pid,
    async run(command) {
      const answer = answered(lines)
      child.stdin?.write(`${command}\n`)
      const line = await answer
      if (!line.startsWith('ok')) throw new Error(`victim answered ${command} with ${line}`)
      return line.slice(3)
    },
    kill: () => end(child),
  }
}

/** @throws Error when the victim has ended */
async function answered(lines: Interface): Promise<string> {
  const over = new AbortController()
  const { signal } = over
  const line = once(lines, 'line', { signal }).then(([text]) => text as string)
  const closed = once(lines, 'close', { signal }).then(() => {
    throw new Error('the victim has ended')
  })
  return await Promise.race([line, closed]).finally(() => {
    over.abort()
    return Promise.allSettled([line, closed])
  })
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}
