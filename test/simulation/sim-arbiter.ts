/**
 * An arbiter as two hosts meet it: atomic, and sometimes slow or out of reach. A question may be answered, lost, or lost on
 * its way back; a claim may also take effect long after its claimant has given up waiting.
 */
import { SubpageError } from '../../src/errors.ts'
import type { Arbiter, Holder } from '../../src/replication/arbiter.ts'
import type { SeededRandom } from '../support/random.ts'
import type { SimTime } from './sim-clock.ts'
import type { SimProcess } from './sim-process.ts'

const limitMs = 3_000

export class SimArbiter {
  readonly #time: SimTime
  readonly #random: SeededRandom
  #decisions = new Map<string, Holder>()
  #memory = 0
  #backup = new Map<string, Holder>()
  readonly #marks = new Set<string>()
  /** Hosts that do not reach it. */
  readonly cutOff = new Set<string>()
  /** Of a hundred answers so many are lost after the question took effect. */
  lostAnswers = 0
  /** Who holds the newest decision. */
  newest: string | undefined
  /** Tells the log. */
  note: (text: string) => void = () => undefined
  /** What happens to it right before a claim takes effect. */
  beforeClaim: (host: string, generation: number) => void = () => undefined
  /** Until a question takes effect, milliseconds at most. */
  slowMs = 3

  constructor(time: SimTime, random: SeededRandom) {
    this.#time = time
    this.#random = random
  }

  from(host: string, process: SimProcess): Arbiter {
    // Seen with the next answer.
    let memory = this.#memory
    const ask = <T>(signal: AbortSignal | undefined, effect: () => T) =>
      this.#ask(host, process, signal, () => [effect(), this.#memory] as const).then(([result, seen]) => {
        memory = seen
        return result
      })
    const holder = (guest: string, generation: number) => this.#decisions.get(`${guest}/${generation}`)
    return {
      description: 'simulated',
      get memory() {
        return memory
      },
      claim: (guest, generation, claimant, signal) =>
        ask(signal, () => {
          this.beforeClaim(host, generation)
          const held = holder(guest, generation) ?? { claimant, generation, at: '' }
          this.newest = held.claimant
          this.note(`${host}: claims generation ${generation}, ${held.claimant} has it`)
          this.#decisions.set(`${guest}/${generation}`, held)
          return held
        }),
      holder: (guest, generation, signal) => ask(signal, () => holder(guest, generation)),
      leaveMark: (mark) => ask(undefined, () => void this.#marks.add(mark)),
      seesMark: (mark) => ask(undefined, () => this.#marks.has(mark)),
      close: () => undefined,
    }
  }

  backUp(): void {
    this.#backup = new Map(this.#decisions)
  }

  /** From its backup, or as a new one, without any memory. */
  restore(): void {
    this.#decisions = new Map(this.#backup)
    this.#marks.clear()
    this.#memory++
  }

  #ask<T>(host: string, process: SimProcess, signal: AbortSignal | undefined, effect: () => T): Promise<T> {
    const unreachable = (why: string) => new SubpageError('ARBITER_UNREACHABLE', `the arbiter: ${why}`)
    if (signal?.aborted) return Promise.reject(unreachable('not asked any more'))
    return process.ask((answer, fail) => {
      let waits = true
      const settle = (end: () => void) => {
        if (!waits) return
        waits = false
        cancel()
        signal?.removeEventListener('abort', onAbort)
        end()
      }
      const giveUp = (why: string) => settle(() => fail(unreachable(why)))
      const onAbort = () => giveUp('not waited for any longer')
      signal?.addEventListener('abort', onAbort)
      const cancel = this.#time.after(limitMs, () => giveUp('no answer in time'))
      if (this.cutOff.has(host) && this.#random.integer(0, 3) > 0) {
        if (this.#random.integer(0, 1)) this.#time.after(1, () => giveUp('refused'))
        return
      }
      this.#time.after(this.#some(this.slowMs), () => {
        const result = effect()
        if (this.cutOff.has(host) || this.#random.integer(1, 100) <= this.lostAnswers) return
        this.#time.after(this.#some(3), () => settle(() => answer(result)))
      })
    })
  }

  #some(most: number): number {
    return this.#random.integer(100, Math.max(100, most * 1000)) / 1000
  }
}
