/** Talks to an agent over its API socket; what the agent answers with an error becomes that SubpageError here. */
import { request } from 'node:http'
import { type ErrorCode, errorTable, SubpageError } from '../errors.ts'
import type { StandbyOutcome } from '../replication/standby.ts'
import type { Verification } from '../replication/verify.ts'
import type { ProtectBody, RunBody } from './api.ts'
import type { HostEvent } from './event-log.ts'
import type { GuestStatus, HostStatus } from './status.ts'

export class AgentClient {
  readonly #socket: string

  constructor(socket: string) {
    this.#socket = socket
  }

  status = () => this.#call<HostStatus>('GET', '/v1/status')
  guest = (name: string) => this.#call<GuestStatus>('GET', guestPath(name))
  run = (body: RunBody) => this.#call<GuestStatus>('POST', '/v1/guests', body)
  remove = (name: string) => this.#call<{ removed: string }>('DELETE', guestPath(name))
  protect = (name: string, body: ProtectBody) =>
    this.#call<GuestStatus>('POST', `${guestPath(name)}/protect`, body)
  unprotect = (name: string) => this.#call<GuestStatus>('POST', `${guestPath(name)}/unprotect`)
  failover = (name: string) => this.#call<StandbyOutcome>('POST', `${guestPath(name)}/failover`)
  verify = (name: string) => this.#call<Verification>('POST', `${guestPath(name)}/verify`)
  events = () => this.#call<HostEvent[]>('GET', '/v1/events')

  /** All events so far, then each new one; ends with the agent. */
  async *followEvents(): AsyncGenerator<HostEvent> {
    let rest = ''
    for await (const chunk of await this.#open('GET', '/v1/events/stream')) {
      const parts = (rest + String(chunk)).split('\n\n')
      rest = parts.pop() ?? ''
      for (const part of parts) yield JSON.parse(part.replace(/^data: /, '')) as HostEvent
    }
  }

  async #call<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await this.#open(method, path, body)
    let text = ''
    for await (const chunk of response) text += String(chunk)
    const value = JSON.parse(text)
    if ((response.statusCode ?? 500) < 400) return value as T
    const code = String(value.code)
    throw new SubpageError(code in errorTable ? (code as ErrorCode) : 'INTERNAL', String(value.message))
  }

  #open(method: string, path: string, body?: unknown): Promise<import('node:http').IncomingMessage> {
    return new Promise((resolve, reject) => {
      const text = body === undefined ? undefined : JSON.stringify(body)
      const call = request(
        {
          socketPath: this.#socket,
          method,
          path,
          headers: text === undefined ? {} : { 'content-type': 'application/json' },
        },
        (response) => {
          response.setEncoding('utf8')
          resolve(response)
        },
      )
      call.on('error', (cause) =>
        reject(
          new SubpageError(
            'AGENT_UNREACHABLE',
            `no agent answers on ${this.#socket} (${cause.message}); start one with: subpage agent`,
            { cause },
          ),
        ),
      )
      call.end(text)
    })
  }
}

const guestPath = (name: string) => `/v1/guests/${encodeURIComponent(name)}`
