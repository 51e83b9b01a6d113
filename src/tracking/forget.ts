/**
 * The channel through which the shim inside QEMU forgets that pages were accessed. Protocol and safety:
 * native/shim/forget.h. Forgetting costs the guest a minor fault, 1 to 2 µs, for each page that it uses again.
 */
import { writeFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { errorCode, SubpageError } from '../errors.ts'
import { addon, type ForgetHandle } from '../memory/native.ts'
import { PageRanges } from '../memory/page-ranges.ts'

/** The shim answers within milliseconds; a stopped QEMU never does. */
const answerMsMax = 5_000
const pollMs = 1

export interface Forgotten {
  pages: number
  /** Processor time of the thread inside QEMU. */
  ns: number
}

export class ForgetChannel {
  readonly #channel: ForgetHandle
  readonly #status = new Float64Array(5)
  #busy = false
  #closed = false

  private constructor(channel: ForgetHandle) {
    this.#channel = channel
  }

  /** Writes an empty channel; before QEMU starts, since the shim maps it then. */
  static create(path: string): void {
    writeFileSync(path, Buffer.alloc(addon.forgetFileBytes), { mode: 0o600 })
  }

  /** @throws SubpageError TRACKER_UNAVAILABLE when there is none */
  static open(path: string): ForgetChannel {
    try {
      return new ForgetChannel(addon.forgetOpen(path))
    } catch (cause) {
      if (errorCode(cause) === undefined) throw cause
      throw new SubpageError(
        'TRACKER_UNAVAILABLE',
        `this guest cannot be told to forget accesses (${(cause as Error).message}): start it anew with this release`,
        { cause },
      )
    }
  }

  /** @throws SubpageError TRACKER_UNAVAILABLE when the process does not answer, or the kernel refuses */
  async forget(pages: PageRanges): Promise<Forgotten> {
    if (this.#busy) throw new TypeError('one request at a time')
    this.#busy = true
    try {
      const total: Forgotten = { pages: 0, ns: 0 }
      for (const part of parts(pages)) {
        const done = await this.#request(part)
        total.pages += done.pages
        total.ns += done.ns
      }
      return total
    } finally {
      this.#busy = false
    }
  }

  close(): void {
    if (!this.#closed) addon.forgetClose(this.#channel)
    this.#closed = true
  }

  async #request(pages: PageRanges): Promise<Forgotten> {
    // What an agent before us has left under way is waited for: its runs are still being read.
    await this.#until(this.#read().requested)
    const number = addon.forgetPost(this.#channel, pages.pairs, pages.runCount)
    await this.#until(number)
    const { errno, ns, pages: count } = this.#read()
    if (errno !== 0)
      throw new SubpageError(
        'TRACKER_UNAVAILABLE',
        `the guest's QEMU could not forget accesses (errno ${errno})`,
      )
    return { ns, pages: count }
  }

  async #until(number: number): Promise<void> {
    const deadline = performance.now() + answerMsMax
    while (this.#read().done !== number) {
      if (performance.now() > deadline)
        throw new SubpageError(
          'TRACKER_UNAVAILABLE',
          `the guest's QEMU has not answered for ${answerMsMax / 1000} s: is it stopped, or its host overloaded?`,
        )
      await delay(pollMs)
    }
  }

  #read() {
    if (this.#closed) throw new TypeError('the channel is closed')
    addon.forgetStatus(this.#channel, this.#status)
    const [requested, done, errno, ns, pages] = this.#status as unknown as [
      number,
      number,
      number,
      number,
      number,
    ]
    return { requested, done, errno, ns, pages }
  }
}

/** As many runs as one request takes. */
function* parts(pages: PageRanges): Generator<PageRanges> {
  const most = addon.forgetRunCountMax
  for (let run = 0; run < pages.runCount; run += most)
    yield PageRanges.fromPairs(pages.pairs.slice(2 * run, 2 * Math.min(run + most, pages.runCount)))
}
