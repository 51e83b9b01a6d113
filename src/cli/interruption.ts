/**
 * Commands that go on until they are interrupted, and then end whole: by a signal that asks a program to end, or because
 * nobody takes what they print.
 */
import { onOutputLost } from './output.ts'
import { ignoredAtStart } from './started-with.ts'

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/**
 * Runs `body`; its signal aborts at the first interruption. A second one ends the process at once. What was ignored when we were
 * started, as SIGHUP is under nohup(1), interrupts nothing.
 */
export async function interruptible<T>(body: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const interrupted = new AbortController()
  const interrupt = () => interrupted.abort()
  for (const signal of signals)
    if (ignoredAtStart(signal)) process.on(signal, () => undefined)
    else process.once(signal, interrupt)
  const lost = onOutputLost(interrupt)
  try {
    return await body(interrupted.signal)
  } finally {
    lost.forget()
    for (const signal of signals) process.off(signal, interrupt)
  }
}
