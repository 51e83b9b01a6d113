/** The connection by which an agent knows that a supervisor is there: it says who it is, and why it ends; its end is the end of both. */
import { request } from 'node:http'
import { addon } from '../memory/native.ts'
import { descriptorOf } from '../socket-handle.ts'
import { eventsOf } from './event-reader.ts'
import type { Lifeline } from './supervisor/main.ts'

export interface OpenLifeline {
  /** Of the process at its other end, as it is known here. */
  pid: number
  messages: AsyncGenerator<Lifeline>
  destroy(): void
}

/** Undefined when nobody answers there. */
export function openLifeline(socketPath: string): Promise<OpenLifeline | undefined> {
  return new Promise((resolve) => {
    const call = request({ socketPath, path: '/v1/supervisor' }, (response) => {
      response.setEncoding('utf8')
      const pid = addon.peerPid(descriptorOf(response.socket))
      resolve({ pid, messages: messagesOf(response), destroy: () => response.destroy() })
    })
    call.on('error', () => resolve(undefined))
    call.end()
  })
}

async function* messagesOf(response: AsyncIterable<unknown>): AsyncGenerator<Lifeline> {
  try {
    yield* eventsOf<Lifeline>(response)
  } catch {
    // Cut off: it has ended, or we let go.
  }
}
