/** Numbers of log-full events, by the size of the log in entries. */
import { type LogEntries, logEntries } from './layout.ts'

export type { LogEntries }

export function addCounts(
  a: Record<LogEntries, number>,
  b: Record<LogEntries, number>,
  factor = 1,
): Record<LogEntries, number> {
  return Object.fromEntries(
    logEntries.map((entries) => [entries, a[entries] + factor * b[entries]]),
  ) as Record<LogEntries, number>
}
