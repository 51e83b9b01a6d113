/** A guest that waits on this host to take over: its QEMU, its image, and the connection of its primary. */

import type { GuestFiles } from '../qemu/guest-files.ts'
import { bootId, isRunning } from '../qemu/process.ts'
import { WaitingQemu } from '../qemu/waiting-qemu.ts'
import type { Hello } from '../replication/messages.ts'
import { Standby } from '../replication/standby.ts'
import type { EventLog } from './event-log.ts'

export class StandbyGuest {
  readonly kind = 'standby'
  readonly standby: Standby
  readonly waiting: WaitingQemu
  readonly hello: Hello

  private constructor(waiting: WaitingQemu, hello: Hello, events: EventLog) {
    this.waiting = waiting
    this.hello = hello
    this.standby = new Standby(waiting, hello, sourceGone)
    this.standby.on('state', (state, reason) =>
      events.add(this.name, 'protection', `standby ${state}${reason ? `: ${reason}` : ''}`),
    )
  }

  /** @throws SubpageError NO_SPACE, QEMU_FAILED, PEER_MISMATCH, … Nothing is left behind then. */
  static async start(hello: Hello, files: GuestFiles, events: EventLog): Promise<StandbyGuest> {
    return new StandbyGuest(await WaitingQemu.start(hello.guest, files), hello, events)
  }

  get name(): string {
    return this.hello.guest.name
  }
}

/** On the same machine, by looking at the process; from another one nothing can be known. */
function sourceGone({ source }: Hello): boolean | undefined {
  return source.bootId === bootId() ? !isRunning(source.process) : undefined
}
