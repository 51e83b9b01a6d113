/**
 * Who may go on when the link between a primary and its standby is cut. Each side claims the next generation before it
 * proceeds: the primary to go on alone, the standby to take over. A claim is an atomic test-and-set in a place that both
 * hosts see, so one of them wins and both learn who. A decision stands for ever: were it to expire, a second winner could
 * follow the first while that one still runs. No clock takes part; `at` is for people.
 */

/** One decision: for each guest and generation at most one holder, for ever. */
export interface Arbiter {
  /** For status: `etcd https://…`, `file /run/…`. Holds no secrets. */
  readonly description: string

  /**
   * Rises when an answer shows that it has lost what it knew: it was restored from a backup, set up anew, or replaced by
   * another. What it grants then, somebody may hold already.
   */
  readonly memory: number

  /**
   * Atomic test-and-set: claims `generation` of `guest` for `claimant` unless somebody holds it. Resolves to who holds it
   * now (we, if the claimant is ours). Idempotent for the same claimant: a claim whose answer got lost can be repeated.
   *
   * @param guest unique id of the guest, a UUID
   * @param claimant identity of a host
   * @throws SubpageError ARBITER_UNREACHABLE when no answer can be had: then nobody may conclude anything. The claim may
   *   have been granted all the same; only another claim or `holder` tells.
   */
  claim(guest: string, generation: number, claimant: string, signal?: AbortSignal): Promise<Holder>

  /** Who holds it, without claiming; undefined: nobody. @throws SubpageError ARBITER_UNREACHABLE */
  holder(guest: string, generation: number, signal?: AbortSignal): Promise<Holder | undefined>

  /** Leaves a mark of about a minute, for the other host to look for: both must see the same arbiter. */
  leaveMark(mark: string): Promise<void>

  /** Whether the mark that the other host left can be seen from here. @throws SubpageError ARBITER_UNREACHABLE */
  seesMark(mark: string): Promise<boolean>

  close(): void
}

export interface Holder {
  claimant: string
  generation: number
  /** When it was claimed, by the clock of the claimant; ISO 8601. */
  at: string
}
