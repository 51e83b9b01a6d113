/** How fast a guest works, by what it says on its console. */
import { type Console, readConsole } from '../../qemu/demo-guest.ts'

/** Sees numbers arrive; the first and the last one that did, each with its time, make the rate. */
export class Progress {
  readonly #console: Console
  readonly #pattern: RegExp
  #at: number
  #first: { atMs: number; value: number } | undefined
  #last: { atMs: number; value: number } | undefined

  /** @param pattern global, with one group: the number */
  constructor(console: Console, pattern: RegExp) {
    this.#console = console
    this.#pattern = pattern
    this.#at = readConsole(console).length
  }

  look(): void {
    const text = readConsole(this.#console, this.#at)
    const end = text.lastIndexOf('\n') + 1
    this.#at += end
    const values = [...text.slice(0, end).matchAll(this.#pattern)]
    if (values.length === 0) return
    this.#last = { atMs: performance.now(), value: Number(values.at(-1)![1]) }
    this.#first ??= this.#last
  }

  /** In units a second. @throws TypeError when it has said too little */
  get rate(): number {
    const [first, last] = [this.#first, this.#last]
    if (!first || !last || last.atMs === first.atMs)
      throw new TypeError('the guest has said too little for its speed to be told')
    return (1000 * (last.value - first.value)) / (last.atMs - first.atMs)
  }
}
