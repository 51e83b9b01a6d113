/**
 * The primary's side of a protection: connects, seeds, takes a checkpoint each epoch, and begins anew after a lost
 * connection. The guest runs on whatever happens here.
 */
import { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import type { CodecName } from '../delta/capture.ts'
import { asSubpageError, SubpageError } from '../errors.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import { Region } from '../memory/region.ts'
import type { Tracker, TrackerChoice } from '../tracking/tracker.ts'
import { checkpoint, type Protection } from './checkpoint.ts'
import { DeltaWriter } from './delta-writer.ts'
import { type EpochReport, EpochStats } from './epoch-stats.ts'
import { frameType } from './frame.ts'
import type { Guest, GuestEnd } from './guest.ts'
import type { Hello } from './messages.ts'
import { PrimarySession } from './primary-session.ts'
import { seed } from './seed.ts'
import { type Verification, verify } from './verify.ts'

export type PrimaryState = 'Connecting' | 'Seeding' | 'Protected' | 'Lagging' | 'Failed'

export interface PrimaryOptions {
  guest: Guest
  hello: Hello
  connect: () => Promise<Duplex>
  tracker: TrackerChoice
  codec: CodecName
  epochMs: number
}

interface PrimaryEvents {
  state: [PrimaryState, string]
  epoch: [EpochReport]
  /** A checkpoint was begun and not committed; its pages go with a later one. */
  missed: [SubpageError]
}

/** Time between attempts to reach a standby that is gone. */
const reconnectMs = 500
/** A commit that takes longer than this many epochs means that the link or the standby does not keep up. */
const laggingEpochs = 10
/** A single commit may take this long before it counts as too slow, however short the epochs are. */
const lateMsMin = 1_000
const tooSlow = 'the standby or the link does not keep up'
/** How long an end of protection waits for a standby that does not read or answer. */
const farewellMs = 5_000

export class Primary extends EventEmitter<PrimaryEvents> {
  readonly #options: PrimaryOptions
  readonly #protection: Protection
  readonly #stopping = new AbortController()
  readonly #abandoned = new AbortController()
  readonly #inspections: ((session: PrimarySession, epoch: number) => Promise<EpochReport>)[] = []
  #epoch = 0
  #detached = false
  #finished: Promise<void> = Promise.resolve()
  state: PrimaryState = 'Connecting'
  reason = ''
  stats = new EpochStats()

  private constructor(options: PrimaryOptions) {
    super()
    this.#options = options
    const { guest } = options
    const shadow = Region.anonymous(guest.ram.bytes)
    const tracker = trackOrClose(guest, options.tracker, shadow)
    this.#protection = {
      guest,
      tracker,
      shadow,
      writer: new DeltaWriter(guest.ram, shadow, options.codec),
      unsynced: PageRanges.all(guest.ram.pages),
    }
  }

  /**
   * Resolves once the standby has agreed; seeding and epochs then go on by themselves.
   * @throws SubpageError what the standby refused with, PEER_UNREACHABLE, TRACKER_UNAVAILABLE; nothing is kept then
   */
  static async start(options: PrimaryOptions): Promise<Primary> {
    const primary = new Primary(options)
    try {
      primary.#finished = primary.#run(await primary.#open())
    } catch (error) {
      primary.#release()
      throw error
    }
    return primary
  }

  /** For a restarted agent: goes on trying until the standby answers. */
  static resume(options: PrimaryOptions): Primary {
    const primary = new Primary(options)
    primary.#finished = primary.#run(undefined)
    return primary
  }

  get trackerName(): Tracker['name'] {
    return this.#protection.tracker.name
  }

  get codec(): CodecName {
    return this.#options.codec
  }

  get epochMs(): number {
    return this.#options.epochMs
  }

  /** Compares guest and image, within the next checkpoint. */
  verify(): Promise<Verification> {
    return new Promise((resolve, reject) => {
      this.#inspections.push(async (session, epoch) => {
        try {
          const { report, verification } = await verify(this.#protection, session, epoch)
          resolve(verification)
          return report
        } catch (error) {
          reject(error)
          throw error
        }
      })
      // Does nothing when there is a verdict.
      const unanswered = () => reject(new SubpageError('NOT_PROTECTED', 'the protection ended meanwhile'))
      this.#finished.then(unanswered, unanswered)
    })
  }

  /** Ends the protection; the standby is told to discard its copy. The guest runs on. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    const patience = setTimeout(() => this.#abandoned.abort(), farewellMs)
    await this.#finished.finally(() => clearTimeout(patience))
  }

  /** Ends this object, not the protection: another one, of the next agent, goes on with it. No pause is left open. */
  async detach(): Promise<void> {
    this.#detached = true
    await this.stop()
  }

  async #open(): Promise<PrimarySession> {
    const { connect, hello } = this.#options
    return await PrimarySession.open(await connect(), hello, this.#abandoned.signal)
  }

  async #run(first: PrimarySession | undefined): Promise<void> {
    const { guest } = this.#options
    let session = first
    let end: GuestEnd | undefined
    const ended = guest.ended.then(async (how) => {
      end = how
      // The standby acts on this, so it goes out before anything else is tidied up.
      await session?.connection.sendJson(frameType.guestEnded, how).catch(() => undefined)
      this.#stopping.abort()
    })
    while (!this.#stopping.signal.aborted) {
      try {
        session ??= await this.#open()
        await this.#serve(session)
      } catch (error) {
        if (!this.#stopping.signal.aborted) this.#enter('Connecting', asSubpageError(error).message)
      }
      if (!this.#stopping.signal.aborted) session?.connection.close()
      if (this.#stopping.signal.aborted) break
      session = undefined
      await delay(reconnectMs, undefined, { signal: this.#stopping.signal }).catch(() => undefined)
    }
    if (end) await ended
    // A standby that has gone already needs no word.
    else if (!this.#detached) await session?.connection.send(frameType.unprotect).catch(() => undefined)
    await session?.connection.finish()
    this.#release()
  }

  async #serve(session: PrimarySession): Promise<void> {
    this.#enter('Seeding', '')
    // What a former standby held is unknown to this one.
    this.#protection.unsynced = PageRanges.all(this.#options.guest.ram.pages)
    await seed(this.#protection, session, this.#stopping.signal)
    const interrupted = AbortSignal.any([this.#stopping.signal, session.closed])
    while (!this.#stopping.signal.aborted) {
      const startedAt = performance.now()
      const epoch = ++this.#epoch
      const take = this.#inspections.shift() ?? ((s, e) => checkpoint(this.#protection, s, e))
      const late = setTimeout(() => this.#lag(tooSlow), this.#lateMs)
      try {
        const report = await take(session, epoch)
        this.stats.add(report)
        this.emit('epoch', report)
        const lagging = report.commitUs > this.#options.epochMs * 1000 * laggingEpochs
        this.#enter(lagging ? 'Lagging' : 'Protected', lagging ? tooSlow : '')
      } catch (error) {
        this.stats.addFailed()
        if (!(error instanceof SubpageError) || error.code !== 'PAUSE_BROKEN') throw error
        this.#lag(error.message)
        this.emit('missed', error)
      } finally {
        clearTimeout(late)
      }
      // Waits for the next epoch; a lost connection or an end of protection is noticed at once.
      const rest = this.#options.epochMs - (performance.now() - startedAt)
      if (rest > 0) await delay(rest, undefined, { signal: interrupted }).catch(() => undefined)
      if (session.closed.aborted) throw await session.lost
    }
  }

  get #lateMs(): number {
    return Math.max(lateMsMin, this.#options.epochMs * laggingEpochs)
  }

  /** The standby's newest checkpoint is getting old. */
  #lag(reason: string): void {
    if (this.state === 'Protected') this.#enter('Lagging', reason)
  }

  #enter(state: PrimaryState, reason: string): void {
    if (this.state === state && this.reason === reason) return
    this.state = state
    this.reason = reason
    this.emit('state', state, reason)
  }

  #release(): void {
    this.#protection.tracker.close()
    this.#protection.shadow.close()
  }
}

function trackOrClose(guest: Guest, choice: TrackerChoice, shadow: Region): Tracker {
  try {
    return guest.track(choice)
  } catch (error) {
    shadow.close()
    throw error
  }
}
