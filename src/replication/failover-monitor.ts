/**
 * A standby that has lost its primary: does the guest still run there? On the same machine that can be seen. Otherwise the
 * primary is suspected once it has been silent for the suspicion time, and, since a primary that lives goes first, half of
 * that more; then the next generation is claimed, and whoever is granted it goes on. A primary whose supervisor has been stopped
 * in an orderly way holds back what the guest sends and claims nothing; it is waited for somewhat longer. One that goes on alone may come
 * back; one that needs no standby any more, and could not say so, has told the arbiter.
 */
import { asSubpageError, type ErrorCode, type Reason } from '../errors.ts'
import type { Clock } from './clock.ts'
import type { Hello } from './messages.ts'
import type { SourceFate } from './source-sight.ts'
import type { Succession } from './succession.ts'

/** A primary that says that its supervisor leaves is not waited for longer. */
export const absenceMsMax = 10_000

export interface FailoverMonitorOptions {
  clock: Clock
  succession: Succession
  settings: Hello['settings']
  /** When the primary was last heard, by the clock. */
  heardAt: number
  /** How the connection was lost. */
  reason: string
  /** The primary's supervisor was stopped in an orderly way, and may be back within this time; 0 when it was not. */
  absenceMs: number
  /** What has become of the guest's process; undefined when it cannot be seen from here. */
  sourceFate: () => SourceFate | undefined
  committed: () => boolean
  say: (why: Reason) => void
  takeOver: (reason: string) => void
  discard: (reason: string) => void
  /** The primary went on alone: what we hold is no state to take over any more. */
  outdated: () => void
}

const lookMs = 50
/** Between two attempts to get an answer from the arbiter. */
const retryMs = 500
/** Between two looks whether we are needed at all. */
const dismissalLookMs = 2_000
/** Somebody waits for the discard. */
const handBackTries = 10

/**
 * A standby that is discarded, and has not run the guest, while a claim of it may be granted: the primary, which holds back
 * meanwhile, gets the guest back.
 */
export async function handBack({
  clock,
  succession,
}: Pick<FailoverMonitorOptions, 'clock' | 'succession'>): Promise<void> {
  for (let tries = handBackTries; tries > 0; tries--) {
    try {
      return await succession.giveBack()
    } catch {
      // The arbiter gives no answer; the primary waits for one, too.
      await clock.sleep(retryMs)
    }
  }
}

const hasEnded = (fate: SourceFate | undefined) => fate === 'ended' || fate === 'gone'

export class FailoverMonitor {
  readonly #options: FailoverMonitorOptions
  readonly #over = new AbortController()
  readonly #kept: Promise<void>
  #askedAt = Number.NEGATIVE_INFINITY

  constructor(options: FailoverMonitorOptions) {
    this.#options = options
    this.#kept = this.#keep()
  }

  /** Ends it: the primary is back, or there is nothing left to watch. A claim that is on its way gets its answer first. */
  async end(): Promise<void> {
    this.#over.abort()
    await this.#kept
  }

  async #keep(): Promise<void> {
    const { clock, sourceFate, committed, discard } = this.#options
    let decided = false
    while (!this.#over.signal.aborted) {
      if ((decided || !committed()) && (await this.#dismissed(decided)))
        return discard('the guest, or its protection, has ended')
      if (decided) {
        await clock.sleep(dismissalLookMs, this.#over.signal)
        continue
      }
      const fate = sourceFate()
      if (hasEnded(fate) && !committed()) return discard('the primary is gone and no checkpoint was whole')
      if (fate === 'runs') this.#say('PEER_UNREACHABLE', 'the guest still runs there')
      else if (!committed()) this.#say('STANDBY_NOT_READY', 'there is no whole checkpoint to take over')
      else decided = await this.#decide(fate)
      if (!decided) await clock.sleep(lookMs, this.#over.signal)
    }
    // A claim without an answer, from here or by command, may have been granted: nothing else begins before that is known. An arbiter
    // that was replaced meanwhile answers no claim before the hosts have met again, which then settles it.
    while (this.#mayBeGranted && committed() && !(await this.#claim(hasEnded(sourceFate()))))
      await clock.sleep(retryMs)
  }

  /** The primary could not tell us that it does not need us any more, and has told the arbiter. */
  async #dismissed(whole: boolean): Promise<boolean> {
    const { clock, succession } = this.#options
    if (clock.now() - this.#askedAt < dismissalLookMs) return false
    this.#askedAt = clock.now()
    // Without an answer we stay, and ask again.
    return await succession.dismissed(whole, this.#over.signal).catch(() => false)
  }

  get #mayBeGranted(): boolean {
    const { undecided, arbitrated, replaced } = this.#options.succession
    return undecided && arbitrated && !replaced
  }

  /** True when somebody goes on with the guest. */
  async #decide(fate: SourceFate | undefined): Promise<boolean> {
    const { clock, succession, settings, heardAt, absenceMs } = this.#options
    const gone = hasEnded(fate)
    if (settings.outputs === 'free' && !gone) {
      this.#say(
        'TAKEOVER_BY_COMMAND',
        'with outputs free two copies could serve, so it is taken over by command only',
      )
      return false
    }
    if (!succession.arbitrated) {
      this.#say('TAKEOVER_BY_COMMAND', 'without an arbiter it is taken over by command only')
      return false
    }
    // A supervisor that lives knows whether the end was meant: if it was, it claims before we do.
    const patient = clock.now() - heardAt < Math.max(settings.suspicionMs * 1.5, absenceMs)
    if (fate !== 'gone' && patient) {
      this.#say(
        'PEER_UNREACHABLE',
        `waiting for ${gone ? 'its supervisor to say how the guest ended' : 'the primary'}`,
      )
      return false
    }
    if (await this.#claim(gone)) return true
    await clock.sleep(retryMs, this.#over.signal)
    return false
  }

  /** False without an answer. */
  async #claim(gone: boolean): Promise<boolean> {
    const { succession, takeOver, outdated } = this.#options
    try {
      const holder = await succession.claim()
      // Even a guest that is gone may have gone on alone before: then what we hold is too old.
      if (!holder) takeOver(gone ? 'the primary and its guest are gone' : 'the primary is silent')
      else {
        outdated()
        const what = `goes on with the guest alone, or has ended it (generation ${holder.generation})`
        this.#say('HELD_ELSEWHERE', `${holder.claimant} ${what}`)
      }
      return true
    } catch (error) {
      const { code, message } = asSubpageError(error)
      this.#say(code, `not taken over: ${message}`)
      return false
    }
  }

  /** Why nothing has been decided, beside how the connection was lost. */
  #say(code: ErrorCode, text: string): void {
    this.#options.say({ code, message: `${this.#options.reason}; ${text}` })
  }
}
