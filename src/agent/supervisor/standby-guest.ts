/** A guest that waits on this host to take over: its QEMU, its image, and the connection of its primary. */
import { RawDisk } from '../../disk/raw-disk.ts'
import { playBack, RedoJournal } from '../../disk/redo-journal.ts'
import { asSubpageError } from '../../errors.ts'
import type { PageRanges } from '../../memory/page-ranges.ts'
import { journalPath } from '../../qemu/disk-places.ts'
import type { GuestFiles, GuestRecord, ProtectionSettings } from '../../qemu/guest-files.ts'
import { endLeftover } from '../../qemu/leftover.ts'
import type { QemuProcess } from '../../qemu/qemu-process.ts'
import { WaitingQemu } from '../../qemu/waiting-qemu.ts'
import { realClock } from '../../replication/clock.ts'
import type { Hello } from '../../replication/messages.ts'
import { SourceSight } from '../../replication/source-sight.ts'
import { Standby } from '../../replication/standby.ts'
import type { HotMap } from '../../workingset/hot-map.ts'
import type { EventLog } from '../event-log.ts'
import { guarded } from './boundary.ts'
import type { DenseOwner } from './dense-guest.ts'
import { DenseImage } from './dense-image.ts'
import type { Host } from './host.ts'
import { realSight } from './presence.ts'
import { successionOf } from './running-guest.ts'
import { tellOfTrouble } from './trouble.ts'

export class StandbyGuest implements DenseOwner {
  readonly kind = 'standby'
  readonly standby: Standby
  readonly waiting: WaitingQemu
  readonly qemu: QemuProcess
  /** It waits, and nobody reads its memory but through the image. */
  readonly protecting = false
  readonly #image: DenseImage
  readonly #sight = new SourceSight(realSight)
  readonly #events: EventLog

  private constructor(waiting: WaitingQemu, hello: Hello, host: Host) {
    this.waiting = waiting
    this.qemu = waiting.qemu
    this.#events = host.events
    this.#image = new DenseImage({
      region: this.qemu.ram,
      id: this.qemu.record.id,
      keeper: () => host.density.keeper(),
      // The primary goes on, and makes a new one.
      damaged: (error) => void this.standby.discard(error.message).catch(() => undefined),
    })
    const disks = this.qemu.record.machine.disks.map(
      ({ path, bytes, made = false }) => new RawDisk(path, bytes, made),
    )
    void waiting.ended.then(() => closeAll(disks))
    this.standby = new Standby({
      guest: waiting,
      image: this.#image,
      disks,
      journal: new RedoJournal(journalPath(this.qemu.files, this.qemu.record), disks),
      hello,
      succession: successionOf(waiting.qemu.record, host, waiting.qemu),
      sourceGone: (of) => this.#sight.gone(of),
      clock: realClock,
      faults: host.faults,
    })
    this.standby.once('outcome', () => closeAll(disks))
    this.standby.on('state', (state, reason) =>
      host.events.add(this.name, 'protection', `standby ${state}${reason ? `: ${reason}` : ''}`),
    )
    host.events.addNotes(this.name, waiting.qemu.notes)
    tellOfTrouble(this.qemu, host)
    this.qemu.hang.on('stuck', () => this.#renew())
    const clearing = { events: host.events, guest: this.name, doing: 'clearing away after its end' }
    void waiting.ended.then(() => guarded(clearing, () => host.density.forget(this)))
  }

  /** @throws SubpageError NO_SPACE, QEMU_FAILED, PEER_MISMATCH, … Nothing is left behind then. */
  static async start(hello: Hello, files: GuestFiles, host: Host): Promise<StandbyGuest> {
    const waiting = await WaitingQemu.start(hello.guest, hello.generation, files, host.directories)
    const guest = new StandbyGuest(waiting, hello, host)
    guarded({ events: host.events, guest: guest.name, doing: 'holding its memory densely' }, () =>
      host.density.again(guest),
    )
    return guest
  }

  get name(): string {
    return this.standby.guestName
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
  ): Promise<void> {
    await this.#image.move(pages, (free) => work(free, null))
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
export async function endLeft(files: GuestFiles, record: GuestRecord | undefined, host: Host): Promise<void> {
  await endLeftover(files, record)
  if (!record) return
  if (record.waiting) await bringUpDisks(files, record, host)
  host.density.remember(record)
  const given = successionOf(record, host).giveBackLeft()
  await given.catch((error) => host.events.add(record.name, 'protection', asSubpageError(error).message))
}

/** After a loss of power the disks have what was acknowledged, and the journal what of it they may lack. */
async function bringUpDisks(files: GuestFiles, record: GuestRecord, { events }: Host): Promise<void> {
  const say = (text: string) => events.add(record.name, 'protection', text)
  try {
    const epoch = await playBack(journalPath(files, record), record.machine.disks)
    if (epoch !== undefined) say(`the copies of its disks are those of checkpoint ${epoch}`)
  } catch (error) {
    say(asSubpageError(error).message)
  }
}

const closeAll = (disks: RawDisk[]) => {
  for (const disk of disks) void disk.close()
}

const reverseOf = ({ settings, source }: Hello): ProtectionSettings => ({ ...settings, to: source.address })
