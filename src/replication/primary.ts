/**
 * The primary's side of a protection: connects, seeds, takes a checkpoint each epoch, and begins anew after a lost
 * connection. The guest runs on whatever happens here; what it sends waits while a standby could take over a state that
 * does not include it. Without the standby it goes on alone, once the arbiter has granted that.
 */
import { asSubpageError, SubpageError } from '../errors.ts'
import type { Tracker } from '../tracking/tracker.ts'
import { watchArbiter } from './arbiter-watch.ts'
import { checkpoint } from './checkpoint.ts'
import { type DiskTraffic, noTraffic } from './disk-traffic.ts'
import { noDisks } from './disks.ts'
import { frameType } from './frame.ts'
import type { GuestEnd, Pause } from './guest.ts'
import { meet } from './meeting.ts'
import {
  aliveLookMs,
  backlog,
  detachMs,
  farewellMs,
  lateMs,
  nextCheckpoint,
  retryMs,
  tooSlow,
} from './pace.ts'
import { dismiss, leave, letOut, part, reasonOf, staying, unprotect } from './parting.ts'
import { PrimaryCondition } from './primary-condition.ts'
import type { PrimaryOptions } from './primary-options.ts'
import type { PrimarySession } from './primary-session.ts'
import { type Protection, type ProtectionMemory, protectionOf } from './protection.ts'
import { seed } from './seed.ts'
import { leaveDisks, seedDisks } from './seed-disks.ts'
import { SeedProgress } from './seed-progress.ts'
import { sendersOf } from './senders.ts'
import { Speculation } from './speculation.ts'
import { leaveToSpeak } from './speech.ts'
import { assertArbitrated, handOver } from './switchover.ts'
import { Tasks } from './tasks.ts'
import { type Verification, Verifier } from './verifier.ts'
import { whenEnded } from './when-ended.ts'

export class Primary extends PrimaryCondition {
  readonly #options: PrimaryOptions
  readonly #protection: Protection
  readonly #speculation: Speculation
  readonly #stopping = new AbortController()
  readonly #abandoned = new AbortController()
  readonly #tasks = new Tasks()
  readonly #verifier: Verifier
  #epoch = 0
  #detached = false
  /** Over which a standby is connected. */
  #session: PrimarySession | undefined
  /** By command: the standby is asked to give its checkpoint up. */
  #ending = false
  #disksToo = false
  /** A standby may hold a checkpoint: going on without it needs a decision. */
  #exposed: boolean
  /** The pause of a switchover that is under way. */
  #held: Pause | undefined
  /** Settles when it has let go of the guest. */
  finished: Promise<void> = Promise.resolve()
  #failure: SubpageError | undefined
  /** Of each disk. */
  readonly diskTraffic: DiskTraffic[]

  private constructor(options: PrimaryOptions) {
    super(!options.exposed)
    this.#options = options
    this.#exposed = options.exposed
    this.diskTraffic = options.guest.disks.sizes.map(noTraffic)
    const mayRelease = (session: PrimarySession, sentAt: number) =>
      leaveToSpeak(options, sentAt, () => session.probe())
    this.#protection = protectionOf(options, mayRelease)
    this.#verifier = new Verifier(this.#protection, this.#tasks, () => this.#session)
    this.#speculation = new Speculation(this.#protection, options.sending?.speculate ?? 'off')
  }

  /**
   * Resolves once the standby has agreed; seeding and epochs then go on by themselves.
   * @throws SubpageError what the standby refused with, PEER_UNREACHABLE, TRACKER_UNAVAILABLE; nothing is kept then
   */
  static async start(options: PrimaryOptions): Promise<Primary> {
    const primary = new Primary(options)
    try {
      primary.finished = primary.#run(await primary.#open())
    } catch (error) {
      primary.#release()
      throw error
    }
    return primary
  }

  /** After a restart of the supervisor, or a failover: goes on trying until the standby answers. */
  static resume(options: PrimaryOptions): Primary {
    const primary = new Primary(options)
    primary.finished = primary.#run(undefined)
    return primary
  }

  get trackerName(): Tracker['name'] {
    return this.#protection.tracker.name
  }

  /** A standby that is connected right now has a whole checkpoint: it could go on if the guest died. */
  get covered(): boolean {
    const whole = this.state === 'Protected' || this.state === 'Lagging'
    const ending = this.#ending || this.#stopping.signal.aborted
    return whole && !ending && this.#session?.closed.aborted === false
  }

  /** What protecting takes of this host's memory, in bytes. */
  get memory(): ProtectionMemory {
    const { kind, bytes } = this.#protection.shadow
    return { shadow: kind, shadowBytes: bytes, reducerBytes: this.#session?.deltas.memoryBytes ?? 0 }
  }

  get options(): Readonly<PrimaryOptions> {
    return this.#options
  }

  /** Compares the guest's memory with the image, within the next checkpoint, and then its disks while it runs. */
  verify(): Promise<Verification> {
    return this.#verifier.verify()
  }

  /** What it has found last. */
  get verified(): Verifier['found'] {
    return this.#verifier.found
  }

  /** Moves the guest to the standby. @throws SubpageError ARBITER_UNREACHABLE without an arbiter, NOT_PROTECTED */
  async switchover(): Promise<void> {
    const { succession, guest } = this.#options
    assertArbitrated(succession)
    await this.#tasks.add<void>(async (session, epoch, done) => {
      await handOver(this.#protection, session, epoch, (pause) => {
        this.#held = pause
      })
      this.#held = undefined
      guest.supersede('switched over to the standby')
      done()
      return undefined
    })
  }

  /**
   * Ends the protection; the standby is told to discard its copy. The guest runs on.
   * @param disksToo its copies of the disks that were made for it go, too, if it can be told
   * @returns where copies of the disks stay
   * @throws SubpageError ARBITER_UNREACHABLE when the standby could still take over; the protection goes on then; GUEST_DIED
   */
  async stop(disksToo = false): Promise<string[]> {
    // What could not be let out then may be now.
    if (this.#failure) {
      await letOut(this.#options.guest, this.#held)
      return staying(this.copies, false)
    }
    this.#ending = true
    this.#disksToo = disksToo
    const until = this.#options.clock.now() + farewellMs
    const [session, tasks, stopping] = [this.#session, this.#tasks, this.#stopping]
    const all = { ...this.#options, session, exposed: () => this.#exposed, stopping, tasks, disksToo }
    const told = await dismiss(all).finally(() => {
      this.#ending = false
    })
    const relax = this.#options.clock.after(until - this.#options.clock.now(), () => this.#abandoned.abort())
    await this.finished.finally(relax)
    if (this.#failure) throw this.#failure
    return staying(this.copies, told && disksToo)
  }

  /** Ends this object, not the protection: another one, of the next supervisor, goes on with it. No pause is left open. */
  async detach(): Promise<void> {
    this.#detached = true
    this.#stopping.abort()
    const relax = this.#options.clock.after(this.#session ? detachMs : 0, () => this.#abandoned.abort())
    await this.finished.finally(relax)
  }

  #open(): Promise<PrimarySession> {
    const { sending = {} } = this.#options
    return meet({
      options: this.#options,
      exposed: this.#exposed,
      stopping: this.#stopping.signal,
      abandoned: this.#abandoned.signal,
      senders: (connection) => sendersOf(connection, this.#protection, sending, this.diskTraffic),
    })
  }

  /** Never rejects: what it cannot go on with is a state. */
  async #run(first: PrimarySession | undefined): Promise<void> {
    const { guest, clock, succession } = this.#options
    const stopping = this.#stopping.signal
    let session = first
    let end: GuestEnd | undefined
    void watchArbiter(this.#options, stopping, {
      session: () => this.#session,
      exposed: () => this.#exposed,
      found: (dispute, newer) => {
        this.dispute = dispute
        // Before it goes on with another standby it asks.
        this.#exposed ||= newer
      },
    })
    const ended = whenEnded(guest.ended, async (how) => {
      end = how
      // The standby acts on this, so it goes out before anything else is tidied up.
      await session?.connection.sendJson(frameType.guestEnded, how).catch(() => undefined)
      this.#stopping.abort()
    })
    try {
      while (!stopping.aborted) {
        try {
          session ??= await this.#open()
          this.#session = session
          this.copies = session.welcome.disks
          await this.#serve(session)
        } catch (error) {
          this.#session = undefined
          // The connection stays open for the word that it has ended. A hypervisor that is ending refuses commands.
          while (!guest.alive && !end) await Promise.race([ended.done, clock.sleep(aliveLookMs)])
          if (end) await ended.done
          else if (!stopping.aborted) await this.#lost(session, asSubpageError(error))
        }
        if (stopping.aborted) break
        session?.release()
        session = undefined
        await clock.sleep(retryMs, stopping)
      }
      if (end) await ended.done
      else {
        const bidFarewell = this.#detached ? leave : unprotect
        const what = { guest, succession, exposed: this.#exposed, disksToo: this.#disksToo }
        await bidFarewell(what, session?.connection, this.#held)
      }
      await session?.connection.finish()
    } catch (error) {
      this.#failure = asSubpageError(error)
      this.enter('Failed', this.#failure.message)
    } finally {
      ended.forget()
      session?.release()
      await leaveDisks(guest)
      this.#tasks.end()
      this.#release()
    }
  }

  async #serve(session: PrimarySession): Promise<void> {
    const { guest, clock, pace, limits } = this.#options
    const stopping = this.#stopping.signal
    await this.#seed(session, true)
    const interrupted = AbortSignal.any([stopping, session.closed])
    while (!stopping.aborted) {
      if (this.#protection.pending.unsynced.pageCount > limits.wholePages) await this.#seed(session, false)
      if (stopping.aborted) return
      const startedAt = clock.now()
      const pauseUs = await this.#epochOf(session)
      // A lost connection or an end of protection is noticed at once.
      const due = nextCheckpoint(pace, guest, clock, startedAt, pauseUs, interrupted)
      // A link that does not take what is sent early delays the checkpoint, too.
      const inTime = clock.after(pace.epochMs + lateMs(pace), () => this.lag(tooSlow))
      await this.#speculation
        .during(session, this.#epoch + 1, startedAt, pace.epochMs, due, interrupted)
        .finally(inTime)
      if (session.closed.aborted) throw await session.lost
    }
  }

  /** @param anew over another connection; otherwise a backlog is brought up that is too much for a pause */
  async #seed(session: PrimarySession, anew: boolean): Promise<void> {
    const { guest, outputs, clock } = this.#options
    const { signal } = this.#stopping
    this.enter('Seeding', anew ? '' : backlog)
    const forgotten = async () => {
      if (!this.#exposed) return
      this.#exposed = false
      await letOut(guest, undefined)
      this.goOn(true)
    }
    const progress = new SeedProgress(clock, anew ? guest.disks : noDisks, guest.ram.bytes)
    this.progress = progress
    if (anew) await seedDisks(guest.disks, session, { signal, next: this.#epoch + 1, forgotten })
    const ahead = this.#exposed ? forgotten : undefined
    await seed(this.#protection, session, { anew, signal, forgotten: ahead, progress })
    session.sentBytesAtCommit = session.connection.bytesSent
    if (signal.aborted) return
    this.emit('seeded', progress.figures)
    if (outputs === 'held') await guest.holdOutputs()
    // From the next commit on the standby can take over.
    this.#exposed = true
  }

  /** One checkpoint, or a task in its place. Returns the length of its pause. */
  async #epochOf(session: PrimarySession): Promise<number> {
    const { clock, pace } = this.#options
    const epoch = ++this.#epoch
    const take = this.#tasks.next() ?? ((s, e) => checkpoint(this.#protection, s, e))
    const inTime = clock.after(lateMs(pace), () => this.lag(tooSlow))
    try {
      const report = await take(session, epoch)
      if (!report) return 0
      this.goOn(false)
      this.stats.add(report, clock.now())
      this.#speculation.learn(report.early, report.again, report.sentBytes)
      this.emit('epoch', report)
      const lagging = report.commitUs > lateMs(pace) * 1000
      this.enter(lagging ? 'Lagging' : 'Protected', lagging ? tooSlow : '')
      return report.pauseUs
    } catch (error) {
      this.stats.addFailed()
      if (!(error instanceof SubpageError) || error.code !== 'PAUSE_BROKEN') throw error
      // Nothing of it was sent but what went early: the next attempt completes it.
      this.#epoch--
      this.lag(error.message)
      this.emit('missed', error)
      return 0
    } finally {
      inTime()
    }
  }

  /** The connection is gone, or the standby refuses. */
  async #lost(session: PrimarySession | undefined, why: SubpageError): Promise<void> {
    session?.connection.close()
    if (this.state !== 'Connecting') this.enter('Connecting', why.message)
    const decision = await part({
      ...this.#options,
      why,
      session,
      exposed: this.#exposed,
      stopping: this.#stopping.signal,
      waiting: (reason) => this.enter('Connecting', reason),
    })
    if (decision !== 'alone') return
    this.enter('Connecting', reasonOf(why))
    this.#exposed = false
    await letOut(this.#options.guest, this.#held)
    this.#held = undefined
    this.goOn(true)
  }

  #release(): void {
    this.#protection.tracker.close()
    this.#protection.shadow.close()
  }
}
