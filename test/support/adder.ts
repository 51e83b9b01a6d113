/** A client of a guest that sums (workload `sum`), over one connection that outlives the guest's moves. */
import type { Connection } from './network.ts'

/** Adds numbers one after the other, and knows what each answer must be. */
export class Adder {
  added = 0
  sum = 0n
  slowestMs = 0
  readonly #connection: Connection

  constructor(connection: Connection) {
    this.#connection = connection
  }

  /** @throws Error when the guest says another sum than what was added */
  async add(): Promise<void> {
    this.sum += BigInt(++this.added)
    const sentAt = performance.now()
    this.#connection.send(`add ${this.added}\n`)
    const expected = `ok ${this.added} ${this.sum}\n`
    const said = await this.#connection.until((text) => text.endsWith('\n'))
    if (said !== expected) throw new Error(`the guest says "${said}" instead of "${expected}"`)
    this.#connection.received = ''
    this.slowestMs = Math.max(this.slowestMs, performance.now() - sentAt)
  }
}
