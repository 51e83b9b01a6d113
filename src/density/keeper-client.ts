/** The agent's end: finds the keeper of its host, or starts one, and asks. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { type ErrorCode, errorTable, SubpageError } from '../errors.ts'
import { packageRoot } from '../memory/native.ts'
import type { KeeperArguments } from './keeper-main.ts'
import type { KeeperAnswer, KeeperCall, KeeperCalls } from './keeper-protocol.ts'

export interface KeeperPlace extends KeeperArguments {
  log: string
}

const startMsMax = 10_000
const pollMs = 5

export class KeeperClient {
  /** Settles when the keeper has gone, or was let go of. */
  readonly closed: Promise<void>
  readonly #socket: Socket
  readonly #waiting = new Map<number, { resolve(gives: unknown): void; reject(error: Error): void }>()
  #number = 0

  private constructor(socket: Socket) {
    this.#socket = socket
    // Followed by its end.
    socket.on('error', () => undefined)
    this.closed = new Promise<void>((resolve) => socket.once('close', resolve)).then(() => this.#gone())
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
    while (failed === undefined && !ended && performance.now() < deadline) {
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

  /** @throws SubpageError what the keeper answered with, KEEPER_FAILED when it has gone */
  async ask<Call extends KeeperCall>(
    call: Call,
    takes: KeeperCalls[Call]['takes'],
  ): Promise<KeeperCalls[Call]['gives']> {
    const number = ++this.#number
    if (this.#socket.destroyed) throw gone()
    const answer = new Promise<unknown>((resolve, reject) => this.#waiting.set(number, { resolve, reject }))
    this.#socket.write(`${JSON.stringify({ number, call, takes })}\n`)
    return (await answer) as KeeperCalls[Call]['gives']
  }

  close(): void {
    this.#socket.destroy()
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

  #gone(): void {
    for (const { reject } of this.#waiting.values()) reject(gone())
    this.#waiting.clear()
  }
}

const gone = () => new SubpageError('KEEPER_FAILED', 'the keeper of dense memory has ended')
