/**
 * Who may speak for the guest until when. An acknowledgement of the standby is also a promise: it will not run the guest
 * before the suspicion time has passed since the primary sent what it acknowledges. So the primary may let out, until
 * then, what was committed; the fence in the hypervisor holds it to that however late the release is executed.
 *
 * Both sides measure with their own clocks, from moments that they know the order of: the primary from when it sent,
 * the standby from when it received, which is later. What the standby adds covers clocks that run at different rates, and a
 * packet that was begun in time. A failover monitor waits half as long again anyway (failover-monitor.ts).
 */
import type { Clock } from './clock.ts'
import type { Connection } from './connection.ts'
import type { FrameType } from './frame.ts'
import type { PrimaryOptions } from './primary-options.ts'

/** An answer that leaves less than this share of the promise is asked for again: a release takes a moment. */
const shareMin = 0.1
/** Of the suspicion time, after its last promise, a standby waits before it runs the guest. */
const silenceShare = 1.25

/**
 * Until when the primary may let out what the standby has just acknowledged. One that has been on its way for too long may be
 * older than a takeover: then the standby is asked whether it still listens.
 * @param sentAt when the checkpoint was sent, by the clock
 * @param probe resolves when the standby has answered; never, or with an error, when it does not listen any more
 */
export async function leaseOutput(
  { clock, suspicionMs }: Pick<PrimaryOptions, 'clock' | 'suspicionMs'>,
  sentAt: number,
  probe: () => Promise<void>,
): Promise<number> {
  let askedAt = sentAt
  while (clock.now() - askedAt > suspicionMs * (1 - shareMin)) {
    askedAt = clock.now()
    await probe()
  }
  return askedAt + suspicionMs
}

/** What a standby has promised: the primary's lease on the guest's voice, and how long that holds. */
export class OutputLease {
  readonly #clock: Clock
  #lastAt = Number.NEGATIVE_INFINITY

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Sends an answer by which the primary may speak. */
  async give(connection: Connection, type: FrameType, epoch: number): Promise<void> {
    this.#lastAt = this.#clock.now()
    await connection.send(type, epoch)
  }

  /** The guest does not run over there any more, or stands still with all let out. */
  waive(): void {
    this.#lastAt = Number.NEGATIVE_INFINITY
  }

  /** Resolves when the primary may not speak any more. What is given meanwhile counts too. */
  async lapsed(suspicionMs: number): Promise<void> {
    const leftMs = () => this.#lastAt + suspicionMs * silenceShare - this.#clock.now()
    for (let ms = leftMs(); ms > 0; ms = leftMs()) await this.#clock.sleep(ms)
  }
}
