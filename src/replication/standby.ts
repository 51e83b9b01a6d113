/**
 * The standby's side of a protection. It keeps the image, which is at every moment one whole checkpoint: the frames of
 * the next one are held beside it, verified, acknowledged when complete, and only then applied. It takes over when the
 * guest has died, or when the primary is silent and the arbiter grants the next generation: finish applying, load the
 * device state, run.
 */
import { EventEmitter } from 'node:events'
import { isDeepStrictEqual } from 'node:util'
import { asSubpageError, invariant, type Reason, SubpageError } from '../errors.ts'
import { sameHost } from './claimant.ts'
import type { Connection } from './connection.ts'
import { absenceMsMax, FailoverMonitor, handBack } from './failover-monitor.ts'
import { type Frame, frameType } from './frame.ts'
import type { GuestEnd } from './guest.ts'
import { Heartbeat } from './heartbeat.ts'
import { answer, welcomeOf } from './image-answers.ts'
import { type Committed, ImageKeeper } from './image-keeper.ts'
import { alsoDisks, brokeProtocol, decodeCommit, Ended, type Hello, readJson } from './messages.ts'
import { OutputLease } from './output-lease.ts'
import { reduces } from './sending.ts'
import type {
  Discard,
  StandbyEvents,
  StandbyOptions,
  StandbyOutcome,
  StandbyState,
} from './standby-options.ts'
import { type StandbyChange, StandbyMachine } from './standby-state.ts'
import type { Succession } from './succession.ts'
import { assertTakeable, granted, nothingToTakeOver, runHere, runsHere, type Takeover } from './takeover.ts'
import { watchWork } from './work-watch.ts'

export class Standby extends EventEmitter<StandbyEvents> {
  readonly #options: StandbyOptions
  readonly #machine = new StandbyMachine((state, why) => this.emit('state', state, why?.message ?? ''))
  readonly #keeper: ImageKeeper
  readonly #outputLease: OutputLease
  #hello: Hello
  #connection: Connection | undefined
  /** Of the end, once it was begun. */
  #outcome: Promise<StandbyOutcome> | undefined
  #monitor: FailoverMonitor | undefined
  /** Failovers by command: one at a time. */
  #deciding: Promise<unknown> = Promise.resolve()
  /** The primary has said that its supervisor leaves, for at most this long. */
  #absenceMs = 0
  #serving: Promise<void> = Promise.resolve()

  constructor(options: StandbyOptions) {
    super()
    this.#options = options
    this.#hello = options.hello
    this.#outputLease = new OutputLease(options.clock)
    this.#keeper = new ImageKeeper(options.image, options.faults, this.#machine, options)
  }

  get committed(): Pick<Committed, 'epoch' | 'consoleBytes'> | undefined {
    const c = this.#machine.outdated ? undefined : this.#keeper.checkpoint
    return c && { epoch: c.epoch, consoleBytes: c.consoleBytes }
  }

  get state(): StandbyState {
    return this.#machine.label
  }

  get why(): Reason | undefined {
    return this.#machine.why
  }

  get connected(): boolean {
    return this.#connection !== undefined
  }

  /** True once its end was begun, well or not: it took over, was discarded, or failed in that. */
  get ending(): boolean {
    return this.#machine.ending
  }

  /** Its end was begun, and is that nobody needs it any more. */
  get discarding(): boolean {
    return this.#machine.state === 'discarding'
  }

  get guestName(): string {
    return this.#hello.guest.name
  }

  get succession(): Pick<Succession, 'claimant' | 'arbiter' | 'generation'> {
    return this.#options.succession
  }

  /** What the primary said of itself and the protection. */
  get hello(): Hello {
    return this.#hello
  }

  /** Whether a primary that connects anew speaks for the same guest, in this generation or a newer one. */
  belongsTo({ guest, generation }: Hello): boolean {
    return isDeepStrictEqual(guest, this.#hello.guest) && generation >= this.succession.generation
  }

  /**
   * Serves one connection to its end; one at a time: the primary knows best that its former one is of no use any more.
   * @param arbitrated whether both hosts see the same arbiter
   */
  async serve(
    connection: Connection,
    frames: AsyncIterator<Frame>,
    hello: Hello,
    arbitrated: boolean,
  ): Promise<void> {
    this.#connection?.fail('the primary connected anew')
    const serve = () => this.#serve(connection, frames, hello, arbitrated)
    // How the former one ended was told to it.
    this.#serving = this.#serving.then(serve, serve)
    await this.#serving
  }

  async #serve(...[connection, frames, hello, arbitrated]: Parameters<Standby['serve']>): Promise<void> {
    const { succession } = this.#options
    invariant(!sameHost(hello.source.claimant, succession.claimant), 'no host is its own standby')
    this.#connection = connection
    // A claim that is on its way decides first whether there is anything left to serve.
    await this.#monitor?.end()
    if (this.ending) return await this.#part(connection)
    const image = this.#machine.state === 'new' ? 'fresh' : 'held'
    this.#hello = hello
    const written = [succession.agree(hello.source.claimant, arbitrated)]
    if (hello.generation > this.succession.generation) {
      // The primary went on without us since: what we hold is no state to take over.
      this.#keeper.forgetCheckpoint()
      written.push(succession.adopt(hello.generation))
    } else written.push(succession.settleClaim())
    this.#machine.change('connect', undefined)
    let welcomed = false
    // Before the welcome neither side says anything: a slow disk is no silence. A connection that fails says so to its reader.
    const beat = () => welcomed && void connection.send(frameType.heartbeat).catch(() => undefined)
    const heartbeat = new Heartbeat(this.#options.clock, hello.settings.suspicionMs, beat, () =>
      connection.fail(`the primary was silent for ${hello.settings.suspicionMs} ms`),
    )
    connection.onInput = () => heartbeat.heard()
    this.#absenceMs = 0
    let reason = 'the primary closed the connection'
    try {
      await heartbeat.during(Promise.all([...written, this.#keeper.prepare(hello.settings)]))
      this.#keeper.begin(reduces(hello.settings), hello.settings.durability, hello.lineages)
      welcomed = true
      await connection.sendJson(frameType.welcome, { ...welcomeOf(this.#options, image), arbitrated })
      for (let next = await frames.next(); !next.done; next = await frames.next()) {
        // Once the end has begun the image belongs to it: what arrives now is too late.
        if (this.ending) break
        const watch = { clock: this.#options.clock, machine: this.#machine, connection }
        await heartbeat.during(watchWork(watch, next.value, this.#receive(connection, next.value)))
        if (next.value.type === frameType.commit) heartbeat.seeded()
      }
    } catch (error) {
      const refused = asSubpageError(error)
      reason = refused.message
      await connection.refuse(refused)
    } finally {
      if (this.#absenceMs > 0) reason = "the primary's supervisor was stopped"
      heartbeat.stop()
      if (!this.ending) connection.close()
      // The next connection must not write to the image before this one has.
      await this.#keeper.settle()
      this.#keeper.close()
      this.#connection = undefined
    }
    if (this.ending) return await this.#part(connection)
    this.#machine.fire('lose')
    this.#watchPrimary(reason, heartbeat.heardAt)
  }

  /**
   * Failover by command.
   * @param force the caller knows that the primary, and its guest, are gone: then it is taken over also without an arbiter's
   *   answer, against a decision for the primary, and from a checkpoint that is outdated
   * @throws SubpageError STANDBY_NOT_READY, HELD_ELSEWHERE, ARBITER_UNREACHABLE
   */
  failover(reason: string, force: boolean): Promise<StandbyOutcome> {
    const decide = () => this.#failover(reason, force)
    const decided = this.#deciding.then(decide, decide)
    this.#deciding = decided
    return decided
  }

  async #failover(reason: string, force: boolean): Promise<StandbyOutcome> {
    if (this.#outcome) return await this.#outcome
    const { succession } = this.#options
    assertTakeable(this, this.#machine, succession, force)
    this.#machine.change('ask', this.why)
    try {
      const unasked = !(succession.arbitrated && (await granted(succession, this.guestName, force)))
      // It was ended meanwhile, which gives back what was granted.
      if (this.#outcome) return await this.#outcome
      if (!this.#machine.allows(force ? 'force' : 'take over')) {
        await handBack(this.#options)
        throw nothingToTakeOver(this, this.#machine.outdated)
      }
      if (force) this.#outputLease.waive()
      // Begins before anything else can happen to the image.
      return await this.#takeOver(reason, { unasked, force })
    } finally {
      if (this.#machine.allows('answer')) this.#machine.change('answer', this.why)
    }
  }

  /** Also possible after a failed takeover, of which nothing can be saved. */
  discard(reason: string, { announce, disksToo = false }: Discard = {}): Promise<StandbyOutcome> {
    if (this.#machine.state === 'failed') this.#outcome = undefined
    return this.#end('discard', async () => {
      await announce?.()
      await this.#keeper.leaveDisks()
      await this.#options.guest.discard(disksToo)
      await handBack(this.#options)
      this.#machine.change('gone', this.why)
      return { how: 'discarded', reason }
    })
  }

  async #receive(connection: Connection, frame: Frame): Promise<void> {
    const undecided = () => this.#machine.assertUndecided('seed', this.guestName)
    switch (frame.type) {
      case frameType.heartbeat:
        return frame.epoch > 0 ? await this.#outputLease.give(connection, frame.type, frame.epoch) : undefined
      case frameType.pages:
      case frameType.raw:
      case frameType.reduced:
        if (frame.epoch > 0) return await this.#keeper.hold(frame.epoch, frame.payload, frame.type)
        return await this.#keeper.seed(frame.payload, frame.type, undecided)
      case frameType.disk:
        if (frame.epoch > 0) return await this.#keeper.holdDisk(frame.epoch, frame.payload)
        return await this.#keeper.seedDisk(frame.payload, undecided)
      case frameType.device:
        return this.#keeper.holdDevice(frame.epoch, frame.payload)
      case frameType.commit:
        await this.#keeper.commit(frame.epoch, decodeCommit(frame.payload), () =>
          this.#outputLease.give(connection, frameType.ack, frame.epoch),
        )
        return this.#machine.explain(undefined)
      case frameType.guestEnded:
        return this.#sourceEnded(connection, readJson(Ended, frame.payload, 'the end of the guest'))
      case frameType.handover:
        return await this.#handover(connection, frame.epoch)
      case frameType.leave:
        this.#absenceMs = Math.min(frame.epoch, absenceMsMax)
        return
      case frameType.unprotect:
        this.#machine.assertUndecided('unprotect', this.guestName)
        return this.#giveUp(connection, 'the primary ended the protection', frame.epoch === alsoDisks)
      case frameType.lineage:
        return this.#keeper.lineages.renew(frame.epoch - 1, frame.payload)
      case frameType.askHashes:
      case frameType.askPage:
      case frameType.askChanges:
        return await answer(connection, this.#options, this.#keeper.lineages, frame)
      default:
        throw brokeProtocol(`a primary does not send frame type ${frame.type}`)
    }
  }

  /** The primary says so itself: its guest is gone, so nobody has to be asked whether it may be taken over. */
  #sourceEnded(connection: Connection, end: GuestEnd): void {
    if (end.how === 'died' && this.#machine.whole) {
      this.#outputLease.waive()
      void this.#takeOver(`the guest died: ${end.detail}`, { unasked: true })
    } else this.#giveUp(connection, `the guest ended: ${end.detail}`, false)
  }

  /** The primary waits for the word that we do not take over. */
  #giveUp(connection: Connection, reason: string, disksToo: boolean): void {
    void this.discard(reason, { announce: () => connection.sendLast(frameType.dismissed), disksToo })
  }

  /** A switchover: the guest stands still over there, in the checkpoint that we hold. */
  async #handover(connection: Connection, epoch: number): Promise<void> {
    if (!this.#machine.whole || this.#keeper.checkpoint?.epoch !== epoch)
      throw brokeProtocol('it hands over what it has not committed')
    // Should our answer be lost, the arbiter tells the primary.
    const holder = await this.#options.succession.claim()
    if (holder) throw new SubpageError('HELD_ELSEWHERE', `${holder.claimant} goes on with ${this.guestName}`)
    this.#outputLease.waive()
    await this.#takeOver('switched over from the primary', {
      announce: () => connection.send(frameType.tookOver, epoch),
    })
  }

  #watchPrimary(reason: string, heardAt: number): void {
    const { sourceFate, succession, clock } = this.#options
    this.#monitor = new FailoverMonitor({
      clock,
      succession,
      settings: this.#hello.settings,
      heardAt,
      reason,
      absenceMs: this.#absenceMs,
      sourceFate: () => sourceFate(this.#hello),
      committed: () => this.#machine.whole,
      say: (why) => this.#machine.explain(why),
      takeOver: (why) => void this.#takeOver(why),
      discard: (why) => void this.discard(why),
      outdated: () => this.#keeper.forgetCheckpoint(),
    })
  }

  #takeOver(reason: string, how: Takeover = {}): Promise<StandbyOutcome> {
    return this.#end(how.force ? 'force' : 'take over', async () => {
      const ran = runHere(this.#options, this.#keeper, this.#outputLease, this.#hello, how)
      const tookOver = await ran.catch(async (error) => {
        // What it was granted and could not use goes back: the primary, which waits for that, goes on.
        await this.#monitor?.end()
        await handBack(this.#options)
        throw error
      })
      this.#machine.change('run', this.why)
      // The guest runs here whether or not that arrives.
      await how.announce?.().catch(() => undefined)
      return { ...tookOver, reason }
    })
  }

  /** There is one end: the first that is asked for; whoever asks again gets the same. */
  #end(change: StandbyChange, run: () => Promise<StandbyOutcome>): Promise<StandbyOutcome> {
    if (!this.#outcome) {
      this.#machine.change(change, this.why)
      void this.#monitor?.end()
      this.#outcome = run()
      this.#outcome.then(
        (outcome) => {
          this.emit('outcome', outcome)
          if (this.#connection) void this.#part(this.#connection)
        },
        (error) => {
          this.#machine.change('fail', asSubpageError(error))
          this.#connection?.close()
        },
      )
    }
    return this.#outcome
  }

  /** Our end has begun while the primary was connected: it learns which. */
  async #part(connection: Connection): Promise<void> {
    // What a takeover failed of is in the state.
    const outcome = await this.#outcome?.catch(() => undefined)
    if (outcome?.how === 'took-over' && !connection.closed)
      await connection.refuse(runsHere(this.guestName, this.#options.succession))
    connection.close()
  }
}
