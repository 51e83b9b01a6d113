/** What is to be done in place of the next checkpoint: verify, switch over. */
import { SubpageError } from '../errors.ts'
import type { EpochReport } from './epoch-stats.ts'
import type { PrimarySession } from './primary-session.ts'

export type Task = (session: PrimarySession, epoch: number) => Promise<EpochReport | undefined>

export class Tasks {
  readonly #waiting: Task[] = []

  next(): Task | undefined {
    return this.#waiting.shift()
  }

  /**
   * Runs in place of the next checkpoint. Rejects when the protection ends before.
   * @param run calls `done` with what the caller waits for
   */
  add<T>(
    run: (session: PrimarySession, epoch: number, done: (value: T) => void) => ReturnType<Task>,
    finished: Promise<void>,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#waiting.push(async (session, epoch) => {
        try {
          return await run(session, epoch, resolve)
        } catch (error) {
          reject(error)
          throw error
        }
      })
      // Does nothing when there is a verdict.
      const unanswered = () => reject(new SubpageError('NOT_PROTECTED', 'the protection ended meanwhile'))
      finished.then(unanswered, unanswered)
    })
  }
}
