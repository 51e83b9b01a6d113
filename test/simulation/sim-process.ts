/**
 * One run of a supervisor, as the rest of the world meets it: what comes to it enters here, what it does leaves here. Killed,
 * nothing enters or leaves any more: its timers never fire and its promises never settle. Stopped, both wait until it goes
 * on. The code of a supervisor that was stopped in the middle of a function runs on to the next wait, but what it does is
 * seen only when it goes on.
 */
import type { Clock } from '../../src/replication/clock.ts'
import type { SimTime } from './sim-clock.ts'

/** Thrown at the point where a supervisor is killed; nobody is there to catch it. */
export class Killed extends Error {}

export class SimProcess {
  readonly clock: Clock
  readonly name: string
  readonly #time: SimTime
  readonly #arriving: (() => void)[] = []
  readonly #leaving: (() => void)[] = []
  /** Take a sleep's listener off its signal: Node keeps a signal that is listened to, and all behind it, for ever. */
  readonly #asleep = new Set<() => void>()
  state: 'running' | 'stopped' | 'dead' = 'running'

  /** @param originMs of this host's clock: none has the same */
  constructor(name: string, time: SimTime, originMs: number) {
    this.name = name
    this.#time = time
    const after = (ms: number, run: () => void) => {
      let cancelled = false
      const cancel = time.after(ms, () => this.enter(() => !cancelled && run()))
      return () => {
        cancelled = true
        cancel()
      }
    }
    this.clock = {
      now: () => time.nowMs + originMs,
      after,
      afterInput: (run) => after(0, run),
      sleep: (ms, signal) =>
        new Promise((resolve) => {
          if (signal?.aborted) return resolve()
          const forget = () => signal?.removeEventListener('abort', done)
          const done = () => {
            cancel()
            forget()
            this.#asleep.delete(forget)
            resolve()
          }
          const cancel = after(ms, done)
          signal?.addEventListener('abort', done)
          this.#asleep.add(forget)
        }),
    }
  }

  /** Something happens to it: input, an answer, a timer. */
  enter(run: () => void): void {
    if (this.state === 'dead') return
    if (this.state === 'stopped' || this.#arriving.length > 0) this.#arriving.push(run)
    else this.#act(run)
  }

  /** It does something that others can see. */
  leave(run: () => void): void {
    if (this.state === 'running') run()
    else if (this.state === 'stopped') this.#leaving.push(run)
  }

  /** Asks the world for something; never settles when this run of the supervisor ends before. */
  ask<T>(put: (answer: (value: T) => void, fail: (error: Error) => void) => void): Promise<T> {
    return new Promise((resolve, reject) =>
      this.leave(() =>
        put(
          (value) => this.enter(() => resolve(value)),
          (error) => this.enter(() => reject(error)),
        ),
      ),
    )
  }

  stop(): void {
    if (this.state === 'running') this.state = 'stopped'
  }

  goOn(): void {
    if (this.state !== 'stopped') return
    this.state = 'running'
    for (const run of this.#leaving.splice(0)) run()
    this.#catchUp()
  }

  die(): void {
    this.state = 'dead'
    this.#arriving.length = 0
    this.#leaving.length = 0
    for (const forget of this.#asleep) forget()
    this.#asleep.clear()
  }

  /** What has come meanwhile, one after the other, each to its end. */
  #catchUp(): void {
    if (this.#arriving.length === 0) return
    this.#time.after(0, () => {
      if (this.state !== 'running') return
      const run = this.#arriving.shift()
      if (run) this.#act(run)
      this.#catchUp()
    })
  }

  #act(run: () => void): void {
    try {
      run()
    } catch (error) {
      if (!(error instanceof Killed)) throw error
    }
  }
}
