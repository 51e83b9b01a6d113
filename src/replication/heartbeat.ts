/**
 * Heartbeats and suspicion. Each side sends a beat every fifth of the suspicion time and suspects a peer of which it has
 * heard nothing, not a byte, for the whole of it. A slow epoch does not matter: beats go between the frames.
 */
import type { Clock } from './clock.ts'

const beatsPerSuspicion = 5
/** Until there is a checkpoint that somebody could take over, silence decides nothing: there is no hurry to suspect. */
const seedingMs = 5_000

export class Heartbeat {
  readonly #clock: Clock
  readonly #suspicionMs: number
  readonly #beat: () => void
  readonly #suspect: () => void
  #heardAt: number
  #working = 0
  #seeding = true
  #stalled = false
  #dueAt: number
  #cancel: () => void

  /** @param suspect called once, when the peer has been silent for too long */
  constructor(clock: Clock, suspicionMs: number, beat: () => void, suspect: () => void) {
    this.#clock = clock
    this.#suspicionMs = suspicionMs
    this.#beat = beat
    this.#suspect = suspect
    this.#heardAt = clock.now()
    this.#dueAt = this.#heardAt + this.#intervalMs
    this.#cancel = clock.after(this.#intervalMs, () => this.#tick())
  }

  /** Something came from the peer. */
  heard(): void {
    this.#heardAt = this.#clock.now()
  }

  /** When the peer was last heard, by the clock handed in. */
  get heardAt(): number {
    return this.#heardAt
  }

  /** Input is not read during this work: its silence is ours. */
  async during<T>(work: Promise<T>): Promise<T> {
    this.#working++
    try {
      return await work
    } finally {
      this.#working--
      this.heard()
    }
  }

  /** The first checkpoint is committed: from now on silence counts. */
  seeded(): void {
    this.#seeding = false
  }

  /** Whether we stood still for longer than a peer is waited for: it may have acted meanwhile. */
  get stalled(): boolean {
    return this.#stalled || this.#clock.now() - this.#dueAt > this.#suspicionMs
  }

  stop(): void {
    this.#cancel()
  }

  get #intervalMs(): number {
    return this.#suspicionMs / beatsPerSuspicion
  }

  #tick(): void {
    const now = this.#clock.now()
    // While we ourselves did not run (a long call, SIGSTOP, a busy host) we did not listen either.
    const stalledMs = now - this.#dueAt
    if (stalledMs > this.#suspicionMs) this.#stalled = true
    if (stalledMs > this.#intervalMs) this.#heardAt = Math.min(now, this.#heardAt + stalledMs)
    // Timers come before input: where we were late, what it has sent may not have been read.
    if (this.#silent)
      this.#cancel = this.#clock.afterInput(() => (this.#silent ? this.#suspect() : this.#goOn()))
    else this.#goOn()
  }

  get #silent(): boolean {
    const patienceMs = this.#seeding ? Math.max(seedingMs, this.#suspicionMs) : this.#suspicionMs
    return this.#working === 0 && this.#clock.now() - this.#heardAt > patienceMs
  }

  #goOn(): void {
    this.#beat()
    this.#dueAt = this.#clock.now() + this.#intervalMs
    this.#cancel = this.#clock.after(this.#intervalMs, () => this.#tick())
  }
}
