/** The standby's host, within a test: its arbiter, the machine that waits on it, and the real Standby, which answers connections as an agent does. */
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { asSubpageError, SubpageError } from '../../src/errors.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { Region } from '../../src/memory/region.ts'
import {
  admit,
  greet,
  type Present,
  refuseOurselves,
  sharesArbiter,
} from '../../src/replication/admission.ts'
import type { Arbiter, Holder } from '../../src/replication/arbiter.ts'
import { type Clock, realClock } from '../../src/replication/clock.ts'
import { Connection } from '../../src/replication/connection.ts'
import {
  type DiskImage,
  type DiskJournal,
  noJournal,
  noSpill,
  type WritesSpill,
} from '../../src/replication/disks.ts'
import type { GuestEnd } from '../../src/replication/guest.ts'
import { type Image, wholeImage } from '../../src/replication/image.ts'
import type { Hello } from '../../src/replication/messages.ts'
import type { SourceFate } from '../../src/replication/source-sight.ts'
import { Standby } from '../../src/replication/standby.ts'
import type { StandbyOutcome } from '../../src/replication/standby-options.ts'
import { Succession } from '../../src/replication/succession.ts'
import { helloFor } from './pair.ts'
import { digestOf } from './scripted-guest.ts'
import { portOf } from './sockets.ts'

/** The arbiter's contract, within this process. */
export class ScriptedArbiter implements Arbiter {
  readonly description = 'the test'
  memory = 0
  readonly #decisions = new Map<string, Holder>()
  readonly #marks = new Set<string>()
  reachable = true

  async claim(guest: string, generation: number, claimant: string): Promise<Holder> {
    if (!this.reachable) throw new SubpageError('ARBITER_UNREACHABLE', 'the test says so')
    const key = `${guest} ${generation}`
    const holder = this.#decisions.get(key) ?? { claimant, generation, at: new Date().toISOString() }
    this.#decisions.set(key, holder)
    return holder
  }

  async holder(guest: string, generation: number): Promise<Holder | undefined> {
    return this.#decisions.get(`${guest} ${generation}`)
  }

  async leaveMark(mark: string): Promise<void> {
    this.#marks.add(mark)
  }

  async seesMark(mark: string): Promise<boolean> {
    return this.#marks.has(mark)
  }

  close(): void {}
}

export function successionFor(
  claimant: string,
  arbiter: Arbiter | undefined,
  save: () => Promise<void> = async () => undefined,
): Succession {
  const { guest, generation } = helloFor({ pages: 1 })
  return new Succession({
    arbitrated: true,
    guest: guest.id,
    claimant,
    generation,
    arbiter,
    save,
  })
}

/** A machine of the WaitingGuest interface. */
export class ScriptedWaiting {
  readonly image: Region
  parts: string[] = []
  blank = true
  readonly ended = new Promise<GuestEnd>(() => undefined)
  /** Whether the image was what the device state said, at the takeover. */
  whole: boolean | undefined
  discarded = false
  /** As the takeover was told. */
  suspended: boolean | undefined
  /** A takeover waits for it, and so does its end. */
  gate: Promise<void> = Promise.resolve()
  refuses: Error | undefined

  constructor(pages: number) {
    this.image = Region.anonymous(pages * pageBytes)
  }

  async takeOver(deviceState: Uint8Array, suspended: boolean, begin: () => void): Promise<void> {
    if (this.refuses) throw this.refuses
    await this.gate
    begin()
    this.suspended = suspended
    this.whole = digestOf(this.image) === Buffer.from(deviceState).toString()
  }

  async discard(): Promise<void> {
    this.discarded = true
    await this.gate
  }
}

/** The standby's host: answers connections as an agent does, for one guest. */
export class ScriptedHost {
  readonly server: Server
  readonly waiting: ScriptedWaiting
  readonly refused: SubpageError[] = []
  readonly states: string[] = []
  readonly outcome: Promise<StandbyOutcome>
  /** What the standby sees of the primary's guest. */
  source: SourceFate | undefined
  standby: Standby | undefined
  /** Its identity, and what is on it in place of a standby. */
  claimant = 'standby'
  present: Present | undefined
  /** Writes down what its succession has learned. */
  save = async (): Promise<void> => undefined
  /** As the standby uses it. */
  image: Image
  disks: DiskImage[] = []
  journal: DiskJournal = noJournal
  spill: WritesSpill = noSpill
  /** Once its standby was discarded; false: it is gone for good, with its image. */
  beginsAnew = false
  readonly #arbiter: Arbiter | undefined
  readonly #sockets = new Set<Socket>()
  #ended: (outcome: StandbyOutcome) => void = () => undefined

  readonly #clock: Clock

  constructor(pages: number, arbiter?: Arbiter, clock: Clock = realClock) {
    this.#arbiter = arbiter
    this.#clock = clock
    this.waiting = new ScriptedWaiting(pages)
    this.image = wholeImage(this.waiting.image)
    this.outcome = new Promise((resolve) => {
      this.#ended = resolve
    })
    this.server = createServer({ noDelay: true }, (socket) => void this.#answer(socket))
  }

  async listen(): Promise<this> {
    this.server.listen(0, '127.0.0.1')
    await once(this.server, 'listening')
    return this
  }

  get port(): number {
    return portOf(this.server)
  }

  dropConnections(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  /** The digest of what the image must hold now; undefined when the standby says that it has no whole checkpoint. */
  committedIn(history: Map<number, string>): string | undefined {
    const committed = this.standby?.committed
    return committed && history.get(committed.consoleBytes)
  }

  close(): void {
    this.server.close()
    this.dropConnections()
    // Ends its watch; a takeover that failed has ended it already.
    this.standby?.discard('the test is over').catch(() => undefined)
  }

  async #answer(socket: Socket): Promise<void> {
    this.#sockets.add(socket)
    socket.once('close', () => this.#sockets.delete(socket))
    const connection = new Connection(socket)
    try {
      const { frames, hello } = await greet(connection)
      const present: Present = this.standby
        ? { kind: 'standby', standby: this.standby }
        : (this.present ?? { kind: 'nothing' })
      refuseOurselves(hello, this.claimant, present)
      const arbitrated = this.#arbiter ? await sharesArbiter(hello, this.#arbiter, true) : false
      await admit(hello, present)
      this.standby ??= this.#start(hello)
      await this.standby.serve(connection, frames, hello, arbitrated)
    } catch (thrown) {
      const error = asSubpageError(thrown)
      this.refused.push(error)
      await connection.refuse(error)
    }
  }

  #start(hello: Hello): Standby {
    const standby = new Standby({
      guest: this.waiting,
      image: this.image,
      disks: this.disks,
      journal: this.journal,
      spill: this.spill,
      host: 'beta',
      hello,
      succession: successionFor(this.claimant, this.#arbiter, () => this.save()),
      sourceFate: () => this.source,
      clock: this.#clock,
      faults: () => undefined,
    })
    standby.on('state', (state, reason) => this.states.push(reason ? `${state}: ${reason}` : state))
    standby.once('outcome', (outcome) => {
      this.#ended(outcome)
      // The next primary that asks for one gets a new one.
      if (outcome.how === 'discarded' && this.beginsAnew) this.standby = undefined
    })
    return standby
  }
}
