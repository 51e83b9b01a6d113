/** Bounds how long an arbiter is waited for: a disk that hangs and a host that is cut off never answer by themselves. */
import { SubpageError } from '../../errors.ts'

export interface Patience {
  limitMs: number
  /** Of the caller; its reason is what the caller gets. */
  signal: AbortSignal | undefined
  /** Aborted when the arbiter is closed. */
  closed: AbortSignal
  /** What was tried in vain, made when time is up. */
  expired: () => SubpageError
}

/**
 * Runs until done, expired, aborted or closed, whichever is first. `run` gets a signal that says it is not waited for any
 * more; what it does after that must do no harm, for nobody learns its outcome.
 */
export async function within<T>(patience: Patience, run: (givenUp: AbortSignal) => Promise<T>): Promise<T> {
  const { limitMs, signal, closed, expired } = patience
  const giveUp = new AbortController()
  const onAbort = () => giveUp.abort(signal?.reason)
  const onClose = () => giveUp.abort(new SubpageError('ARBITER_UNREACHABLE', 'the arbiter was closed'))
  if (signal?.aborted) onAbort()
  if (closed.aborted) onClose()
  giveUp.signal.throwIfAborted()
  const timer = setTimeout(() => giveUp.abort(expired()), limitMs)
  signal?.addEventListener('abort', onAbort)
  closed.addEventListener('abort', onClose)
  try {
    const givenUp = new Promise<never>((_, reject) => {
      giveUp.signal.addEventListener('abort', () => reject(giveUp.signal.reason), { once: true })
    })
    return await Promise.race([givenUp, run(giveUp.signal)])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
    closed.removeEventListener('abort', onClose)
  }
}
