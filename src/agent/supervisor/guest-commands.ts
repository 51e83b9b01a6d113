/** What can be commanded of the guest of this supervisor once it is here, whatever it is a process of. */
import { SubpageError } from '../../errors.ts'
import type { QemuProcess } from '../../qemu/qemu-process.ts'
import type { ProtectionSettings } from '../../replication/protection-settings.ts'
import type { StandbyOutcome } from '../../replication/standby-options.ts'
import type { Cancelled } from '../status.ts'
import { type HostedGuest, runningOf } from './hosted-guest.ts'
import type { Hosting } from './hosting.ts'
import type { GuestProcess } from './hypervisor.ts'
import { holdManaged, releaseManaged } from './managed-guest.ts'
import { endByCommand } from './removal.ts'
import type { RunningGuest } from './running-guest.ts'

export class GuestCommands<P extends GuestProcess = QemuProcess> {
  readonly #hosting: Hosting<P>

  constructor(hosting: Hosting<P>) {
    this.#hosting = hosting
  }

  /** @throws SubpageError GUEST_UNKNOWN */
  find(name: string): HostedGuest<P> {
    const { guest, host } = this.#hosting
    this.assertName(name)
    if (!guest) throw new SubpageError('GUEST_UNKNOWN', `no guest "${name}" on host ${host.name}`)
    return guest
  }

  /** @throws SubpageError GUEST_UNKNOWN */
  assertName(name: string): void {
    if (name !== this.#hosting.name)
      throw new SubpageError(
        'GUEST_UNKNOWN',
        `this is the supervisor of ${this.#hosting.name}, not of ${name}`,
      )
  }

  /** @param command what `subpage` was asked to do @throws SubpageError as runningOf(), AGENT_UNREACHABLE */
  running(name: string, command: string): RunningGuest<P> {
    this.#hosting.assertOpen()
    return runningOf(this.find(name), command)
  }

  async remove(name: string, standbyToo: boolean): Promise<{ removed: string; note?: string }> {
    const hosting = this.#hosting
    hosting.settled = true
    // Its files have the names of those of a standby that would be started meanwhile.
    return await hosting.exclusively(async () => {
      const { departure } = hosting
      if (!hosting.guest && departure !== '')
        return { removed: name, note: `${name} was gone already: ${departure}` }
      const guest = this.find(name)
      const ended = await endByCommand(guest, hosting.host.hypervisor, standbyToo)
      const note = [ended, disksLeft(guest)].filter((text) => text).join('; ')
      // The end of a guest that ran has been noted meanwhile.
      const left = hosting.guest
      if (guest.kind !== 'standby') hosting.say('guest', 'removed')
      if (left === guest || left?.kind === 'ended') hosting.become(undefined)
      hosting.departure = ''
      return { removed: name, ...(note !== '' && { note }) }
    })
  }

  async protect(name: string, settings: ProtectionSettings): Promise<void> {
    const guest = this.running(name, 'protect')
    const asked = new AbortController()
    let held = false
    try {
      await guest.protect(settings, async () => {
        await this.#hosting.host.hypervisor.refit(guest.qemu, asked.signal)
        held = true
        await holdManaged(guest.qemu, settings.to)
      })
    } catch (error) {
      // What QEMU answers later is nobody's.
      asked.abort(error)
      if (held && !guest.protecting) await releaseManaged(guest.qemu)
      throw error
    }
  }

  /** @returns where the standby's copies of its disks stay */
  async unprotect(name: string, discard: boolean): Promise<string[]> {
    const guest = this.running(name, 'unprotect')
    const copies = await guest.unprotect(discard)
    await releaseManaged(guest.qemu)
    // The protection is over all the same.
    await guest.qemu.hang
      .during(this.#hosting.host.hypervisor.leave(guest.qemu))
      .catch((error: Error) =>
        this.#hosting.say('guest', `bitmaps of its disks stay in QEMU: ${error.message}`),
      )
    return copies
  }

  async switchover(name: string): Promise<void> {
    await this.running(name, 'switchover').switchover()
  }

  /**
   * Ends what somebody waits for. A protection that has no checkpoint yet ends, with the copies of disks that were made for it
   * if the standby hears of it.
   * @throws SubpageError NOT_CANCELLABLE
   */
  async cancel(name: string): Promise<Cancelled> {
    const { primary } = this.running(name, 'cancel')
    const { kind, cancellable } = primary?.operations.current(primary.seeding) ?? {}
    if (!primary || kind === undefined || !cancellable)
      throw new SubpageError(
        'NOT_CANCELLABLE',
        kind === undefined
          ? `nothing is under way for ${name} that could be cancelled`
          : `the ${kind} of ${name} has come too far, and goes on`,
      )
    if (kind === 'protect') return { cancelled: kind, copies: await this.unprotect(name, true) }
    primary.operations.cancel(kind)
    return { cancelled: kind, copies: [] }
  }

  async failover(name: string, force: boolean): Promise<StandbyOutcome> {
    this.#hosting.assertOpen()
    const guest = this.find(name)
    if (guest.kind !== 'standby')
      throw new SubpageError(
        'STANDBY_NOT_READY',
        guest.kind === 'running'
          ? `${name} runs on this host: failover is for the host that holds its standby; subpage switchover ${name} moves it`
          : `${name} has ended on this host, and there is no standby of it here`,
      )
    return await guest.standby.failover('by command', force)
  }

  /** Stops, in no guest's pause. The guest runs on, unprotected until the next supervisor is there. */
  async close(): Promise<void> {
    // A guest that is being removed is to be laid down, not let go of.
    await this.#hosting.close()
    const { guest, host } = this.#hosting
    host.health.close()
    if (guest?.kind === 'running') await guest.detach()
    await host.density.close()
  }
}

/** What outlasts the guest, for somebody to remove. */
function disksLeft<P extends GuestProcess>(guest: HostedGuest<P>): string | undefined {
  const { record } = guest.kind === 'ended' || guest.kind === 'unanswered' ? guest : guest.qemu
  const paths = (record?.machine.disks ?? []).filter(({ made }) => made).map(({ path }) => path)
  return paths.length > 0 ? `its disks stay: ${paths.join(', ')}` : undefined
}
