/**
 * The process that a tracker watches. A pidfd names it for good: its pid may be reused once it has ended (pidfd_open(2)).
 */
import { closeSync } from 'node:fs'
import { errorCode, SubpageError } from '../errors.ts'
import { addon } from '../memory/native.ts'

export class WatchedProcess {
  readonly pid: number
  #pidfd: number | undefined

  /** @throws SubpageError GUEST_DIED when there is no such process. */
  constructor(pid: number) {
    this.pid = pid
    try {
      this.#pidfd = addon.pidfdOpen(pid)
    } catch (error) {
      throw errorCode(error) === 'ESRCH' ? processEnded(pid, error) : error
    }
  }

  /** @throws SubpageError GUEST_DIED; TypeError after `close` */
  assertRunning(): void {
    if (this.#pidfd === undefined) throw new TypeError('the tracker is closed')
    if (addon.pidfdExited(this.#pidfd)) throw processEnded(this.pid)
  }

  /** Returns false when it was closed before. */
  close(): boolean {
    if (this.#pidfd === undefined) return false
    closeSync(this.#pidfd)
    this.#pidfd = undefined
    return true
  }
}

export function processEnded(pid: number, cause?: unknown): SubpageError {
  return new SubpageError('GUEST_DIED', `the guest's process ${pid} has ended: nothing to track`, { cause })
}
