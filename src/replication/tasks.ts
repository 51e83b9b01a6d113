/** What is to be done in place of the next checkpoint: verify, switch over. */
import { SubpageError } from '../errors.ts'
import type { EpochReport } from './epoch-stats.ts'
import type { PrimarySession } from './primary-session.ts'

export type Task = (session: PrimarySession, epoch: number) => Promise<EpochReport | undefined>

export class Tasks {
  readonly #waiting: Task[] = []
  /** Of those that have no verdict yet. */
  readonly #unanswered = new Set<(error: Error) => void>()
  #over = false

  next(): Task | undefined {
    return this.#waiting.shift()
  }

  /**
   * Runs in place of the next checkpoint. Rejects when the protection ends before, or the signal aborts before it was begun.
   * @param run calls `done` with what the caller waits for
   */
  add<T>(
    run: (session: PrimarySession, epoch: number, done: (value: T) => void) => ReturnType<Task>,
    signal?: AbortSignal,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#over) return reject(protectionEnded())
      const answer = () => this.#unanswered.delete(reject)
      this.#unanswered.add(reject)
      const task: Task = async (session, epoch) => {
        signal?.removeEventListener('abort', withdraw)
        try {
          return await run(session, epoch, (value) => {
            answer()
            resolve(value)
          })
        } catch (error) {
          answer()
          reject(error)
          throw error
        }
      }
      const withdraw = () => {
        const at = this.#waiting.indexOf(task)
        if (at < 0) return
        this.#waiting.splice(at, 1)
        answer()
        reject(signal?.reason)
      }
      signal?.addEventListener('abort', withdraw, { once: true })
      this.#waiting.push(task)
      if (signal?.aborted) withdraw()
    })
  }

  /** The protection is over. */
  end(): void {
    this.#over = true
    this.#waiting.length = 0
    for (const reject of this.#unanswered) reject(protectionEnded())
    this.#unanswered.clear()
  }
}

const protectionEnded = () => new SubpageError('NOT_PROTECTED', 'the protection ended meanwhile')
