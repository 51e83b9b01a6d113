/**
 * Tells somebody of each event: a program that is run (`--on-event`), or a web server that is asked (`--webhook`). Both are bounded in
 * time and number, and neither can hold up the agent. What happened before this agent began is not told again.
 *
 * A request is signed as Standard Webhooks has it (standardwebhooks.com): `webhook-signature: v1,` and in base64 the HMAC-SHA256, by
 * the secret, of `webhook-id.webhook-timestamp.body`.
 */
import { spawn } from 'node:child_process'
import { createHmac, randomUUID } from 'node:crypto'
import { accessSync, constants } from 'node:fs'
import { isAbsolute } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { setting } from '../environment.ts'
import { SubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import { readToken } from './api-token.ts'
import type { EventLog, HostEvent } from './event-log.ts'
import { isLoopback } from './loopback.ts'

export interface NotifyOptions {
  /** A program; it is given the kind, the guest and the text of the event, and all of it in JSON on standard input. */
  program?: string
  webhook?: { url: string; secretFile: string }
}

/** What is sent: the event, and of which host. */
export type Notification = HostEvent & { host: string }

/** Resolves when it has arrived. @throws Error why it has not */
type Channel = (notification: Notification) => Promise<void>

const programMs = 30_000
const requestMs = 10_000
/** Before the next try of a request. */
const againMs = [1_000, 5_000]
/** Trouble is told at most so often, for each channel. */
const troubleMs = 60_000

/** @throws SubpageError BAD_ARGUMENT, SECRET_EXPOSED, TLS_REQUIRED */
export function openChannels({ program, webhook }: NotifyOptions): Channel[] {
  return [
    ...(program === undefined ? [] : [programChannel(program)]),
    ...(webhook ? [webhookChannel(webhook)] : []),
  ]
}

/** @param since events that are older were told by another agent */
export function notify(log: EventLog, host: string, channels: readonly Channel[], since: string): void {
  for (const channel of channels) {
    const queue = new Queue(channel, (text) => log.add('', 'guest', text))
    log.follow((event) => {
      if (event.time >= since) queue.add({ host, ...event })
    })
  }
}

class Queue {
  readonly #channel: Channel
  readonly #say: (text: string) => void
  readonly #waiting: Notification[] = []
  #running = 0
  #lost = 0
  #saying = false
  #saidAt = Number.NEGATIVE_INFINITY

  constructor(channel: Channel, say: (text: string) => void) {
    this.#channel = channel
    this.#say = say
  }

  add(notification: Notification): void {
    // Of our own trouble nothing can be told this way.
    if (this.#saying) return
    this.#waiting.push(notification)
    if (this.#waiting.length > limits.notificationsWaiting.value) {
      this.#waiting.shift()
      this.#lost++
    }
    void this.#run()
  }

  async #run(): Promise<void> {
    if (this.#running >= limits.notificationsAtOnce.value) return
    const next = this.#waiting.shift()
    if (!next) return
    this.#running++
    try {
      await this.#channel(next)
      if (this.#lost > 0) this.#complain(`too many events at once: ${this.#lost} were not told`)
    } catch (error) {
      this.#complain(`an event was not told: ${error instanceof Error ? error.message : error}`)
    } finally {
      this.#running--
    }
    void this.#run()
  }

  #complain(text: string): void {
    const now = performance.now()
    if (now - this.#saidAt < troubleMs) return
    this.#saidAt = now
    this.#lost = 0
    this.#saying = true
    try {
      this.#say(`notifications: ${text}`)
    } finally {
      this.#saying = false
    }
  }
}

/** @throws SubpageError BAD_ARGUMENT */
function programChannel(path: string): Channel {
  if (!isAbsolute(path))
    throw new SubpageError('BAD_ARGUMENT', `--on-event ${path}: give the whole path of a program`)
  try {
    accessSync(path, constants.X_OK)
  } catch (cause) {
    throw new SubpageError(
      'BAD_ARGUMENT',
      `--on-event ${path}: it cannot be run (${(cause as Error).message})`,
      {
        cause,
      },
    )
  }
  // Not what this agent was given: there are passwords among it.
  const env = {
    PATH: setting('PATH') ?? '/usr/sbin:/usr/bin:/sbin:/bin',
    LANG: 'C.UTF-8',
    HOME: setting('HOME') ?? '/',
  }
  return (notification) => runProgram(path, notification, env)
}

function runProgram(path: string, notification: Notification, env: Record<string, string>): Promise<void> {
  const { kind, guest, text } = notification
  return new Promise((resolve, reject) => {
    // A group of its own: what it has started ends with it.
    const child = spawn(path, [kind, guest, text], {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
      cwd: '/',
      env,
    })
    let late = false
    const timer = setTimeout(() => {
      late = true
      if (child.pid !== undefined) endGroup(child.pid)
    }, programMs)
    child.once('error', (error) => {
      clearTimeout(timer)
      reject(error)
    })
    child.once('exit', (status, signal) => {
      clearTimeout(timer)
      if (status === 0) resolve()
      else
        reject(
          new Error(
            `${path} ${late ? `took longer than ${programMs / 1000} s` : `ended with ${signal ?? `status ${status}`}`}`,
          ),
        )
    })
    // One that does not read it needs none of it.
    child.stdin.on('error', () => undefined)
    child.stdin.end(`${JSON.stringify(notification)}\n`)
  })
}

function endGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // It has just ended.
  }
}

/** @throws SubpageError BAD_ARGUMENT, SECRET_EXPOSED, TLS_REQUIRED */
function webhookChannel({ url, secretFile }: NonNullable<NotifyOptions['webhook']>): Channel {
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
    throw new SubpageError('BAD_ARGUMENT', '--webhook: write https://HOST/PATH')
  const { protocol, hostname } = new URL(url)
  if (protocol === 'http:' && hostname !== 'localhost' && !isLoopback(hostname.replace(/[[\]]/g, '')))
    throw new SubpageError(
      'TLS_REQUIRED',
      '--webhook would send events in clear text over the network: use https',
    )
  const secret = readToken(secretFile, 'the secret of the webhook')
  const key = secret.startsWith('whsec_') ? Buffer.from(secret.slice(6), 'base64') : Buffer.from(secret)
  return (notification) => post(url, key, notification)
}

async function post(url: string, key: Buffer, notification: Notification): Promise<void> {
  const id = randomUUID()
  const body = JSON.stringify(notification)
  for (let tries = 0; ; tries++) {
    const trouble = await tryPost(url, key, id, body)
    if (trouble === undefined) return
    const wait = trouble.forGood ? undefined : againMs[tries]
    if (wait === undefined) throw new Error(`the webhook ${new URL(url).host}: ${trouble.why}`)
    await delay(wait, undefined, { ref: false })
  }
}

async function tryPost(url: string, key: Buffer, id: string, body: string) {
  // The wall clock: whoever checks the signature refuses what is old.
  const timestamp = String(Math.floor(Date.now() / 1000))
  const signature = createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')
  try {
    const { status } = await fetch(url, {
      method: 'POST',
      redirect: 'error',
      signal: AbortSignal.timeout(requestMs),
      headers: {
        'content-type': 'application/json',
        'webhook-id': id,
        'webhook-timestamp': timestamp,
        'webhook-signature': `v1,${signature}`,
      },
      body,
    })
    if (status < 300) return undefined
    return { why: `it answered with status ${status}`, forGood: status < 500 && status !== 429 }
  } catch (error) {
    const { cause, message } = error as Error
    return { why: cause instanceof Error ? cause.message : message, forGood: false }
  }
}
