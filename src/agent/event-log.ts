/** What happened on this host, in words: the last events are kept, and whoever follows gets each new one. */
import { EventEmitter } from 'node:events'
import { type Static, Type } from '#typebox'
import { printable } from '../errors.ts'
import { limits } from '../limits.ts'

export const HostEvent = Type.Object({
  time: Type.String({ description: 'ISO 8601, UTC' }),
  guest: Type.String({ description: 'empty: of the host' }),
  kind: Type.Enum(['guest', 'protection', 'failover', 'refused', 'density', 'arbiter']),
  text: Type.String({ description: 'one line, for people' }),
})
export type HostEvent = Static<typeof HostEvent>

const keptEvents = limits.keptEvents.value
/** Some of it comes from elsewhere, and all of it is kept. */
const textLengthMax = limits.eventLength.value

export class EventLog extends EventEmitter<{ event: [HostEvent] }> {
  readonly #events: HostEvent[] = []

  constructor() {
    super()
    this.setMaxListeners(0)
  }

  add(guest: string, kind: HostEvent['kind'], text: string): void {
    // An event is one line: what a peer says of itself must not pass for another event.
    const line = printable(text.slice(0, textLengthMax)).replaceAll('\n', ' ')
    // The wall clock, for people.
    this.#keep({ time: new Date().toISOString(), guest, kind, text: line })
  }

  #keep(event: HostEvent): void {
    this.#events.push(event)
    if (this.#events.length > keptEvents) this.#events.shift()
    this.emit('event', event)
  }

  /** Of another log, whose guest it is about. */
  pass(event: HostEvent): void {
    this.#keep(event)
  }

  /** All events so far, then each new one. @returns ends it */
  follow(listener: (event: HostEvent) => void): () => void {
    for (const event of this.#events) listener(event)
    this.on('event', listener)
    return () => void this.off('event', listener)
  }

  recent(): HostEvent[] {
    return [...this.#events]
  }
}
