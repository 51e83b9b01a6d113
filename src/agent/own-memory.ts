/**
 * Memory that the agent itself uses: resident anonymous and file pages (proc(5), status) without the shadows, which are
 * anonymous too and resident from seeding on. Guest RAM and images are shared memory and not in these figures.
 */
import { readFileSync } from 'node:fs'

/** @param shadowBytes of all protections of this agent */
export function ownMemory(shadowBytes: number): number {
  const status = readFileSync('/proc/self/status', 'utf8')
  const kib = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0)
  return Math.max(0, (kib('RssAnon') + kib('RssFile')) * 1024 - shadowBytes)
}
