/** What a benchmark is given, and what it answers. */
import type { Manager } from '../test/support/debian-hosts.ts'

export interface BenchOptions {
  /** Small enough for the test suite: shows that it works, not how fast. */
  tiny: boolean
  /** How often, where a benchmark repeats something. */
  runs?: number
  /** How many guests at once, where a benchmark lets that be chosen. */
  guests?: number
  /** The torture of the Debian guest, in place of the demo guest: who starts it. */
  database?: Manager
}

export interface BenchResult {
  /** What `--json` prints. */
  json: unknown
  /** What a person reads. */
  text: string
}

export type Bench = (options: BenchOptions) => Promise<BenchResult>

/** What a long one has found so far, for whoever waits for it. */
export const say = (text: string) => process.stderr.write(`${text}\n`)
