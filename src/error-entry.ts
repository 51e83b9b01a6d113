/** What the table of errors says of a code, and the exit statuses of the command line. */
/** Exit statuses of the command line; part of the machine contract (docs/cli.md). */
export const exitStatus = {
  ok: 0,
  failed: 1,
  usage: 2,
  degraded: 3,
  notProtected: 4,
  notFound: 10,
  heldElsewhere: 11,
  refused: 12,
  lacksFeature: 13,
  interrupted: 130,
} as const

export interface ErrorEntry {
  /** What the code means, in one sentence. */
  meaning: string
  /** What an operator does about it. */
  remedy: string
  exit: (typeof exitStatus)[keyof typeof exitStatus]
  /** Status of an HTTP answer that carries it. */
  http: number
}

export const entry = (
  meaning: string,
  remedy: string,
  http = 500,
  exit: ErrorEntry['exit'] = exitStatus.failed,
): ErrorEntry => ({ meaning, remedy, exit, http })
