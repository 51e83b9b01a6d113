/**
 * The standby's side of a protection. It keeps the image, which is at every moment one whole checkpoint: the frames of
 * the next one are held beside it, verified, acknowledged when complete, and only then applied. It takes over when the
 * guest has died, or when the primary is silent and the arbiter grants the next generation: finish applying, load the
 * device state, run.
 */
import { EventEmitter } from 'node:events'
import { isDeepStrictEqual } from 'node:util'
import { asSubpageError, invariant, SubpageError } from '../errors.ts'
import { release } from '../release.ts'
import { sameHost } from './claimant.ts'
import type { Connection } from './connection.ts'
import { type Frame, frameType } from './frame.ts'
import type { GuestEnd } from './guest.ts'
import { sendHashes, sendPage } from './image-answers.ts'
import { type Committed, ImageKeeper } from './image-keeper.ts'
import { brokeProtocol, decodeCommit, Ended, type Hello, readJson } from './messages.ts'
import { Pulse } from './pulse.ts'
import { reduces } from './sending.ts'
import { Promises } from './speech.ts'
import type { StandbyEvents, StandbyOptions, StandbyOutcome, StandbyState } from './standby-options.ts'
import { granted, nothingToTakeOver, runHere, runsHere, type Takeover } from './takeover.ts'
import { absenceMsMax, handBack, Vigil } from './vigil.ts'

export class Standby extends EventEmitter<StandbyEvents> {
  readonly #options: StandbyOptions
  readonly #keeper: ImageKeeper
  readonly #promises: Promises
  #hello: Hello
  #connection: Connection | undefined
  #outcome: Promise<StandbyOutcome> | undefined
  #vigil: Vigil | undefined
  #served = false
  /** A failover by command waits for the arbiter. */
  #deciding = false
  /** The primary has said that its supervisor leaves, for at most this long. */
  #absenceMs = 0
  #serving: Promise<void> = Promise.resolve()
  state: StandbyState = 'Seeding'
  reason = ''

  constructor(options: StandbyOptions) {
    super()
    this.#options = options
    this.#hello = options.hello
    this.#promises = new Promises(options.clock)
    this.#keeper = new ImageKeeper(options.image, options.faults, options.disks)
  }

  get committed(): Omit<Committed, 'deviceState'> | undefined {
    const c = this.#keeper.committed
    return c && { epoch: c.epoch, consoleBytes: c.consoleBytes }
  }

  get connected(): boolean {
    return this.#connection !== undefined
  }

  /** True once its end was begun, well or not: it took over, was discarded, or failed in that. */
  get ending(): boolean {
    return this.#outcome !== undefined
  }

  get guestName(): string {
    return this.#hello.guest.name
  }

  get generation(): number {
    return this.#options.succession.generation
  }

  get claimant(): string {
    return this.#options.succession.claimant
  }

  get arbiter(): string | null {
    return this.#options.succession.arbiter
  }

  /** What the primary said of itself and the protection. */
  get hello(): Hello {
    return this.#hello
  }

  /** Whether a primary that connects anew speaks for the same guest, in this generation or a newer one. */
  belongsTo({ guest, generation }: Hello): boolean {
    return isDeepStrictEqual(guest, this.#hello.guest) && generation >= this.generation
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
    await this.#vigil?.end()
    if (this.#outcome) return await this.#part(connection)
    this.#hello = hello
    const written = [succession.agree(hello.source.claimant, arbitrated)]
    if (hello.generation > this.generation) {
      // The primary went on without us since: what we hold is no state to take over.
      this.#keeper.forgetCheckpoint()
      written.push(succession.adopt(hello.generation))
    }
    let welcomed = false
    // Before the welcome neither side says anything: a slow disk is no silence. A connection that fails says so to its reader.
    const beat = () => welcomed && void connection.send(frameType.heartbeat).catch(() => undefined)
    const pulse = new Pulse(this.#options.clock, hello.settings.suspicionMs, beat, () =>
      connection.fail(`the primary was silent for ${hello.settings.suspicionMs} ms`),
    )
    connection.onInput = () => pulse.heard()
    this.#absenceMs = 0
    let reason = 'the primary closed the connection'
    try {
      await pulse.during(Promise.all(written))
      this.#keeper.begin(reduces(hello.settings))
      const image = { image: this.#served ? 'held' : 'fresh', imagePages: this.#options.image.region.pages }
      welcomed = true
      await connection.sendJson(frameType.welcome, { release, claimant: this.claimant, arbitrated, ...image })
      this.#served = true
      for (let next = await frames.next(); !next.done; next = await frames.next()) {
        // Once the end has begun the image belongs to it: what arrives now is too late.
        if (this.#outcome) break
        await pulse.during(this.#receive(connection, next.value))
        if (next.value.type === frameType.commit) pulse.seeded()
      }
    } catch (error) {
      const refused = asSubpageError(error)
      reason = refused.message
      await connection.refuse(refused)
    } finally {
      if (this.#absenceMs > 0) reason = "the primary's supervisor was stopped"
      pulse.stop()
      if (!this.#outcome) connection.close()
      // The next connection must not write to the image before this one has.
      await this.#keeper.settle()
      this.#keeper.close()
      this.#connection = undefined
    }
    if (this.#outcome) await this.#part(connection)
    else this.#keepVigil(reason, pulse.heardAt)
  }

  /**
   * Failover by command.
   * @param force the caller knows that the primary, and its guest, are gone: then it is taken over also without an arbiter's
   *   answer, against a decision for the primary, and from a checkpoint that is outdated
   * @throws SubpageError STANDBY_NOT_READY, HELD_ELSEWHERE, ARBITER_UNREACHABLE
   */
  async failover(reason: string, force: boolean): Promise<StandbyOutcome> {
    if (this.#outcome) return await this.#outcome
    const { succession } = this.#options
    const { committed, outdated } = this.#keeper
    if (!committed && !(force && outdated)) throw nothingToTakeOver(this, outdated !== undefined)
    if (!succession.arbitrated && !force)
      throw new SubpageError(
        'STANDBY_NOT_READY',
        'these hosts have no arbiter that could say whether the primary still runs: give --force if you know that it is gone',
      )
    this.#deciding = true
    try {
      const unasked = !(succession.arbitrated && (await granted(succession, this.guestName, force)))
      if (force) this.#promises.waive()
      // Begins before anything else can happen to the image.
      return await this.#takeOver(reason, { unasked, force })
    } finally {
      this.#deciding = false
    }
  }

  /** Also possible after a failed takeover, of which nothing can be saved. */
  discard(reason: string, announce?: () => Promise<void>): Promise<StandbyOutcome> {
    if (this.state === 'Failed') this.#outcome = undefined
    return this.#end(async () => {
      await announce?.()
      await this.#options.guest.discard()
      await handBack(this.#options)
      return { how: 'discarded', reason }
    })
  }

  async #receive(connection: Connection, frame: Frame): Promise<void> {
    const { image } = this.#options
    switch (frame.type) {
      case frameType.heartbeat:
        return frame.epoch > 0 ? await this.#promises.give(connection, frame.type, frame.epoch) : undefined
      case frameType.pages:
      case frameType.raw:
      case frameType.reduced:
        if (frame.epoch > 0) return await this.#keeper.hold(frame.epoch, frame.payload, frame.type)
        return await this.#keeper.seed(frame.payload, frame.type, () => this.#beginSeeding())
      case frameType.disk:
        if (frame.epoch > 0) return this.#keeper.holdDisk(frame.epoch, frame.payload)
        return await this.#keeper.seedDisk(frame.payload, () => this.#beginSeeding())
      case frameType.device:
        return this.#keeper.holdDevice(frame.epoch, frame.payload)
      case frameType.commit:
        await this.#keeper.commit(frame.epoch, decodeCommit(frame.payload), () =>
          this.#promises.give(connection, frameType.ack, frame.epoch),
        )
        return this.#enter('Protected', '')
      case frameType.guestEnded:
        return this.#sourceEnded(readJson(Ended, frame.payload, 'the end of the guest'))
      case frameType.handover:
        return await this.#handover(connection, frame.epoch)
      case frameType.leave:
        this.#absenceMs = Math.min(frame.epoch, absenceMsMax)
        return
      case frameType.unprotect:
        this.#checkUndecided()
        void this.discard('the primary ended the protection', () => connection.sendLast(frameType.dismissed))
        return
      case frameType.askHashes:
        return await sendHashes(connection, image, this.#options.disks, frame.epoch)
      case frameType.askPage:
        return await sendPage(connection, image, frame.epoch)
      default:
        throw brokeProtocol(`a primary does not send frame type ${frame.type}`)
    }
  }

  #beginSeeding(): void {
    this.#checkUndecided()
    this.#enter('Seeding', '')
  }

  /** The checkpoint that a failover is about must last: until that is decided, and from then on. */
  #checkUndecided(): void {
    if (this.#deciding || this.#outcome)
      throw new SubpageError('STANDBY_NOT_READY', `a failover of ${this.guestName} is being decided`)
  }

  /** The primary says so itself: its guest is gone, so nobody has to be asked whether it may be taken over. */
  #sourceEnded(end: GuestEnd): void {
    if (end.how === 'died' && this.#keeper.committed) {
      if (!this.#outcome) this.#promises.waive()
      void this.#takeOver(`the guest died: ${end.detail}`, { unasked: true })
    } else void this.discard(`the guest ended: ${end.detail}`)
  }

  /** A switchover: the guest stands still over there, in the checkpoint that we hold. */
  async #handover(connection: Connection, epoch: number): Promise<void> {
    if (this.#keeper.committed?.epoch !== epoch)
      throw brokeProtocol('it hands over what it has not committed')
    // Should our answer be lost, the arbiter tells the primary.
    const holder = await this.#options.succession.claim()
    if (holder) throw new SubpageError('HELD_ELSEWHERE', `${holder.claimant} goes on with ${this.guestName}`)
    this.#promises.waive()
    await this.#takeOver('switched over from the primary', {
      announce: () => connection.send(frameType.tookOver, epoch),
    })
  }

  #keepVigil(reason: string, heardAt: number): void {
    const { sourceGone, succession, clock } = this.#options
    this.#vigil = new Vigil({
      clock,
      succession,
      settings: this.#hello.settings,
      heardAt,
      reason,
      absenceMs: this.#absenceMs,
      sourceGone: () => sourceGone(this.#hello),
      committed: () => this.#keeper.committed !== undefined,
      say: (text) => this.#enter('Connecting', text),
      takeOver: (why) => void this.#takeOver(why),
      discard: (why) => void this.discard(why),
      outdated: () => this.#keeper.forgetCheckpoint(),
    })
  }

  #takeOver(reason: string, how: Takeover = {}): Promise<StandbyOutcome> {
    const startedAt = performance.now()
    return this.#end(async () => {
      const committed = await runHere(this.#options, this.#keeper, this.#promises, this.#hello, how).catch(
        async (error) => {
          // What it was granted and could not use goes back: the primary, which waits for that, goes on.
          await this.#vigil?.end()
          await handBack(this.#options)
          throw error
        },
      )
      // The guest runs here whether or not that arrives.
      await how.announce?.().catch(() => undefined)
      const { epoch, consoleBytes } = committed
      return {
        how: 'took-over',
        reason,
        at: Date.now(), // the wall clock, for people
        takeoverMs: performance.now() - startedAt,
        committed: { epoch, consoleBytes },
      }
    })
  }

  /** There is one end: the first that is asked for; whoever asks again gets the same. */
  #end(run: () => Promise<StandbyOutcome>): Promise<StandbyOutcome> {
    if (!this.#outcome) {
      void this.#vigil?.end()
      this.#outcome = run()
      this.#outcome.then(
        (outcome) => {
          this.emit('outcome', outcome)
          const { committed } = this
          if (this.#connection && outcome.how === 'took-over' && committed)
            void this.#connection.refuse(runsHere(this.guestName, this.#options.succession))
          else this.#connection?.close()
        },
        (error) => {
          this.#enter('Failed', asSubpageError(error).message)
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

  #enter(state: StandbyState, reason: string): void {
    if (this.state === state && this.reason === reason) return
    this.state = state
    this.reason = reason
    this.emit('state', state, reason)
  }
}
