/** A guest that runs on this host, with its protection if it has one. */
import { type Reason, SubpageError } from '../../errors.ts'
import type { PageRanges } from '../../memory/page-ranges.ts'
import { hangTimes } from '../../qemu/hang-watch.ts'
import type { QemuProcess } from '../../qemu/qemu-process.ts'
import { release } from '../../release.ts'
import type { Present } from '../../replication/admission.ts'
import { type Hello, protocolVersion } from '../../replication/messages.ts'
import { paceOf } from '../../replication/pace.ts'
import { Primary } from '../../replication/primary.ts'
import type { PrimaryOptions } from '../../replication/primary-options.ts'
import type { ProtectionSettings } from '../../replication/protection-settings.ts'
import type { StandbyOutcome } from '../../replication/standby-options.ts'
import type { Succession } from '../../replication/succession.ts'
import { formatBytes } from '../../units.ts'
import type { HotMap } from '../../workingset/hot-map.ts'
import { parseAddress } from '../address.ts'
import { guarded } from './boundary.ts'
import type { DenseOwner, MovePages } from './dense-guest.ts'
import { DenseRam } from './dense-ram.ts'
import { successionOf } from './guest-succession.ts'
import type { Host } from './host.ts'
import type { GuestProcess, RunnableGuest } from './hypervisor.ts'
import { meetManaged } from './managed-guest.ts'
import { MemoryWatch, type WatchListener, type WatchQuery } from './memory-watch.ts'
import { verifyRegularly } from './regular-verification.ts'
import { tellOfTrouble } from './trouble.ts'

export type TookOver = Extract<StandbyOutcome, { how: 'took-over' }>

export class RunningGuest<P extends GuestProcess = QemuProcess> implements DenseOwner {
  readonly kind = 'running'
  readonly guest: RunnableGuest<P>
  readonly qemu: P
  readonly succession: Succession
  readonly memoryWatch: MemoryWatch
  readonly #memory: DenseRam
  /** How it came to this host, when by a failover. */
  readonly takeover: TookOver | undefined
  readonly #host: Host<P>
  #primary: Primary | undefined
  /** Set while a protect call is under way, so that a second one is refused. */
  #starting = false
  /** A protection that goes on once its memory is whole. */
  #awaited: ProtectionSettings | undefined
  #hadStandby = false
  /** What has failed for this guest, until it is protected or unprotected. */
  #trouble: Reason | undefined

  constructor(qemu: P, host: Host<P>, takeover?: TookOver) {
    this.guest = host.hypervisor.guestOf(qemu)
    this.memoryWatch = new MemoryWatch(this.guest)
    this.#memory = new DenseRam(qemu, () => host.density.keeper())
    this.qemu = qemu
    this.#host = host
    this.takeover = takeover
    this.succession = successionOf(qemu.record, host, qemu)
    meetManaged(qemu)
    if (qemu.record.density) {
      this.#memory.begin(true)
      host.density.resume(this)
    }
    tellOfTrouble(qemu, host)
    qemu.hang.on('stuck', () => this.#fence())
    void this.guest.ended.then(() =>
      this.#guarded('what was stored of its memory', () => host.density.forget(this)),
    )
  }

  get name(): string {
    return this.guest.qemu.record.name
  }

  get primary(): Primary | undefined {
    return this.#primary
  }

  get trouble(): Reason | undefined {
    return this.#trouble
  }

  /** Its protection goes on when its memory is back. */
  get comingBack(): boolean {
    return this.#awaited !== undefined
  }

  /** It is protected, or about to be. */
  get protecting(): boolean {
    return this.#primary !== undefined || this.#starting || this.#awaited !== undefined
  }

  get unmovable(): string | undefined {
    if (this.#awaited) return 'it has taken over, and its memory is coming back'
    if (this.#primary?.tracking.tracker.name === 'compare')
      return 'it is protected with the tracker compare, which reads all of it in every pause'
    return this.#starting ? 'its protection is about to begin; try again' : undefined
  }

  /** As a primary that asks this host for a standby meets it. */
  get present(): Present {
    return {
      kind: 'running',
      id: this.guest.qemu.record.id,
      claimant: this.#host.claimant,
      generation: this.succession.generation,
      successor: () => this.succession.successor(),
    }
  }

  /**
   * @param prepare what is to be done first, while no other protection can begin
   * @throws SubpageError ALREADY_PROTECTED, PEER_UNREACHABLE, PEER_MISMATCH, …
   */
  async protect(settings: ProtectionSettings, prepare: () => Promise<void>): Promise<void> {
    if (this.protecting)
      throw new SubpageError(
        'ALREADY_PROTECTED',
        `${this.name} is protected already, to ${this.guest.qemu.record.protection?.to ?? settings.to}`,
      )
    this.#starting = true
    if (this.qemu.record.density) this.#memory.begin(false)
    try {
      this.qemu.hang.refuseIfHung()
      await this.qemu.hang.during(prepare())
      const primary = await Primary.start(this.#options(settings, false))
      // One that the next supervisor would not know of would let out what its standby does not have.
      try {
        this.qemu.updateRecord({ protection: settings })
      } catch (error) {
        await primary.stop()
        throw error
      }
      this.#adopt(primary, settings)
    } finally {
      this.#starting = false
    }
    this.#say(`protecting to ${settings.to}`)
  }

  /**
   * Goes on with a protection without waiting for the standby. After a failover from a dense image the memory comes back
   * first, what was used last before the rest, while the guest runs: seeding reads all of it.
   * @param exposed a standby may hold a checkpoint: after a restart of the supervisor; not after a failover
   */
  resumeProtection(settings: ProtectionSettings, exposed: boolean): void {
    this.guest.qemu.updateRecord({ protection: settings })
    if (this.qemu.record.density && !exposed) {
      this.#awaited = settings
      this.#say('goes on when its memory is back')
      this.#guarded('protecting it again', () => this.#resumeWhole(settings, exposed))
    } else this.#adopt(Primary.resume(this.#options(settings, exposed)), settings)
  }

  /** As resumeProtection, where nobody waits for it: what fails is the guest's state. */
  goOnProtecting(settings: ProtectionSettings, exposed: boolean): void {
    this.#guarded('protecting it again', () => this.resumeProtection(settings, exposed))
  }

  #guarded(doing: string, work: () => unknown): void {
    const failed = (error: SubpageError) => {
      this.#awaited = undefined
      this.#trouble = { code: error.code, message: `${doing} failed: ${error.message}` }
    }
    guarded({ events: this.#host.events, guest: this.name, doing, failed }, work)
  }

  async #resumeWhole(settings: ProtectionSettings, exposed: boolean): Promise<void> {
    const whole = await this.#host.density.bringBack(this)
    // Ended meanwhile.
    if (this.#awaited !== settings) return
    this.#awaited = undefined
    if (whole && this.guest.alive) this.#adopt(Primary.resume(this.#options(settings, exposed)), settings)
  }

  /**
   * @param discard the copies of its disks, too
   * @returns where the standby's copies of its disks stay
   * @throws SubpageError NOT_PROTECTED, ARBITER_UNREACHABLE
   */
  async unprotect(discard: boolean): Promise<string[]> {
    // Before anything is claimed: the standby could not go on any more, and this copy does not.
    this.qemu.hang.refuseIfHung()
    if (this.#awaited) this.#awaited = undefined
    else if (!this.#primary && this.#trouble !== undefined) this.#trouble = undefined
    // What was begun ends, also when QEMU hangs in the middle of it and nobody waits any more.
    else return await this.qemu.hang.during(this.#stop(this.#protected(), discard))
    this.#unprotected()
    return []
  }

  async #stop(primary: Primary, discard: boolean): Promise<string[]> {
    const copies = await primary.stop(discard)
    if (this.#primary === primary) this.#unprotected()
    return copies
  }

  #unprotected(): void {
    this.#primary = undefined
    const { protection: _, ...record } = this.guest.qemu.record
    this.guest.qemu.replaceRecord(record)
    this.#say('protection ended')
  }

  get hotMap(): HotMap | undefined {
    return this.memoryWatch.hotMap
  }

  watchMemory(listener: WatchListener, settings: WatchQuery): () => void {
    return this.memoryWatch.listen(listener, settings)
  }

  seen(resident: PageRanges): void {
    this.#memory.seen(resident)
  }

  async whileStill(pages: PageRanges, work: MovePages): Promise<number | undefined> {
    this.#memory.begin(false)
    if (this.protecting) return await this.#memory.moveLater(pages, work)
    return await this.#memory.moveNow(pages, (moving) => this.guest.standStill(moving), work)
  }

  becomeWhole(work: () => Promise<void>): Promise<void> {
    return this.#memory.becomeWhole(work)
  }

  /** @throws SubpageError NOT_PROTECTED, ARBITER_UNREACHABLE */
  async switchover(): Promise<void> {
    await this.qemu.hang.during(this.#protected().switchover())
  }

  /**
   * Its QEMU has hung for too long: it is ended if a standby can go on at once, and only then. As after any death, what
   * was not committed is gone, and was not seen by anybody.
   */
  #fence(): void {
    if (this.#primary?.covered)
      this.qemu.endHung(
        `its QEMU gave no answer for ${hangTimes.stuckMs / 1000} s and was ended, so that its standby goes on`,
      )
  }

  /** Resolves when the guest has ended and its protection has let go of it. */
  async finished(): Promise<void> {
    await this.guest.ended
    await this.#primary?.finished
  }

  /** Lets go of the protection, not of the standby: the supervisor ends, and the next one goes on. */
  async detach(): Promise<void> {
    // A QEMU that hangs keeps its supervisor from nothing: what was begun ends with it, and the guard inside resumes the guest.
    if (this.#primary)
      await this.qemu.hang.during(this.#primary.detach()).catch((error) => {
        if (!(error instanceof SubpageError) || error.code !== 'GUEST_HUNG') throw error
      })
  }

  #protected(): Primary {
    if (!this.#primary) throw new SubpageError('NOT_PROTECTED', `${this.name} is not protected`)
    return this.#primary
  }

  #adopt(primary: Primary, settings: ProtectionSettings): void {
    this.#primary = primary
    this.#trouble = undefined
    primary.on('state', (state, reason) =>
      this.#say(`${state}${reason ? `: ${reason}` : ` (standby ${primary.peerHost ?? settings.to})`}`),
    )
    primary.on('seeded', ({ doneBytes, bytesPerSecond }) =>
      this.#say(`seeded: ${formatBytes(doneBytes)} compared or sent, ${formatBytes(bytesPerSecond)}/s`),
    )
    primary.on('alone', (alone) => {
      this.#say(
        alone
          ? `goes on alone, generation ${this.succession.generation}`
          : `has a standby that can take over${this.#hadStandby ? ' again' : ''}`,
      )
      this.#hadStandby ||= !alone
    })
    primary.on('missed', (error) => this.#say(error.message))
    verifyRegularly(primary, this.qemu, settings.verifyEveryMs, (text) => this.#say(text))
  }

  #options(settings: ProtectionSettings, exposed: boolean): PrimaryOptions {
    const {
      epochMs,
      pauseShareMax,
      latencyMs,
      tracker,
      codec,
      outputs,
      suspicionMs,
      to,
      diskTo: _,
      verifyEveryMs: __,
      durability: ___,
      ...sending
    } = settings
    return {
      guest: this.guest,
      memory: this.#memory,
      hello: () => this.#hello(settings),
      connect: () => this.#host.transport.connect(to, this.qemu.record.id),
      tracker,
      codec,
      sending,
      pace: paceOf({ epochMs, pauseShareMax, latencyMs }),
      limits: this.#host.pauseLimits,
      hotPages: this.#host.hotPageCosts(),
      suspicionMs,
      outputs,
      succession: this.succession,
      exposed,
      clock: this.#host.clock,
      faults: this.#host.faults,
    }
  }

  /** @throws SubpageError ARBITER_UNREACHABLE when the operator's arbiter cannot be marked */
  async #hello({ to, diskTo, ...settings }: ProtectionSettings): Promise<Hello> {
    const { health, arbiterChosen, name, claimant, addressFor, presence, hypervisor } = this.#host
    const { pid, startTime } = this.guest.qemu.record.process
    const supervisor = presence.supervisor()
    const marked = await health.mark.fresh().catch((error) => {
      if (arbiterChosen) throw error
      return undefined
    })
    return {
      protocol: protocolVersion,
      release,
      guest: hypervisor.withPlaces(this.guest.description, diskTo),
      source: {
        host: name,
        claimant,
        address: addressFor(parseAddress(to)),
        bootId: presence.bootId(),
        process: { pid, startTime },
        ...(supervisor && { supervisor }),
      },
      generation: this.succession.generation,
      ...(marked !== undefined && { mark: marked }),
      settings,
    }
  }

  #say(text: string): void {
    this.#host.events.add(this.name, 'protection', text)
  }
}
