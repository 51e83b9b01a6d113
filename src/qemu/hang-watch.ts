/**
 * Tells when a QEMU that runs gives no answer any more: it is stopped, or its main loop waits for a disk that is gone. It is
 * asked when nobody else does. Only time in which this process was awake itself counts: one that was stopped, or had
 * no processor, has answers waiting that it has not read yet.
 */
import { EventEmitter } from 'node:events'
import { SubpageError } from '../errors.ts'

export const hangTimes = {
  /** A QEMU that nobody asks anything is asked this often. */
  askMs: 2_000,
  /** A QEMU that leaves a question without an answer for this long counts as hung. */
  hungMs: 4_000,
  /** One that has been silent for this long may be ended, if another copy of its guest can go on. */
  stuckMs: 10_000,
  tickMs: 500,
} as const

/** What is watched: a control connection. */
export interface Answering {
  /** Commands that wait for their answer. */
  readonly pendingCount: number
  /** Answers so far. */
  readonly answerCount: number
  /** Asks for an answer that costs nothing. */
  ask(): void
}

export interface HangWatchOptions {
  of: Answering
  /** Names the process in what people read. */
  what: string
  /** Milliseconds, and calls `run` after `ms`; a simulator has its own. */
  clock: { now(): number; after(ms: number, run: () => void): () => void }
}

/**
 * Events: `hung`; `answers`, with the milliseconds that it was silent; and `stuck`, again and again while it stays silent
 * beyond `stuckMs`.
 */
export class HangWatch extends EventEmitter<{ hung: []; answers: [number]; stuck: [] }> {
  readonly #options: HangWatchOptions
  readonly #hurried = new Set<(error: SubpageError) => void>()
  #cancel: () => void
  #tickedAt: number
  #answers = 0
  #silentMs = 0
  #idleMs = 0
  #hungSince: number | undefined

  constructor(options: HangWatchOptions) {
    super()
    this.#options = options
    this.#tickedAt = options.clock.now()
    this.#cancel = options.clock.after(hangTimes.tickMs, () => this.#tick())
  }

  /** Milliseconds since 1970 since when it has given no answer; undefined while it does. */
  get since(): number | undefined {
    return this.#hungSince
  }

  get reason(): string {
    const since = this.#hungSince === undefined ? '' : ` since ${new Date(this.#hungSince).toISOString()}`
    return `${this.#options.what} gives no answer${since}: it is stopped, or waits for a disk or a processor`
  }

  /**
   * What `work` resolves with, unless QEMU hangs, now or before that: then whoever waits for it waits no longer. The work itself
   * goes on when QEMU does.
   * @throws SubpageError GUEST_HUNG, and what `work` throws
   */
  async during<T>(work: Promise<T>): Promise<T> {
    let hurry!: (error: SubpageError) => void
    const hung = new Promise<never>((_, reject) => {
      hurry = reject
    })
    this.#hurried.add(hurry)
    if (this.#hungSince !== undefined) hurry(this.#error())
    try {
      return await Promise.race([work, hung])
    } finally {
      this.#hurried.delete(hurry)
      // Its failure after ours is nobody's.
      work.catch(() => undefined)
    }
  }

  /** @throws SubpageError GUEST_HUNG */
  refuseIfHung(): void {
    if (this.#hungSince !== undefined) throw this.#error()
  }

  close(): void {
    this.#cancel()
    this.#cancel = () => undefined
    this.#hungSince = undefined
  }

  #error(): SubpageError {
    return new SubpageError('GUEST_HUNG', this.reason)
  }

  #tick(): void {
    const { clock, of } = this.#options
    const now = clock.now()
    const awakeMs = Math.min(now - this.#tickedAt, 2 * hangTimes.tickMs)
    this.#tickedAt = now
    this.#cancel = clock.after(hangTimes.tickMs, () => this.#tick())
    const answered = of.answerCount !== this.#answers
    this.#answers = of.answerCount
    if (answered || of.pendingCount === 0) this.#heard(answered, awakeMs)
    else this.#heardNothing(awakeMs)
  }

  #heard(answered: boolean, awakeMs: number): void {
    const silentMs = this.#silentMs
    this.#silentMs = 0
    if (this.#hungSince !== undefined) {
      this.#hungSince = undefined
      this.emit('answers', silentMs)
    }
    this.#idleMs = answered ? 0 : this.#idleMs + awakeMs
    if (this.#idleMs < hangTimes.askMs) return
    this.#idleMs = 0
    this.#options.of.ask()
  }

  #heardNothing(awakeMs: number): void {
    this.#silentMs += awakeMs
    if (this.#silentMs < hangTimes.hungMs) return
    if (this.#hungSince === undefined) {
      this.#hungSince = Date.now() - this.#silentMs // the wall clock, for people
      this.emit('hung')
      for (const hurry of this.#hurried) hurry(this.#error())
    }
    if (this.#silentMs >= hangTimes.stuckMs) this.emit('stuck')
  }
}
