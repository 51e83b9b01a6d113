/**
 * The mark that this host leaves with its arbiter for the others to look for. It stays for about a minute, so one serves all
 * connections of a while: a standby that is down, and called twice a second, costs the arbiter nothing.
 */
import { randomUUID } from 'node:crypto'
import type { Arbiter } from '../replication/arbiter.ts'
import { type Clock, realClock } from '../replication/clock.ts'

/** Well below a mark's life: the other host has yet to look. */
const usedMs = 20_000

export class ArbiterMark {
  readonly #arbiter: Arbiter
  readonly #clock: Clock
  #left: { mark: Promise<string>; atMs: number; memory: number } | undefined

  constructor(arbiter: Arbiter, clock: Clock = realClock) {
    this.#arbiter = arbiter
    this.#clock = clock
  }

  /** A mark that is there. @throws SubpageError ARBITER_UNREACHABLE */
  async fresh(): Promise<string> {
    const { memory } = this.#arbiter
    const left = this.#left
    if (left && left.memory === memory && this.#clock.now() - left.atMs < usedMs) return await left.mark
    const leaving = { mark: this.#leave(), atMs: this.#clock.now(), memory }
    this.#left = leaving
    try {
      return await leaving.mark
    } catch (error) {
      if (this.#left === leaving) this.#left = undefined
      throw error
    }
  }

  async #leave(): Promise<string> {
    const mark = randomUUID()
    await this.#arbiter.leaveMark(mark)
    return mark
  }
}
