/** Work that takes long says so from time to time, on standard error; programs are told nothing. */
import type { ProgressFigures } from '../replication/seed-progress.ts'
import { formatBytes } from '../units.ts'
import type { Output } from './output.ts'

/** Work that is over sooner says nothing. */
const everyMs = 5_000
/** A start takes less, on a host that has started one before. */
const slowMs = 1_500

/** A terminal is drawn on so often. */
const drawnMs = 200
/** What is over sooner is not drawn. */
const soonMs = 2_000
const barColumns = 24

/**
 * Until it is disposed of: on a terminal a bar with rate and time left, elsewhere a line each five seconds.
 * @param figures undefined while there are none; `waiting` says so then
 */
export function progressBar(
  output: Output,
  doing: string,
  figures: () => ProgressFigures | undefined,
  waiting: string,
): Disposable {
  const startedAt = performance.now()
  const bar = setInterval(() => {
    if (performance.now() - startedAt < soonMs) return
    const now = figures()
    output.drawn(now ? `${barText(now)} ${doing} ${progressText(now)}` : `${waiting} …`)
  }, drawnMs)
  const line = setInterval(() => {
    const now = figures()
    if (output.drawn(undefined)) return
    output.note(`  ${now ? `${doing} ${progressText(now)}` : waiting}`)
  }, everyMs)
  return {
    [Symbol.dispose]: () => {
      clearInterval(bar)
      clearInterval(line)
      output.drawn(undefined)
    },
  }
}

function barText({ doneBytes, totalBytes }: ProgressFigures): string {
  const share = totalBytes > 0 ? Math.min(1, doneBytes / totalBytes) : 0
  const full = Math.floor(share * barColumns)
  return `[${'#'.repeat(full)}${' '.repeat(barColumns - full)}]`
}

/** `43 %: 1.2 GiB of 2.8 GiB, 210 MiB/s, 8 s left` */
export function progressText({
  doneBytes,
  totalBytes,
  bytesPerSecond,
  secondsLeft,
}: ProgressFigures): string {
  const share = totalBytes > 0 ? Math.floor((doneBytes / totalBytes) * 100) : 0
  const left = secondsLeft === null ? '' : `, ${Math.ceil(secondsLeft)} s left`
  return `${share} %: ${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}, ${formatBytes(Math.round(bytesPerSecond))}/s${left}`
}

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
