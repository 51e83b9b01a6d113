/** Keeps a flood of refused connections from washing all other events out of the log. */

const burst = 20
const perSecond = 1

export class RefusalLimiter {
  #tokens = burst
  #at = performance.now()
  #dropped = 0

  /** What to add to the next report: nothing, or how many were left out before it; undefined to leave this one out. */
  next(): string | undefined {
    const now = performance.now()
    this.#tokens = Math.min(burst, this.#tokens + ((now - this.#at) / 1000) * perSecond)
    this.#at = now
    if (this.#tokens < 1) {
      this.#dropped++
      return undefined
    }
    this.#tokens--
    const dropped = this.#dropped
    this.#dropped = 0
    return dropped === 0 ? '' : `(and ${dropped} more before it)`
  }
}
