/**
 * Time, handed in: the same code runs on the machine's clock and on a simulator's. Milliseconds throughout. The machine's is
 * CLOCK_BOOTTIME, which goes on while the machine sleeps: promises run out meanwhile.
 */
import { addon } from '../memory/native.ts'

export interface Clock {
  /** Monotonic; the origin means nothing. */
  now(): number
  /** Resolves after `ms`, or as soon as the signal aborts. Never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
  /** Calls `run` after `ms`, unless the returned function is called before. */
  after(ms: number, run: () => void): () => void
  /** In a timer: calls `run` once what has arrived by now has been read, unless the returned function is called before. */
  afterInput(run: () => void): () => void
}

export const realClock: Clock = {
  now: () => addon.speakNowMs(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted) return resolve()
      const done = () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', done)
        resolve()
      }
      const timer = setTimeout(done, ms)
      signal?.addEventListener('abort', done)
    }),
  after: (ms, run) => {
    const timer = setTimeout(run, ms)
    return () => clearTimeout(timer)
  },
  // Between timers and immediates the event loop reads what has come.
  afterInput: (run) => {
    const turn = setImmediate(run)
    return () => clearImmediate(turn)
  },
}
