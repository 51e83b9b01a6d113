/**
 * The primary's side of a protection: connects, seeds, takes a checkpoint each epoch, and begins anew after a lost
 * connection. The guest runs on whatever happens here; what it sends waits while a standby could take over a state that
 * does not include it. Without the standby it goes on alone, once the arbiter has granted that.
 */
import { asSubpageError, BrokenInvariant, endProcess, type SubpageError } from '../errors.ts'
import { watchArbiter } from './arbiter-watch.ts'
import { checkpoint, isMissed } from './checkpoint.ts'
import { type DiskTraffic, noTraffic } from './disk-traffic.ts'
import { noDisks } from './disks.ts'
import { bidFarewell, dismiss, layDown, letOut, staying } from './farewell.ts'
import type { GuestEnd, Pause } from './guest.ts'
import { shakeHands } from './handshake.ts'
import { decideAlone, reasonOf } from './lost-standby.ts'
import { hasGivenUp, Misfit, untilFits } from './misfit.ts'
import { Operations } from './operations.ts'
import { leaseOutput } from './output-lease.ts'
import {
  aliveLookMs,
  backlog,
  detachMs,
  farewellMs,
  lateMs,
  longestMs,
  nextCheckpoint,
  retryMs,
  tooSlow,
} from './pace.ts'
import { PrimaryCondition } from './primary-condition.ts'
import type { PrimaryOptions } from './primary-options.ts'
import type { PrimarySession } from './primary-session.ts'
import { memoryOf, type Protection, type ProtectionMemory, protectionOf } from './protection.ts'
import { seed } from './seed.ts'
import { leaveDisks, seedDisks } from './seed-disks.ts'
import { SeedProgress } from './seed-progress.ts'
import { sendersOf } from './senders.ts'
import { Speculation } from './speculation.ts'
import { Tasks } from './tasks.ts'
import type { Verification } from './verifier.ts'
import { whenEnded } from './when-ended.ts'

export class Primary extends PrimaryCondition {
  readonly #options: PrimaryOptions
  readonly #protection: Protection
  readonly #speculation: Speculation
  readonly #abandoned = new AbortController()
  readonly #tasks = new Tasks()
  readonly operations: Operations
  #epoch = 0
  /** Over which a standby is connected. */
  #session: PrimarySession | undefined
  /** Ends by command: one at a time. */
  #stops: Promise<unknown> = Promise.resolve()
  #disksToo = false
  /** The pause of a switchover that is under way. */
  #held: Pause | undefined
  /** Settles when it has let go of the guest. */
  finished: Promise<void> = Promise.resolve()
  #failure: SubpageError | undefined
  /** Of each disk. */
  readonly diskTraffic: DiskTraffic[]

  private constructor(options: PrimaryOptions) {
    super(options.exposed)
    this.#options = options
    this.diskTraffic = options.guest.disks.sizes.map(noTraffic)
    const mayRelease = (session: PrimarySession, sentAt: number) =>
      leaseOutput(options, sentAt, () => session.probe())
    this.#protection = protectionOf(options, mayRelease)
    this.operations = new Operations({
      ...{ protection: this.#protection, succession: options.succession, tasks: this.#tasks },
      session: () => this.#session,
      held: (pause) => {
        this.#held = pause
        if (pause) this.machine.change('hand over', this.why)
      },
    })
    this.#speculation = new Speculation(this.#protection, options.sending?.speculate ?? 'off')
  }

  /**
   * Resolves once the standby has agreed; seeding and epochs then go on by themselves.
   * @throws SubpageError what the standby refused with, PEER_UNREACHABLE, TRACKER_UNAVAILABLE; nothing is kept then
   */
  static async start(options: PrimaryOptions): Promise<Primary> {
    const primary = new Primary(options)
    primary.operations.protecting = true
    try {
      primary.finished = primary.#run(await primary.#open(true))
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

  get tracking(): Pick<Protection, 'tracker' | 'hot'> {
    return this.#protection
  }

  /** A standby that is connected right now has a whole checkpoint: it could go on if the guest died. */
  get covered(): boolean {
    return this.machine.covered && this.#session?.closed.aborted === false
  }

  /** What protecting takes of this host's memory, in bytes. */
  get memory(): ProtectionMemory {
    return memoryOf(this.#protection, this.#session)
  }

  get options(): Readonly<PrimaryOptions> {
    return this.#options
  }

  /** Compares the guest's memory with the image, within the next checkpoint, and then its disks while it runs. */
  verify(): Promise<Verification> {
    return this.operations.verify()
  }

  /** What it has found last. */
  get verified(): Operations['verified'] {
    return this.operations.verified
  }

  switchover(): Promise<void> {
    return this.operations.switchover()
  }

  /**
   * Ends the protection; the standby is told to discard its copy. The guest runs on.
   * @param disksToo its copies of the disks that were made for it go, too, if it can be told
   * @returns where copies of the disks stay
   * @throws SubpageError ARBITER_UNREACHABLE when the standby could still take over; the protection goes on then; GUEST_DIED
   */
  stop(disksToo = false): Promise<string[]> {
    const stop = () => this.#stop(disksToo)
    const stopped = this.#stops.then(stop, stop)
    this.#stops = stopped
    return stopped
  }

  async #stop(disksToo: boolean): Promise<string[]> {
    // What could not be let out then may be now.
    if (this.#failure) {
      await letOut(this.#options.guest, this.#held)
      return staying(this.copies, false)
    }
    const { machine } = this
    if (machine.allows('dismiss')) machine.fire('dismiss')
    this.#disksToo = disksToo
    const until = this.#options.clock.now() + farewellMs
    const [session, tasks] = [this.#session, this.#tasks]
    const told = await dismiss({ ...this.#options, session, machine, tasks, disksToo }).finally(() => {
      if (machine.allows('keep')) machine.fire('keep')
    })
    const relax = this.#options.clock.after(until - this.#options.clock.now(), () => this.#abandoned.abort())
    await this.finished.finally(relax)
    if (this.#failure) throw this.#failure
    return staying(this.copies, told && disksToo)
  }

  /** Ends this object, not the protection: another one, of the next supervisor, goes on with it. No pause is left open. */
  async detach(): Promise<void> {
    this.machine.fire('leave')
    const relax = this.#options.clock.after(this.#session ? detachMs : 0, () => this.#abandoned.abort())
    await this.finished.finally(relax)
  }

  #open(once: boolean): Promise<PrimarySession> {
    const [options, machine] = [this.#options, this.machine]
    return shakeHands({
      ...{ options, machine, once },
      lineages: this.#protection.lineages,
      abandoned: this.#abandoned.signal,
      senders: (connection) => sendersOf(connection, this.#protection, options.sending, this.diskTraffic),
    })
  }

  /** Never rejects: what it cannot go on with is a state. */
  async #run(first: PrimarySession | undefined): Promise<void> {
    const { machine } = this
    const { guest, clock, succession } = this.#options
    const [{ stopping }, { memory }] = [machine, this.#protection]
    let session = first
    let end: GuestEnd | undefined
    void watchArbiter(this.#options, {
      machine,
      session: () => this.#session,
      found: (dispute) => {
        this.dispute = dispute
      },
    })
    const ended = whenEnded(guest.ended, async (how) => {
      end = how
      // The standby acts on this, so it goes out before anything else is tidied up.
      const told = layDown(how, { session, succession, exposed: machine.exposed, clock })
      machine.fire('guest ended')
      await told.then((trouble) => trouble && this.emit('missed', trouble))
    })
    try {
      while (!stopping.aborted) {
        try {
          session ??= await this.#open(false)
          this.#session = session
          this.copies = session.welcome.disks
          this.peerHost = session.welcome.host
          if (!stopping.aborted) await this.#serve(session).finally(() => memory.checkpointing(false))
        } catch (error) {
          if (error instanceof BrokenInvariant) throw error
          this.#session = undefined
          if (machine.connected) machine.fire('lose')
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
        const farewell = { guest, succession, machine, disksToo: this.#disksToo }
        await bidFarewell(farewell, session?.connection, this.#held)
      }
      await session?.connection.finish()
    } catch (error) {
      this.#failure = asSubpageError(error)
      machine.change('fail', this.#failure)
      if (error instanceof BrokenInvariant) endProcess(error)
    } finally {
      ended.forget()
      if (machine.allows('over')) machine.fire('over')
      session?.release()
      await leaveDisks(guest)
      this.#tasks.end()
      this.#release()
    }
  }

  async #serve(session: PrimarySession): Promise<void> {
    const { guest, clock, pace, limits } = this.#options
    const { stopping } = this.machine
    this.machine.change('connect', undefined)
    // It is ours again: a switchover has not taken place.
    await this.#held?.resume()
    this.#held = undefined
    await this.#seed(session, true)
    const interrupted = AbortSignal.any([stopping, session.closed])
    while (!stopping.aborted) {
      if (this.#protection.pending.unsynced.pageCount > limits.wholePages) {
        this.machine.change('fall behind', backlog)
        await this.#seed(session, false)
      }
      if (stopping.aborted) return
      const startedAt = clock.now()
      const atLeastMs = this.stats.shortestMs(pace, await this.#epochOf(session))
      const epochMs = longestMs(pace, atLeastMs)
      const due = nextCheckpoint(pace, guest, clock, startedAt, atLeastMs, interrupted)
      // A link that does not take what is sent early delays the checkpoint, too.
      const inTime = clock.after(epochMs + lateMs(pace), () => this.lag(tooSlow))
      await this.#speculation
        .during(session, this.#epoch + 1, startedAt, epochMs, due, interrupted)
        .finally(inTime)
      if (session.closed.aborted) throw await session.lost
    }
  }

  /** @param anew over another connection; otherwise a backlog is brought up that is too much for a pause */
  async #seed(session: PrimarySession, anew: boolean): Promise<void> {
    const [machine, signal] = [this.machine, this.machine.stopping]
    const { guest, outputs, clock } = this.#options
    const forgotten = async () => {
      if (!machine.exposed) return
      machine.fire('forget')
      await letOut(guest, undefined)
      machine.show(this.why)
    }
    const progress = new SeedProgress(clock, anew ? guest.disks : noDisks, guest.ram.bytes)
    this.progress = progress
    if (anew) await seedDisks(this.#protection, session, { signal, next: this.#epoch + 1, forgotten })
    const ahead = machine.exposed ? forgotten : undefined
    await seed(this.#protection, session, { anew, signal, forgotten: ahead, progress })
    session.sentBytesAtCommit = session.connection.bytesSent
    if (signal.aborted) return
    this.emit('seeded', progress.figures)
    if (outputs === 'held') await guest.holdOutputs()
    this.#protection.memory.checkpointing(true)
    if (!signal.aborted) machine.fire('seeded')
  }

  /** One checkpoint, or a task in its place. Returns what it has cost the guest, microseconds. */
  async #epochOf(session: PrimarySession): Promise<number> {
    const { clock, pace } = this.#options
    const epoch = ++this.#epoch
    // A task does without what the first checkpoint settles: whether the standby can take over.
    const task = this.machine.covered ? this.#tasks.next() : undefined
    const take = task ?? ((s, e) => checkpoint(this.#protection, s, e))
    const inTime = clock.after(lateMs(pace), () => this.lag(tooSlow))
    try {
      const report = await take(session, epoch)
      if (!report) return 0
      this.operations.protecting = false
      this.stats.add(report, clock.now())
      this.#speculation.learn(report.early, report.again, report.sentBytes)
      if (report.commitUs > lateMs(pace) * 1000) this.machine.change('commit late', tooSlow)
      else this.machine.change('commit', undefined)
      this.emit('epoch', report)
      return report.pauseUs + report.faultUs
    } catch (error) {
      this.stats.addFailed()
      if (!isMissed(error)) throw error
      // Nothing of it was sent but what went early: the next attempt completes it.
      this.#epoch--
      this.lag(error)
      this.emit('missed', error)
      return 0
    } finally {
      inTime()
    }
  }

  /** The connection is gone, or the standby refuses. */
  async #lost(session: PrimarySession | undefined, why: SubpageError): Promise<void> {
    const { machine } = this
    if (await hasGivenUp(why, session, this.#options.clock)) machine.fire('go alone')
    session?.connection.close()
    if (this.state !== 'Connecting') machine.show(why)
    if ((await decideAlone({ ...this.#options, why, session, machine })) !== 'alone') return
    machine.fire('go alone')
    await letOut(this.#options.guest, this.#held)
    this.#held = undefined
    machine.show(reasonOf(why))
    if (why instanceof Misfit)
      await untilFits(this.#options, why, machine.stopping, (now) => this.differ(now))
  }

  #release(): void {
    this.#protection.tracker.close()
    this.#protection.shadow.close()
  }
}
