/**
 * What the guest is on this host at this moment, and how it becomes something else: it runs here, waits here as a standby, takes
 * over, ends, is superseded, or leaves.
 */
import { EventEmitter } from 'node:events'
import { asSubpageError, SubpageError } from '../../errors.ts'
import type { GuestFiles } from '../../qemu/guest-files.ts'
import type { QemuProcess } from '../../qemu/qemu-process.ts'
import { admit, greet, refuseOurselves, sharesArbiter } from '../../replication/admission.ts'
import { Connection } from '../../replication/connection.ts'
import { brokeProtocol, type Hello } from '../../replication/messages.ts'
import type { StandbyOutcome } from '../../replication/standby-options.ts'
import { parseAddress } from '../address.ts'
import type { Incoming } from '../door.ts'
import type { HostEvent } from '../event-log.ts'
import { guarded } from './boundary.ts'
import { Changing } from './changing.ts'
import { findAgain } from './guest-finder.ts'
import type { Host } from './host.ts'
import { type EndedGuest, type HostedGuest, presentOf, refuseIfAlive } from './hosted-guest.ts'
import type { GuestProcess } from './hypervisor.ts'
import { holdManaged, keepManaged, releaseManaged } from './managed-guest.ts'
import { RunningGuest } from './running-guest.ts'
import { StandbyGuest } from './standby-guest.ts'

/** A primary waits for its welcome for longer. */
const leftMsMax = 20_000
/** A QEMU ends within seconds, or hangs. */
const changeMsMax = 10_000

export class Hosting<P extends GuestProcess = QemuProcess> extends EventEmitter<{ idle: [] }> {
  readonly name: string
  readonly files: GuestFiles
  readonly host: Host<P>
  /** Undefined while there is none. */
  guest: HostedGuest<P> | undefined
  /** Why the latest guest is here no more; empty when it was removed, or never began. */
  departure = ''
  /** Nobody is expected to come with another guest of the name. */
  settled = false
  readonly #changing = new Changing()
  #change: Promise<unknown> = Promise.resolve()
  #closed = false
  /** What is under way that may make a guest. */
  #busy = 0
  /** Settles when it is known what a former supervisor has left. */
  #known: Promise<void> = Promise.resolve()

  constructor(name: string, files: GuestFiles, host: Host<P>) {
    super()
    this.name = name
    this.files = files
    this.host = host
  }

  /** Finds what a former supervisor has left; resolves when it was found, or does not answer soon. */
  async begin(): Promise<void> {
    const { found, soon } = findAgain({
      name: this.name,
      files: this.files,
      host: this.host,
      guest: () => this.guest,
      become: (guest) => this.become(guest),
      adopt: (guest) => this.adopt(guest),
    })
    this.#known = this.during(() => found)
    await soon
  }

  /** There is no guest, and nobody is about to begin one. */
  get idle(): boolean {
    return this.guest === undefined && this.#busy === 0
  }

  become(guest: HostedGuest<P> | undefined): void {
    this.guest = guest
    this.#ifIdle()
  }

  /** One at a time is started or removed. @throws SubpageError GUEST_EXISTS, AGENT_UNREACHABLE; what the work throws */
  async exclusively<T>(work: () => Promise<T>): Promise<T> {
    this.assertOpen()
    return await this.during(() =>
      this.#changing.during(this.name, this.host.name, () => {
        const change = work()
        // Who asked for it hears how it ends.
        this.#change = change.catch(() => undefined)
        return change
      }),
    )
  }

  /**
   * Once the supervisor ends, a command would meet a protection that is let go of: the standby would not hear that it was ended, and
   * would go on with the guest. The agent asks the next supervisor.
   * @throws SubpageError AGENT_UNREACHABLE
   */
  assertOpen(): void {
    if (this.#closed)
      throw new SubpageError('AGENT_UNREACHABLE', `the supervisor of ${this.name} is ending: ask once more`)
  }

  /** Nothing is begun any more. Resolves when what is being started or removed has been, or takes too long. */
  async close(): Promise<void> {
    this.#closed = true
    const timer = new AbortController()
    const late = this.host.clock.sleep(changeMsMax, timer.signal)
    await Promise.race([this.#change, late]).finally(() => timer.abort())
  }

  say(kind: HostEvent['kind'], text: string): void {
    this.host.events.add(this.name, kind, text)
  }

  // ---- a guest that runs here

  adopt(guest: RunningGuest<P>): RunningGuest<P> {
    this.become(guest)
    // Also one that was found again: the former supervisor may have died before it came to this.
    guarded({ events: this.host.events, guest: this.name, doing: 'keeping its domain' }, async () => {
      const note = await keepManaged(guest.qemu.record)
      if (note !== undefined) this.say('guest', note)
      // Where it is protected to after a takeover: what was said of it while it was a standby is over.
      const to = guest.qemu.record.protection?.to
      if (to !== undefined) await holdManaged(guest.qemu, to)
    })
    const clearing = { events: this.host.events, guest: this.name, doing: 'clearing away after its end' }
    void guest.guest.ended.then((end) =>
      guarded(clearing, async () => {
        const { files } = guest.guest.qemu
        const what =
          end.how === 'died'
            ? `died: ${end.detail} (${this.host.hypervisor.lastWords(files)})`
            : `ended: ${end.detail}`
        this.say('guest', what)
        await guest.finished()
        this.#bury(guest, end)
        // Nobody goes on with it.
        if (!/^(died|superseded)$/.test(end.how)) await releaseManaged(guest.qemu)
      }),
    )
    return guest
  }

  /** Frees the memory of a guest that has ended; its directory stays, for its logs. */
  #bury(guest: RunningGuest<P>, end: EndedGuest['end']): void {
    const { qemu } = guest.guest
    qemu.release()
    // Removed by command, or followed by another guest: the files are not ours any more.
    if (this.guest !== guest) return
    this.host.hypervisor.freeMemory(qemu.files)
    this.become({ kind: 'ended', name: guest.name, record: qemu.record, files: qemu.files, end })
  }

  // ---- a guest of another host

  /** A primary has connected. */
  async answer({ stream, peer, accept }: Incoming): Promise<void> {
    const connection = new Connection(stream, this.host.clock)
    try {
      const { standby, frames, hello, arbitrated } = await this.during(async () => {
        const { frames, hello } = await greet(connection)
        accept()
        await this.#known
        if (hello.guest.name !== this.name)
          throw brokeProtocol(`it asks for ${hello.guest.name} where ${this.name} is`)
        refuseOurselves(hello, this.host.claimant, presentOf(this.guest))
        if ('path' in parseAddress(hello.source.address) !== (peer.name === undefined))
          throw brokeProtocol(`it cannot be reached at ${hello.source.address} from here`)
        // What it says of itself counts only where nobody can prove anything: within this machine.
        if (peer.name !== undefined) hello.source.host = peer.name
        await this.#untilLeft()
        if (connection.closed) throw new SubpageError('PEER_UNREACHABLE', 'the primary has hung up meanwhile')
        const arbitrated = await sharesArbiter(hello, this.host.arbiter, this.host.arbiterChosen)
        return { standby: (await this.#standbyFor(hello)).standby, frames, hello, arbitrated }
      })
      await standby.serve(connection, frames, hello, arbitrated)
    } catch (thrown) {
      const error = asSubpageError(thrown)
      this.refused(peer.name === undefined ? peer.address : `${peer.name} (${peer.address})`, error)
      await connection.refuse(error)
    }
  }

  /** A primary that has given its standby up may want another one at once. */
  async #untilLeft(): Promise<void> {
    if (this.guest?.kind !== 'standby' || !this.guest.standby.discarding) return
    // The end that is under way: whether it fails is in its state.
    const left = this.guest.standby.discard('').catch(() => undefined)
    const timer = new AbortController()
    await Promise.race([left, this.host.clock.sleep(leftMsMax, timer.signal)]).finally(() => timer.abort())
  }

  refused(from: string, { message }: SubpageError): void {
    this.host.events.add('', 'refused', `a connection from ${from}: ${message}`)
  }

  /** The standby that a primary asks for: the one that waits for it, or a new one. */
  async #standbyFor(hello: Hello): Promise<StandbyGuest<P>> {
    this.settled = false
    return await this.exclusively(async () => {
      const present = this.guest
      const admission = await admit(hello, presentOf(present))
      if (present?.kind === 'standby') {
        if (admission === 'again') return present.remember(hello)
        // It tried to take over and could not; the guest lives, so a new one can begin.
        await present.standby.discard('its primary protects the guest anew')
      }
      if (present?.kind === 'running') {
        present.guest.supersede(`${hello.source.host} goes on with it, generation ${hello.generation}`)
        await present.finished()
        // Before the standby has files of the same names: buried later it would take their memory with it.
        this.#bury(present, await present.guest.ended)
      }
      if (present?.kind === 'unanswered')
        await this.host.hypervisor.endLeftover(present.files, present.record)
      if (present?.kind === 'ended') refuseIfAlive(present, this.host.hypervisor)
      const guest = await StandbyGuest.start(hello, this.files, this.host)
      this.become(guest.remember(hello))
      guest.standby.once('outcome', (outcome) => this.#standbyEnded(guest, outcome))
      const clearing = {
        events: this.host.events,
        guest: this.name,
        doing: 'discarding a standby that ended',
      }
      void guest.waiting.ended.then((end) =>
        guarded(clearing, () => {
          if (this.guest !== guest) return undefined
          this.say('guest', end.detail)
          // A takeover that failed keeps its state and its logs, until somebody removes them.
          return guest.standby.ending ? undefined : guest.standby.discard(end.detail)
        }),
      )
      return guest
    })
  }

  #standbyEnded(guest: StandbyGuest<P>, outcome: StandbyOutcome): void {
    if (this.guest !== guest) return
    if (outcome.how === 'discarded') {
      this.say('protection', `standby discarded: ${outcome.reason}`)
      this.#leave(`its standby was discarded: ${outcome.reason}`)
      return
    }
    const running = this.adopt(new RunningGuest(guest.waiting.qemu, this.host, outcome))
    this.say(
      'failover',
      `took over in ${outcome.takeoverMs.toFixed(1)} ms from checkpoint ${outcome.committed.epoch}: ${outcome.reason}`,
    )
    // When the other host is back, the same protection begins the other way round.
    running.goOnProtecting(guest.reverse, false)
  }

  /** The guest is on this host no more. */
  #leave(reason: string): void {
    this.departure = reason
    this.become(undefined)
  }

  /** The process goes on at least until the work is done. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#busy++
    try {
      return await work()
    } finally {
      this.#busy--
      this.#ifIdle()
    }
  }

  #ifIdle(): void {
    if (this.idle) this.emit('idle')
  }
}
