/** Work that takes long says so from time to time, on standard error; programs are told nothing. */
import type { Output } from './output.ts'

/** Work that is over sooner says nothing. */
const everyMs = 5_000
/** A start takes less, on a host that has started one before. */
const slowMs = 1_500

/** Until it is disposed of. */
export function progress(output: Output, say: (seconds: number) => string): Disposable {
  const startedAt = performance.now()
  const timer = setInterval(
    () => output.note(`  ${say(Math.round((performance.now() - startedAt) / 1000))}`),
    everyMs,
  )
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** Says once what is waited for, unless the wait is over before. */
export function ifSlow(output: Output, what: string): Disposable {
  const timer = setTimeout(() => output.note(what), slowMs)
  return { [Symbol.dispose]: () => clearTimeout(timer) }
}

/** Ten lines or so for what lasts long, one in five seconds at most. */
export function progressEvery(forMs: number): number {
  return Math.max(everyMs, Math.min(60_000, forMs / 10))
}
