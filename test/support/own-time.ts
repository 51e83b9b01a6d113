/**
 * Time as this process has had it, for limits that a test sets to its own process: on a loaded machine a process stands still now and
 * then, and nothing of it can be in time. A stretch in which it did not run counts as one tick.
 */
const tickMs = 20

export class OwnTime implements Disposable {
  #ticks = 0
  readonly #timer = setInterval(() => this.#ticks++, tickMs)

  /** Since it was made. */
  get ms(): number {
    return this.#ticks * tickMs
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }
}
