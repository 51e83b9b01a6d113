/**
 * A guest of this host as its agent sees it: the supervisor that works for it, a process of its own, which is found again or
 * started, and started anew when it ends before its guest does. What happens to it is that guest's alone.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { asSubpageError, SubpageError } from '../errors.ts'
import { packageRoot } from '../memory/native.ts'
import type { GuestFiles } from '../qemu/guest-files.ts'
import { removeSupervisorFiles } from '../qemu/guest-files.ts'
import type { GuestRecord } from '../qemu/guest-record.ts'
import { readRecord } from '../qemu/guest-record.ts'
import { identify, isGone, isRunning, killProcess, type ProcessIdentity, untilGone } from '../qemu/process.ts'
import { wantOfRoom } from '../qemu/room.ts'
import { AgentClient } from './client.ts'
import type { HostEvent } from './event-log.ts'
import { type OpenLifeline, openLifeline } from './lifeline.ts'
import { withoutLog } from './log.ts'
import type { HostStatus } from './status.ts'
import type { Lifeline } from './supervisor/main.ts'
import {
  readSettings,
  type SupervisorSettings,
  sameSettings,
  supervisorOf,
  supervisorProtocol,
  writeSettings,
} from './supervisor/settings.ts'

/**
 * There is one for each guest, which does little in JavaScript: V8's default sizes would take some 30 MiB more of each, for young objects, for
 * room to grow, and for what each of four threads keeps that compile and collect beside it (docs/operations.md).
 */
const nodeOptions = ['--max-semi-space-size=1', '--optimize-for-size', '--v8-pool-size=1']
const startMsMax = 30_000
const pollMs = 10
/** It gives no answer for this long, though it runs: it is in a loop, and is ended. */
const hungMs = 30_000
const lookMs = 2_000
/** One that listens no more has gone by then. */
const endingMs = 2_000
/** How long a status may take, before the guest counts as one whose supervisor hangs. */
const statusMs = 2_000
/** One that ends so often within a minute is not started again by itself. */
const restartsMax = 5
const restartsMs = 60_000

export interface SupervisedOptions {
  name: string
  files: GuestFiles
  settings: () => SupervisorSettings
  /** One has been started with them. */
  started: () => void
  event: (event: HostEvent) => unknown
  say: (text: string) => void
  /** What it answers while it is looked after. */
  seen: (status: HostStatus) => void
  /** The guest is on this host no more. */
  left: (reason: string) => void
}

export class SupervisedGuest {
  readonly name: string
  readonly files: GuestFiles
  readonly client: AgentClient
  readonly #options: SupervisedOptions
  #ready: Promise<void> | undefined
  #lifeline: OpenLifeline | undefined
  /** Settles when it is known how the latest supervisor has ended. */
  #ended: Promise<void> = Promise.resolve()
  readonly #events = new AbortController()
  #process: ProcessIdentity | undefined
  #latest: { answer: HostStatus; at: number } | undefined
  /** Why there is none, and none is started by itself. */
  #failure: string | undefined
  #restarts: number[] = []
  #closed = false
  #gone = false
  /** Its supervisor ends because we have told it to, and another one is started. */
  #replacing = false

  constructor(options: SupervisedOptions) {
    this.#options = options
    this.name = options.name
    this.files = options.files
    this.client = new AgentClient(options.files.supervisor.socket)
  }

  /** It has left this host: another guest of its name is another one. */
  get gone(): boolean {
    return this.#gone
  }

  /** There is a supervisor, which may hang. */
  get alive(): boolean {
    return this.#lifeline !== undefined
  }

  /** Undefined while there is none, or it cannot be seen from here. */
  get process(): ProcessIdentity | undefined {
    return this.#process
  }

  get failure(): string | undefined {
    return this.#failure
  }

  /** Finds its supervisor, or starts one. @throws SubpageError SUPERVISOR_FAILED */
  ready(): Promise<void> {
    this.#ready ??= this.#begin().catch((error) => {
      this.#ready = undefined
      throw error
    })
    return this.#ready
  }

  /** Asks it, as soon as there is one. @throws SubpageError what it answers with, SUPERVISOR_FAILED */
  async ask<T>(question: (client: AgentClient) => Promise<T>): Promise<T> {
    await this.ready()
    const process = this.#process
    try {
      return await question(this.client)
    } catch (error) {
      if (!(error instanceof SubpageError) || error.code !== 'AGENT_UNREACHABLE') throw error
      // It may have been about to end when it was asked.
      if (process) await untilGone(process, endingMs)
      if (process && !isGone(process)) throw this.#failed(error)
      await this.#ended
      if (this.#gone) throw new SubpageError('GUEST_UNKNOWN', `${this.name} has just left this host`)
      await this.ready()
      return await question(this.client).catch((again) => {
        throw again.code === 'AGENT_UNREACHABLE' ? this.#failed(again) : again
      })
    }
  }

  /** Undefined when it gives no answer. */
  async status(): Promise<HostStatus | undefined> {
    if (!this.alive) return undefined
    const answer = await Promise.race([
      // As one that gives no answer.
      this.client.status().catch(() => undefined),
      delay(statusMs, undefined, { ref: false }),
    ])
    if (answer) this.#latest = { answer, at: performance.now() }
    return answer
  }

  /** Undefined when it has none that can be read. */
  get record(): GuestRecord | undefined {
    try {
      return readRecord(this.files)
    } catch {
      // Damaged, or of another release: its supervisor says so.
      return undefined
    }
  }

  /** The agent ends; the supervisor goes on. */
  close(): void {
    this.#closed = true
    this.#lifeline?.destroy()
    this.#events.abort()
  }

  /** Resolves when its supervisor has ended, which it does by itself when there is no guest. */
  async ended(limitMs: number): Promise<void> {
    if (this.#process) await untilGone(this.#process, limitMs)
  }

  /** It gives no answer; the next one finds the guest. */
  async endProcess(): Promise<void> {
    const process = this.#process
    if (!process) return
    killProcess(process)
    await untilGone(process)
  }

  async #begin(): Promise<void> {
    this.#failure = undefined
    if ((await this.#connect()) && (await this.#isOfUse())) return
    const { files } = this
    try {
      mkdirSync(files.directory, { recursive: true, mode: 0o700 })
      writeSettings(files.supervisor, this.#options.settings())
    } catch (error) {
      if (!this.record) removeSupervisorFiles(files)
      throw wantOfRoom(`the files of ${this.name} in ${files.directory}`, error)
    }
    const child = start(files)
    this.#options.started()
    const deadline = performance.now() + startMsMax
    for (let last = false; !last && performance.now() < deadline; ) {
      const ended = child.exitCode !== null || child.signalCode !== null
      // One that a former agent has started just before it was killed is still beginning.
      const other = supervisorOf(files)
      last = ended && !(other && other.pid !== child.pid && isRunning(other))
      if (await this.#connect()) return
      await delay(pollMs)
    }
    throw this.#failed(new Error(this.#lastWords() || 'it gave no answer'))
  }

  /**
   * One that a former agent has started may have other settings than this agent gives. Where nothing is lost by it, it ends; a
   * standby would lose its image.
   */
  async #isOfUse(): Promise<boolean> {
    const { files, record } = this
    const process = this.#process
    if (!process || sameSettings(readSettings(files.supervisor.settings), this.#options.settings()))
      return true
    if (!record || record.waiting) {
      this.#options.say(
        `its supervisor (process ${process.pid}) keeps the settings of the agent that started it; end it with SIGTERM, and the next one has those of this agent`,
      )
      return true
    }
    this.#options.say('its supervisor makes way for one with the settings of this agent')
    this.#replacing = true
    globalThis.process.kill(process.pid, 'SIGTERM')
    await untilGone(process)
    this.#process = undefined
    this.#lifeline = undefined
    return false
  }

  /** @returns whether there is one. @throws SubpageError SUPERVISOR_FAILED when it is of another release */
  async #connect(): Promise<boolean> {
    const life = await openLifeline(this.files.supervisor.socket)
    if (!life) return false
    const { value } = await life.messages.next()
    if (!value || !('pid' in value)) return false
    if (value.protocol !== supervisorProtocol)
      throw new SubpageError(
        'SUPERVISOR_FAILED',
        `the supervisor of ${this.name} (process ${value.pid}, release ${value.release}) speaks protocol ${value.protocol}, this agent ${supervisorProtocol}: end it with SIGTERM, and the agent starts one of its own release`,
      )
    this.#process = identify(life.pid)
    this.#lifeline = life
    const failed = (error: unknown) => this.#options.say(asSubpageError(error).message)
    this.#ended = this.#live(life.messages).catch(failed)
    void this.#passEvents()
    this.#look(this.#process).catch(failed)
    return true
  }

  async #live(messages: AsyncGenerator<Lifeline>): Promise<void> {
    let left: string | undefined
    for await (const message of messages) if ('left' in message) left = message.left
    if (this.#closed) return
    if (this.#replacing) {
      this.#replacing = false
      return
    }
    const process = this.#process
    if (process) await untilGone(process)
    this.#process = undefined
    this.#lifeline = undefined
    this.#ready = undefined
    if (left !== undefined || !existsSync(this.files.directory)) {
      this.#gone = true
      this.#options.left(left ?? 'it ended')
      return
    }
    await this.#restart()
  }

  /** It ended before its guest did. */
  async #restart(): Promise<void> {
    const now = performance.now()
    const why = this.#lastWords()
    this.#restarts = [...this.#restarts.filter((at) => at > now - restartsMs), now]
    this.#options.say(`its supervisor ended${why ? ` (${why})` : ''}`)
    if (this.#restarts.length > restartsMax) {
      this.#failure = `its supervisor ended ${this.#restarts.length} times within ${restartsMs / 1000} s${why ? `: ${why}` : ''}; the next command starts it again`
      this.#options.say(this.#failure)
      return
    }
    await this.ready().then(
      () => this.#options.say('has a new supervisor'),
      (error) => {
        this.#failure = asSubpageError(error).message
        this.#options.say(this.#failure)
      },
    )
  }

  async #passEvents(): Promise<void> {
    try {
      for await (const event of this.client.events(this.#events.signal)) this.#options.event(event)
    } catch {
      // Its end is noticed by its lifeline.
    }
  }

  /** One that hangs is ended; the next one finds the guest. */
  async #look(process: ProcessIdentity | undefined): Promise<void> {
    let silentMs = 0
    while (!this.#closed && process && this.#process === process && !isGone(process)) {
      await delay(lookMs, undefined, { ref: false })
      // Whoever looks at the dashboard has asked meanwhile.
      const latest = this.#latest
      const isNew = latest && performance.now() - latest.at < lookMs
      const answer = isNew ? latest.answer : await this.status()
      if (answer) this.#options.seen(answer)
      silentMs = answer ? 0 : silentMs + lookMs
      if (silentMs < hungMs) continue
      this.#options.say(`its supervisor gave no answer for ${hungMs / 1000} s and is ended`)
      killProcess(process)
      return
    }
  }

  #lastWords(): string {
    try {
      const text = withoutLog(readFileSync(this.files.supervisor.log, 'utf8')).trim()
      return text.split('\n').slice(-6).join('; ').slice(0, 512)
    } catch {
      // It has left nothing, or its guest's directory is gone.
      return ''
    }
  }

  #failed(cause: unknown): SubpageError {
    const why = cause instanceof Error ? cause.message : String(cause)
    return new SubpageError('SUPERVISOR_FAILED', `the supervisor of ${this.name} did not answer: ${why}`, {
      cause,
    })
  }
}

function start({ supervisor }: GuestFiles): ChildProcess {
  const log = openSync(supervisor.log, 'a', 0o600)
  try {
    const { SUBPAGE_FAULT: _, ...env } = process.env
    const child = spawn(
      process.execPath,
      [...nodeOptions, join(packageRoot, 'dist/src/agent/supervisor/main.js'), supervisor.settings],
      { detached: true, stdio: ['ignore', log, log], cwd: process.cwd(), env },
    )
    child.on('error', () => undefined)
    child.unref()
    return child
  } finally {
    closeSync(log)
  }
}
