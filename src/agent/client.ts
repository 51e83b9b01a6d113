/** Talks to an agent over its API socket; what the agent answers with an error becomes that SubpageError here. */

import { type IncomingMessage, type RequestOptions, request } from 'node:http'
import { request as secureRequest } from 'node:https'
import { addAbortSignal } from 'node:stream'
import { type ErrorCode, errorCode, errorTable, SubpageError } from '../errors.ts'
import type { DensitySettings } from '../qemu/guest-record.ts'
import type { ProtectBody } from '../replication/protection-settings.ts'
import type { StandbyOutcome } from '../replication/standby-options.ts'
import type { Sample } from '../workingset/sample.ts'
import type { DashboardBody, RunBody } from './api.ts'
import type { GuestDensity, HostDensityStatus } from './density-status.ts'
import type { HostEvent } from './event-log.ts'
import { eventsOf } from './event-reader.ts'
import type { MemoryMap, WorkingSets } from './memory-status.ts'
import type { Cancelled, GuestStatus, HostStatus, Screenshot, Unprotected, Verified } from './status.ts'
import type { WatchQuery } from './supervisor/memory-watch.ts'
import { handshakeFailure } from './tls-failure.ts'

/** The API over TCP. Without `ca` only the system's CAs are trusted. */
export interface ApiEndpoint {
  url: URL
  token: string
  ca?: Buffer
}

/** An agent says at once what it knows; one that does not is stopped or stuck. */
const answerMsMax = 10_000

export class AgentClient {
  readonly #at: string | ApiEndpoint

  /** @param at path of the API socket, or where the API listens on TCP */
  constructor(at: string | ApiEndpoint) {
    this.#at = at
  }

  status = () => this.#call<HostStatus>('GET', '/v1/status')
  guest = (name: string) => this.#call<GuestStatus>('GET', guestPath(name))
  run = (body: RunBody) => this.#call<GuestStatus>('POST', '/v1/guests', body)
  adopt = (name: string) => this.#call<GuestStatus>('POST', `${guestPath(name)}/adopt`)
  remove = (name: string, standbyToo = false) =>
    this.#call<{ removed: string; note?: string }>(
      'DELETE',
      `${guestPath(name)}${standbyToo ? '?standbyToo=true' : ''}`,
    )
  protect = (name: string, body: ProtectBody) =>
    this.#call<GuestStatus>('POST', `${guestPath(name)}/protect`, body)
  unprotect = (name: string, discard = false) =>
    this.#call<Unprotected>('POST', `${guestPath(name)}/unprotect${discard ? '?discard=true' : ''}`)
  failover = (name: string, force = false) =>
    this.#call<StandbyOutcome>('POST', `${guestPath(name)}/failover`, { force })
  switchover = (name: string) => this.#call<{ switchedOver: string }>('POST', `${guestPath(name)}/switchover`)
  verify = (name: string) => this.#call<Verified>('POST', `${guestPath(name)}/verify`)
  /** Ends what somebody waits for: a protection without a checkpoint yet, a comparison, a switchover that was not begun. */
  cancel = (name: string) => this.#call<Cancelled>('POST', `${guestPath(name)}/cancel`)
  screenshot = (name: string) => this.#call<Screenshot>('GET', `${guestPath(name)}/screenshot`)
  /** On the agent's socket alone: the address of its dashboard, for one use. */
  dashboard = (body: DashboardBody) => this.#call<{ url: string }>('POST', '/v1/dashboard', body)
  memoryMap = (name: string) => this.#call<MemoryMap>('GET', `${guestPath(name)}/memory-map`)
  workingSets = (name: string) => this.#call<WorkingSets>('GET', `${guestPath(name)}/working-set/history`)
  density = () => this.#call<HostDensityStatus>('GET', '/v1/density')
  densityOn = (name: string, body: DensitySettings) =>
    this.#call<GuestDensity>('PUT', `${guestPath(name)}/density`, body)
  densityOff = (name: string) => this.#call<{ whole: string }>('DELETE', `${guestPath(name)}/density`)

  /** What has happened, then each thing that does; ends with the agent, the caller's loop or the signal. */
  events = (signal?: AbortSignal) => this.#stream<HostEvent>('/v1/events/stream', signal)
  /** What has happened, without waiting for more. */
  recentEvents = () => this.#call<HostEvent[]>('GET', '/v1/events')

  /** What each interval of watching a guest's memory says, until the caller has enough or aborts. @throws SubpageError */
  async *watchMemory(name: string, settings: WatchQuery, signal?: AbortSignal): AsyncGenerator<Sample> {
    yield* await this.startWatch(name, settings, signal)
  }

  /** As watchMemory; what is refused is refused before anything is awaited of it. */
  async startWatch(
    name: string,
    settings: WatchQuery,
    signal?: AbortSignal,
  ): Promise<AsyncGenerator<Sample>> {
    const query = new URLSearchParams(
      Object.entries(settings).map(([key, value]): [string, string] => [key, String(value)]),
    )
    const response = await this.#openStream(`${guestPath(name)}/working-set?${query}`, signal)
    return this.#samples(response)
  }

  async *#samples(response: IncomingMessage): AsyncGenerator<Sample> {
    for await (const event of eventsOf<Sample | ApiError>(this.#read(response))) {
      if ('code' in event) throw failure(event)
      yield event
    }
  }

  async *#stream<T>(path: string, signal?: AbortSignal): AsyncGenerator<T> {
    yield* eventsOf<T>(this.#read(await this.#openStream(path, signal)))
  }

  async #openStream(path: string, signal?: AbortSignal): Promise<IncomingMessage> {
    const response = await this.#open('GET', path)
    if (signal) addAbortSignal(signal, response)
    if ((response.statusCode ?? 500) >= 400) throw failure(JSON.parse(await this.#text(response)))
    return response
  }

  async #call<T>(method: string, path: string, body?: unknown): Promise<T> {
    // Only what changes something may take its time.
    const response = await this.#open(method, path, body, method === 'GET' ? answerMsMax : 0)
    const value = JSON.parse(await this.#text(response))
    if ((response.statusCode ?? 500) < 400) return value as T
    throw failure(value)
  }

  async #text(response: IncomingMessage): Promise<string> {
    let text = ''
    for await (const chunk of this.#read(response)) text += String(chunk)
    return text
  }

  /** @throws SubpageError AGENT_UNREACHABLE when the agent ends in the middle of its answer */
  async *#read(response: IncomingMessage): AsyncGenerator<unknown> {
    try {
      yield* response
    } catch (cause) {
      throw this.#unreachable(cause)
    }
  }

  #unreachable(cause: unknown): SubpageError {
    const untrusted = typeof this.#at === 'string' ? undefined : handshakeFailure(cause)
    if (untrusted) return untrusted
    if (typeof this.#at === 'string' && ['EACCES', 'EPERM'].includes(errorCode(cause) ?? ''))
      return new SubpageError(
        'AUTH_REFUSED',
        `this user may not open ${this.#at}: run the command as the user of the agent, or name an agent of your own with --state`,
        { cause },
      )
    if (typeof this.#at === 'string' && errorCode(cause) === 'ENOTDIR')
      return new SubpageError(
        'BAD_ARGUMENT',
        `no agent can be reached by ${this.#at}: a part of this path is no directory`,
        { cause },
      )
    const why = cause instanceof Error ? cause.message : String(cause)
    return new SubpageError(
      'AGENT_UNREACHABLE',
      typeof this.#at === 'string'
        ? `no agent answers on ${this.#at} (${why}); start one with: subpage agent`
        : `no agent answers at ${this.#at.url.origin} (${why})`,
      { cause },
    )
  }

  /** @param limitMs how long the agent may be silent; 0: for ever */
  #open(method: string, path: string, body?: unknown, limitMs = 0): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const text = body === undefined ? undefined : JSON.stringify(body)
      const call = this.#request(
        { method, path, headers: text === undefined ? {} : { 'content-type': 'application/json' } },
        (response) => {
          response.setEncoding('utf8')
          resolve(response)
        },
      )
      call.on('error', (cause) => reject(this.#unreachable(cause)))
      call.setTimeout(limitMs, () => call.destroy(new Error(`silent for ${limitMs / 1000} s`)))
      call.end(text)
    })
  }

  #request(options: RequestOptions, onAnswer: (response: IncomingMessage) => void) {
    const at = this.#at
    if (typeof at === 'string') return request({ ...options, socketPath: at }, onAnswer)
    const { hostname, port } = at.url
    const to = {
      ...options,
      host: hostname.replace(/^\[|\]$/g, ''),
      port,
      headers: { ...options.headers, authorization: `Bearer ${at.token}` },
    }
    if (at.url.protocol === 'http:') return request(to, onAnswer)
    return secureRequest({ ...to, ...(at.ca ? { ca: at.ca } : {}), minVersion: 'TLSv1.3' }, onAnswer)
  }
}

interface ApiError {
  code: string
  message: string
}

/** The error that the agent answered with. */
const failure = ({ code, message }: ApiError) =>
  new SubpageError(Object.hasOwn(errorTable, code) ? (code as ErrorCode) : 'INTERNAL', String(message))

const guestPath = (name: string) => `/v1/guests/${encodeURIComponent(name)}`
