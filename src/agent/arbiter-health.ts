/**
 * Whether the arbiter of this host answers, looked at before it is needed: at the start and every few seconds, by reading.
 * Every ten minutes, and while there is trouble, it is written to as well: room and rights show only then, and an arbiter that is put back to
 * an older state is seen to have gone back.
 */
import { randomUUID } from 'node:crypto'
import { asSubpageError } from '../errors.ts'
import type { Arbiter } from '../replication/arbiter.ts'
import { type Clock, realClock } from '../replication/clock.ts'
import { ArbiterMark } from './arbiter-mark.ts'
import type { EventLog } from './event-log.ts'

const lookMs = 5_000
const troubleLookMs = 2_000
const writeMs = 600_000
/** No guest has this id. */
const nobody = '00000000-0000-0000-0000-000000000000'

export class ArbiterHealth {
  /** Resolves when it has been looked at once. */
  readonly looked: Promise<void>
  /** What is left with it for other hosts. */
  readonly mark: ArbiterMark
  readonly #arbiter: Arbiter
  readonly #events: Pick<EventLog, 'add'>
  readonly #clock: Clock
  readonly #closing = new AbortController()
  #writtenAt = Number.NEGATIVE_INFINITY
  #trouble: string | undefined

  constructor(arbiter: Arbiter, events: Pick<EventLog, 'add'>, clock: Clock = realClock) {
    this.#arbiter = arbiter
    this.mark = new ArbiterMark(arbiter, clock)
    this.#events = events
    this.#clock = clock
    this.looked = this.#look()
    void this.looked.then(() => this.#watch())
  }

  /** Why it cannot decide, if it cannot. */
  get trouble(): string | undefined {
    return this.#trouble
  }

  close(): void {
    this.#closing.abort()
  }

  async #watch(): Promise<void> {
    const { signal } = this.#closing
    while (!signal.aborted) {
      await this.#clock.sleep(this.#trouble === undefined ? lookMs : troubleLookMs, signal)
      if (!signal.aborted) await this.#look()
    }
  }

  async #look(): Promise<void> {
    try {
      if (this.#trouble !== undefined || this.#clock.now() - this.#writtenAt > writeMs) {
        await this.#arbiter.leaveMark(randomUUID())
        this.#writtenAt = this.#clock.now()
      } else await this.#arbiter.holder(nobody, 0)
      if (this.#trouble !== undefined) this.#say('it answers again')
      this.#trouble = undefined
    } catch (error) {
      if (this.#closing.signal.aborted) return
      const { message } = asSubpageError(error)
      if (this.#trouble === undefined)
        this.#say(
          `${message}. While it gives no answer, nobody goes on by itself when two hosts lose each other`,
        )
      this.#trouble = message
    }
  }

  #say(text: string): void {
    this.#events.add('', 'arbiter', `${this.#arbiter.description}: ${text}`)
  }
}
