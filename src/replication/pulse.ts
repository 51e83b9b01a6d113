/**
 * Heartbeats and suspicion. Each side sends a beat every fifth of the suspicion time and suspects a peer of which it has
 * heard nothing, not a byte, for the whole of it. A slow epoch does not matter: beats go between the frames.
 */
import type { Clock } from './clock.ts'

const beatsPerSuspicion = 5

export class Pulse {
  readonly #clock: Clock
  readonly #suspicionMs: number
  readonly #beat: () => void
  readonly #suspect: () => void
  #heardAt: number
  #dueAt: number
  #cancel: () => void

  /** @param suspect called once, when the peer has been silent for `suspicionMs` */
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
    if (stalledMs > this.#intervalMs) this.#heardAt = Math.min(now, this.#heardAt + stalledMs)
    if (now - this.#heardAt > this.#suspicionMs) {
      this.#suspect()
      return
    }
    this.#beat()
    this.#dueAt = now + this.#intervalMs
    this.#cancel = this.#clock.after(this.#intervalMs, () => this.#tick())
  }
}
