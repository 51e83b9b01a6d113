/**
 * The agent's end: finds the keeper of its host, or starts one, and asks. A keeper that gives no answer, or does not end a pause
 * in time, is ended: guests wait for it, and what it stores is whole at every moment, so that the next one goes on.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { type ErrorCode, errorTable, SubpageError } from '../errors.ts'
import { addon, packageRoot } from '../memory/native.ts'
import { identify, killProcess, type ProcessIdentity } from '../qemu/process.ts'
import { descriptorOf } from '../socket-handle.ts'
import type { KeeperArguments } from './keeper-main.ts'
import { callsSince, type KeeperAnswer, type KeeperCall, type KeeperCalls } from './keeper-protocol.ts'

export interface KeeperPlace extends KeeperArguments {
  log: string
}

const startMsMax = 10_000
const pollMs = 5

export const keeperTimes = {
  pingMs: 2_000,
  /** It leaves a question that costs nothing without an answer for this long, or keeps a guest paused. */
  hungMs: 5_000,
  tickMs: 500,
} as const

interface Waiting {
  call: KeeperCall
  /** The guest stands still until it is answered. */
  pauses: boolean
  awakeMs: number
  resolve(gives: unknown): void
  reject(error: Error): void
}

export class KeeperClient {
  /** Settles when the keeper has gone, or was let go of. */
  readonly closed: Promise<void>
  /** Undefined when it cannot be seen from here. */
  readonly process: ProcessIdentity | undefined
  readonly #socket: Socket
  readonly #waiting = new Map<number, Waiting>()
  readonly #ticking: NodeJS.Timeout
  #number = 0
  /** Of the keeper's protocol, once it was asked for. */
  #version: Promise<number> | undefined
  #tickedAt = performance.now()
  #pingedAt = performance.now()
  /** Why it was ended. */
  #hung: string | undefined

  private constructor(socket: Socket) {
    this.#socket = socket
    this.process = identify(addon.peerPid(descriptorOf(socket)))
    this.#ticking = setInterval(() => this.#tick(), keeperTimes.tickMs).unref()
    // Followed by its end.
    socket.on('error', () => undefined)
    this.closed = new Promise<void>((resolve) => socket.once('close', resolve)).then(() => this.#ended())
    createInterface({ input: socket })
      .on('line', (line) => this.#answered(JSON.parse(line)))
      // It passes on what the socket says.
      .on('error', () => undefined)
  }

  /** Undefined when none runs. */
  static async find({ socket: path }: KeeperPlace): Promise<KeeperClient | undefined> {
    const socket = createConnection(path)
    try {
      await once(socket, 'connect')
    } catch {
      // No socket, or nobody behind it.
      return undefined
    }
    return new KeeperClient(socket)
  }

  /** @throws SubpageError KEEPER_FAILED with what it said */
  static async start(place: KeeperPlace): Promise<KeeperClient> {
    const log = openSync(place.log, 'w', 0o600)
    const { socket, keeper } = place
    const child = spawn(
      process.execPath,
      [join(packageRoot, 'dist/src/density/keeper-main.js'), JSON.stringify({ socket, keeper })],
      { detached: true, stdio: ['ignore', 'ignore', log], cwd: '/' },
    )
    closeSync(log)
    child.unref()
    let failed: string | undefined
    let ended = false
    child.on('error', ({ message }) => {
      failed = message
    })
    child.on('exit', () => {
      ended = true
    })
    const deadline = performance.now() + startMsMax
    for (let last = false; failed === undefined && !last && performance.now() < deadline; ) {
      // Another supervisor may have started one at the same time, which ours makes way for.
      last = ended
      const found = await KeeperClient.find(place)
      if (found) return found
      await delay(pollMs)
    }
    if (ended) failed ??= readFileSync(place.log, 'utf8').trim().split('\n').slice(-8).join('; ')
    throw new SubpageError(
      'KEEPER_FAILED',
      `the keeper of dense memory did not start: ${failed ?? 'no answer'}`,
    )
  }

  /** @throws SubpageError what the keeper answered with, KEEPER_FAILED when it has gone, or is too old for this */
  async ask<Call extends KeeperCall>(
    call: Call,
    takes: KeeperCalls[Call]['takes'],
  ): Promise<KeeperCalls[Call]['gives']> {
    const since = callsSince[call]
    if (since !== undefined) await this.#assertVersion(since, call)
    const number = ++this.#number
    if (this.#socket.destroyed) throw this.#gone()
    const pauses = call === 'evict' && (takes as KeeperCalls['evict']['takes']).held !== null
    const answer = new Promise<unknown>((resolve, reject) =>
      this.#waiting.set(number, { call, pauses, awakeMs: 0, resolve, reject }),
    )
    this.#socket.write(`${JSON.stringify({ number, call, takes })}\n`)
    return (await answer) as KeeperCalls[Call]['gives']
  }

  async #assertVersion(since: number, call: KeeperCall): Promise<void> {
    this.#version ??= this.ask('status', {}).then(({ version }) => version)
    const version = await this.#version
    if (version < since)
      throw new SubpageError(
        'KEEPER_FAILED',
        `the keeper of dense memory (process ${this.process?.pid ?? 'unknown'}) is of an older release (version ${version}; '${call}' needs ${since}): end it with SIGTERM, and a keeper of this release takes up what it holds`,
      )
  }

  close(): void {
    this.#socket.destroy()
  }

  /** Ends the keeper. Its locks go with it: the guard inside QEMU lets a guest run on that it held. */
  end(why: string): void {
    this.#hung ??= why
    if (this.process) killProcess(this.process)
    this.#socket.destroy()
  }

  /** Only time in which we were awake ourselves counts: else its answer may be there, unread. */
  #tick(): void {
    const now = performance.now()
    const awakeMs = Math.min(now - this.#tickedAt, 2 * keeperTimes.tickMs)
    this.#tickedAt = now
    for (const waiting of this.#waiting.values()) {
      waiting.awakeMs += awakeMs
      if (waiting.awakeMs < keeperTimes.hungMs) continue
      const seconds = keeperTimes.hungMs / 1000
      if (waiting.pauses) this.end(`it kept a guest paused for ${seconds} s`)
      else if (waiting.call === 'ping') this.end(`it gave no answer for ${seconds} s`)
    }
    if (this.#hung !== undefined || now - this.#pingedAt < keeperTimes.pingMs) return
    this.#pingedAt = now
    // Whatever it answers, it answers; and its end is noticed elsewhere.
    this.ask('ping', {}).catch(() => undefined)
  }

  #answered(answer: KeeperAnswer): void {
    const waiting = this.#waiting.get(answer.number)
    this.#waiting.delete(answer.number)
    if ('gives' in answer) waiting?.resolve(answer.gives)
    else {
      const { code, message } = answer.error
      waiting?.reject(
        new SubpageError(Object.hasOwn(errorTable, code) ? (code as ErrorCode) : 'INTERNAL', message),
      )
    }
  }

  #ended(): void {
    clearInterval(this.#ticking)
    for (const { reject } of this.#waiting.values()) reject(this.#gone())
    this.#waiting.clear()
  }

  #gone(): SubpageError {
    const why = this.#hung === undefined ? 'has ended' : `hung and was ended: ${this.#hung}`
    return new SubpageError('KEEPER_FAILED', `the keeper of dense memory ${why}`)
  }

  /** Why it was ended by this agent; undefined when it ended otherwise. */
  get hung(): string | undefined {
    return this.#hung
  }
}
