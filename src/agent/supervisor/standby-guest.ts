/** A guest that waits on this host to take over: its QEMU, its image, and the connection of its primary. */
import { asSubpageError } from '../../errors.ts'
import type { PageRanges } from '../../memory/page-ranges.ts'
import type { GuestFiles } from '../../qemu/guest-files.ts'
import type { GuestRecord } from '../../qemu/guest-record.ts'
import type { QemuProcess } from '../../qemu/qemu-process.ts'
import type { Hello } from '../../replication/messages.ts'
import type { ProtectionSettings } from '../../replication/protection-settings.ts'
import { SourceSight } from '../../replication/source-sight.ts'
import { Standby } from '../../replication/standby.ts'
import type { HotMap } from '../../workingset/hot-map.ts'
import type { EventLog } from '../event-log.ts'
import { guarded } from './boundary.ts'
import type { DenseOwner } from './dense-guest.ts'
import { DenseImage } from './dense-image.ts'
import { successionOf } from './guest-succession.ts'
import type { Host } from './host.ts'
import type { GuestProcess, StandbyStorage, WaitingProcess } from './hypervisor.ts'
import { tellOfTrouble } from './trouble.ts'

export class StandbyGuest<P extends GuestProcess = QemuProcess> implements DenseOwner {
  readonly kind = 'standby'
  readonly standby: Standby
  readonly waiting: WaitingProcess<P>
  readonly qemu: P
  /** It waits, and nobody reads its memory but through the image. */
  readonly protecting = false
  readonly unmovable = undefined
  readonly #image: DenseImage
  readonly #sight: SourceSight
  readonly #events: EventLog
  readonly #storage: StandbyStorage

  private constructor(waiting: WaitingProcess<P>, hello: Hello, host: Host<P>) {
    this.waiting = waiting
    this.qemu = waiting.qemu
    this.#events = host.events
    this.#sight = new SourceSight(host.presence.sight)
    this.#image = new DenseImage({
      region: this.qemu.ram,
      id: this.qemu.record.id,
      keeper: () => host.density.keeper(),
      // The primary goes on, and makes a new one.
      damaged: (error) => void this.standby.discard(error.message).catch(() => undefined),
    })
    const storage = host.hypervisor.storageOf(this.qemu)
    this.#storage = storage
    const lettingGo = { events: host.events, guest: hello.guest.name, doing: 'closing its disks' }
    const letGo = () => guarded(lettingGo, () => storage.close())
    void waiting.ended.then(letGo)
    this.standby = new Standby({
      guest: waiting,
      image: this.#image,
      disks: storage.disks,
      spill: storage.spill,
      journal: storage.journal,
      host: host.name,
      hello,
      succession: successionOf(waiting.qemu.record, host, waiting.qemu),
      sourceFate: (of) => this.#sight.fate(of),
      clock: host.clock,
      faults: host.faults,
    })
    this.standby.once('outcome', letGo)
    this.standby.on('state', (state, reason) =>
      host.events.add(this.name, 'protection', `standby ${state}${reason ? `: ${reason}` : ''}`),
    )
    tellOfTrouble(this.qemu, host)
    this.qemu.hang.on('stuck', () => this.#renew())
    const clearing = { events: host.events, guest: this.name, doing: 'clearing away after its end' }
    void waiting.ended.then(() => guarded(clearing, () => host.density.forget(this)))
  }

  /** @throws SubpageError NO_SPACE, QEMU_FAILED, PEER_MISMATCH, … Nothing is left behind then. */
  static async start<P extends GuestProcess>(
    hello: Hello,
    files: GuestFiles,
    host: Host<P>,
  ): Promise<StandbyGuest<P>> {
    const waiting = await host.hypervisor.startWaiting(hello, files)
    let guest: StandbyGuest<P>
    try {
      guest = new StandbyGuest(waiting, hello, host)
    } catch (error) {
      await waiting.abandon()
      throw error
    }
    guarded({ events: host.events, guest: guest.name, doing: 'holding its memory densely' }, () =>
      host.density.again(guest),
    )
    return guest
  }

  get name(): string {
    return this.standby.guestName
  }

  /** Writes to disks that are put aside in a file. */
  get spill(): { bytes: number; totalBytes: number } {
    const { bytes, totalBytes } = this.#storage.spill
    return { bytes, totalBytes }
  }

  get hello(): Hello {
    return this.standby.hello
  }

  get hotMap(): HotMap | undefined {
    return this.#image.hotMap
  }

  /** Its deltas say what is in use: there is nothing to be looked at. */
  watchMemory(): () => void {
    this.#image.begin()
    return () => undefined
  }

  seen(resident: PageRanges): void {
    this.#image.seen(resident)
  }

  async whileStill(
    pages: PageRanges,
    work: (pages: PageRanges, held: null) => Promise<unknown>,
  ): Promise<number | undefined> {
    return (await this.#image.move(pages, (free) => work(free, null))) ? 0 : undefined
  }

  async becomeWhole(work: () => Promise<void>): Promise<void> {
    await this.#image.becomeWhole(work)
  }

  /** Its QEMU could not take the guest over. While the primary is there, nothing is lost: it begins a new standby at once. */
  #renew(): void {
    const { standby, qemu } = this
    if (!standby.connected || standby.ending) return
    const clearing = { events: this.#events, guest: this.name, doing: 'ending a standby that hangs' }
    guarded(clearing, () => standby.discard(`hung: ${qemu.hang.reason}`))
  }

  /** The same protection, the other way round: for when this host has taken over. */
  get reverse(): ProtectionSettings {
    return reverseOf(this.hello)
  }

  /** Its primary has connected. If this supervisor is killed during a takeover, the next one finds the guest and protects it. */
  remember(hello: Hello): this {
    this.#sight.meet(hello)
    this.waiting.qemu.updateRecord({ protection: reverseOf(hello) })
    return this
  }
}

/**
 * Ends what an earlier supervisor has left of a standby, or of a start. What it was granted, and never used, goes back; now or
 * never, since later there may be another standby that uses it.
 */
export async function endLeft<P extends GuestProcess>(
  files: GuestFiles,
  record: GuestRecord | undefined,
  host: Host<P>,
): Promise<void> {
  await host.hypervisor.endLeftover(files, record)
  if (!record) return
  if (record.waiting) await bringUpDisks(files, record, host)
  host.density.remember(record)
  const given = successionOf(record, host).giveBackLeft()
  await given.catch((error) => host.events.add(record.name, 'protection', asSubpageError(error).message))
}

/** After a loss of power the disks have what was acknowledged, and the journal what of it they may lack. */
async function bringUpDisks<P extends GuestProcess>(
  files: GuestFiles,
  record: GuestRecord,
  { events, hypervisor }: Host<P>,
): Promise<void> {
  const say = (text: string) => events.add(record.name, 'protection', text)
  try {
    const epoch = await hypervisor.playBack(files, record)
    if (epoch !== undefined) say(`the copies of its disks are those of checkpoint ${epoch}`)
  } catch (error) {
    say(asSubpageError(error).message)
  }
}

const reverseOf = ({ settings, source }: Hello): ProtectionSettings => ({ ...settings, to: source.address })
