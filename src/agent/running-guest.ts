/** A guest that runs on this host, with its protection if it has one. */
import { createConnection } from 'node:net'
import type { Duplex } from 'node:stream'
import { SubpageError } from '../errors.ts'
import type { ProtectionSettings } from '../qemu/guest-files.ts'
import { bootId } from '../qemu/process.ts'
import { QemuGuest } from '../qemu/qemu-guest.ts'
import type { QemuProcess } from '../qemu/qemu-process.ts'
import { release } from '../release.ts'
import { protocolVersion } from '../replication/messages.ts'
import { Primary, type PrimaryOptions } from '../replication/primary.ts'
import type { StandbyOutcome } from '../replication/standby.ts'
import { parseAddress } from './address.ts'
import type { EventLog } from './event-log.ts'

export type TookOver = Extract<StandbyOutcome, { how: 'took-over' }>

const connectMs = 5_000

export class RunningGuest {
  readonly kind = 'running'
  readonly guest: QemuGuest
  readonly #events: EventLog
  #primary: Primary | undefined
  /** Set while a protect call is under way, so that a second one is refused. */
  #starting = false

  /** How it came to this host, when by a failover. */
  readonly takeover: TookOver | undefined

  readonly #hostName: string

  constructor(qemu: QemuProcess, hostName: string, events: EventLog, takeover?: TookOver) {
    this.guest = new QemuGuest(qemu)
    this.#hostName = hostName
    this.#events = events
    this.takeover = takeover
  }

  get name(): string {
    return this.guest.qemu.record.name
  }

  get primary(): Primary | undefined {
    return this.#primary
  }

  /** @throws SubpageError ALREADY_PROTECTED, PEER_UNREACHABLE, PEER_MISMATCH, … */
  async protect(settings: ProtectionSettings): Promise<void> {
    if (this.#primary || this.#starting)
      throw new SubpageError(
        'ALREADY_PROTECTED',
        `${this.name} is protected already, to ${this.guest.qemu.record.protection?.to ?? settings.to}`,
      )
    this.#starting = true
    try {
      this.#adopt(await Primary.start(this.#options(settings)), settings)
    } finally {
      this.#starting = false
    }
    this.guest.qemu.updateRecord({ protection: settings })
    this.#events.add(this.name, 'protection', `protecting to ${settings.to}`)
  }

  /** After a restart of the agent: goes on with the protection that the record names. */
  resumeProtection(settings: ProtectionSettings): void {
    this.#adopt(Primary.resume(this.#options(settings)), settings)
  }

  /** @throws SubpageError NOT_PROTECTED */
  async unprotect(): Promise<void> {
    const primary = this.#primary
    if (!primary) throw new SubpageError('NOT_PROTECTED', `${this.name} is not protected`)
    await primary.stop()
    this.#primary = undefined
    const { protection: _, ...record } = this.guest.qemu.record
    this.guest.qemu.replaceRecord(record)
    this.#events.add(this.name, 'protection', 'protection ended')
  }

  /** Resolves when the guest has ended and its protection has let go of it. */
  async finished(): Promise<void> {
    await this.guest.ended
    await this.#primary?.stop()
  }

  #adopt(primary: Primary, settings: ProtectionSettings): void {
    this.#primary = primary
    primary.on('state', (state, reason) =>
      this.#events.add(
        this.name,
        'protection',
        `${state}${reason ? `: ${reason}` : ` (standby ${settings.to})`}`,
      ),
    )
    primary.on('missed', (error) => this.#events.add(this.name, 'protection', error.message))
  }

  #options(settings: ProtectionSettings): PrimaryOptions {
    return {
      guest: this.guest,
      hello: {
        protocol: protocolVersion,
        release,
        guest: this.guest.description,
        source: { host: this.#hostName, bootId: bootId(), process: this.guest.qemu.record.process },
      },
      connect: () => connect(settings.to),
      tracker: settings.tracker,
      codec: settings.codec,
      epochMs: settings.epochMs,
    }
  }
}

/** @throws SubpageError PEER_UNREACHABLE */
function connect(to: string): Promise<Duplex> {
  const { host, port } = parseAddress(to)
  return new Promise((resolve, reject) => {
    const socket = createConnection({ host, port, noDelay: true })
    const fail = (why: string) => {
      socket.destroy()
      reject(new SubpageError('PEER_UNREACHABLE', `no agent answers at ${to}: ${why}`))
    }
    socket.setTimeout(connectMs, () => fail('time-out'))
    socket.once('error', (error) => fail(error.message))
    socket.once('connect', () => {
      socket.setTimeout(0)
      socket.removeAllListeners()
      resolve(socket)
    })
  })
}
