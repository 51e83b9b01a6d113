/** A guest that waits on this host to take over: its QEMU, its image, and the connection of its primary. */
import { asSubpageError } from '../errors.ts'
import type { GuestFiles, GuestRecord, ProtectionSettings } from '../qemu/guest-files.ts'
import { endLeftover } from '../qemu/leftover.ts'
import { bootId, isRunning } from '../qemu/process.ts'
import { WaitingQemu } from '../qemu/waiting-qemu.ts'
import { realClock } from '../replication/clock.ts'
import type { Hello } from '../replication/messages.ts'
import { Standby } from '../replication/standby.ts'
import type { Host } from './host.ts'
import { successionOf } from './running-guest.ts'

export class StandbyGuest {
  readonly kind = 'standby'
  readonly standby: Standby
  readonly waiting: WaitingQemu

  private constructor(waiting: WaitingQemu, hello: Hello, host: Host) {
    this.waiting = waiting
    this.standby = new Standby({
      guest: waiting,
      hello,
      succession: successionOf(waiting.qemu.record, host, waiting.qemu),
      sourceGone,
      clock: realClock,
      faults: host.faults,
    })
    this.standby.on('state', (state, reason) =>
      host.events.add(this.name, 'protection', `standby ${state}${reason ? `: ${reason}` : ''}`),
    )
    host.events.addNotes(this.name, waiting.qemu.notes)
  }

  /** @throws SubpageError NO_SPACE, QEMU_FAILED, PEER_MISMATCH, … Nothing is left behind then. */
  static async start(hello: Hello, files: GuestFiles, host: Host): Promise<StandbyGuest> {
    return new StandbyGuest(
      await WaitingQemu.start(hello.guest, hello.generation, files, host.images),
      hello,
      host,
    )
  }

  get name(): string {
    return this.standby.guestName
  }

  get hello(): Hello {
    return this.standby.hello
  }

  /** The same protection, the other way round: for when this host has taken over. */
  get reverse(): ProtectionSettings {
    return reverseOf(this.hello)
  }

  /** Should this agent be killed in the middle of a takeover, the next one finds the guest running and protects it. */
  remember(hello: Hello): this {
    this.waiting.qemu.updateRecord({ protection: reverseOf(hello) })
    return this
  }
}

/**
 * Ends what an earlier agent has left of a standby, or of a start. What it was granted, and never used, goes back; now or
 * never, since later there may be another standby that uses it.
 */
export async function endLeft(files: GuestFiles, record: GuestRecord | undefined, host: Host): Promise<void> {
  await endLeftover(files, record)
  if (!record) return
  const given = successionOf(record, host).giveBackLeft()
  await given.catch((error) => host.events.add(record.name, 'protection', asSubpageError(error).message))
}

const reverseOf = ({ settings, source }: Hello): ProtectionSettings => ({ ...settings, to: source.address })

/** On the same machine, by looking at the process; from another one nothing can be known. */
function sourceGone({ source }: Hello): boolean | undefined {
  return source.bootId === bootId() ? !isRunning(source.process) : undefined
}
