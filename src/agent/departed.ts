/** What had gone from this host by itself before somebody asked for it, and why: that is no error. */

const namesMax = 256

/** Guests that left this host by themselves, and why; the newest ones. */
export class Departed {
  readonly #reasons = new Map<string, string>()

  note(name: string, reason: string): void {
    this.forget(name)
    this.#reasons.set(name, reason)
    for (const oldest of this.#reasons.keys()) {
      if (this.#reasons.size <= namesMax) break
      this.#reasons.delete(oldest)
    }
  }

  reasonOf(name: string): string | undefined {
    return this.#reasons.get(name)
  }

  forget(name: string): void {
    this.#reasons.delete(name)
  }
}
