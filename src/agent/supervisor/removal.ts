/**
 * The end of a guest by command, whatever it is on this host. A standby whose primary lives is refused: its primary would
 * begin a new one within a second.
 */
import { SubpageError } from '../../errors.ts'
import { removeMaps } from '../../qemu/disk-maps.ts'
import type { HostedGuest } from './hosted-guest.ts'
import type { GuestProcess, Hypervisor } from './hypervisor.ts'
import type { StandbyGuest } from './standby-guest.ts'

/**
 * @param standbyToo also a standby whose primary is connected: this host ends
 * @returns what the operator should know of it
 * @throws SubpageError ALREADY_PROTECTED, GUEST_EXISTS when a standby has just taken over
 */
export async function endByCommand<P extends GuestProcess>(
  guest: HostedGuest<P>,
  hypervisor: Hypervisor<P>,
  standbyToo: boolean,
): Promise<string | undefined> {
  if (guest.kind === 'standby') return await endStandby(guest, standbyToo)
  if (guest.kind === 'ended' || guest.kind === 'unanswered') {
    await hypervisor.endLeftover(guest.files, guest.record)
    if (guest.record) removeMaps(guest.files, guest.record, guest.record.machine.disks)
  } else {
    // The guest's orderly end makes the standby discard its copy.
    await guest.guest.qemu.end()
    await guest.finished()
  }
  return undefined
}

async function endStandby<P extends GuestProcess>(
  { name, standby }: StandbyGuest<P>,
  standbyToo: boolean,
): Promise<string | undefined> {
  const { host } = standby.hello.source
  if (standby.connected && !standby.ending && !standbyToo)
    throw new SubpageError(
      'ALREADY_PROTECTED',
      `${name} is the standby of a guest on host ${host}, which would begin a new one here: subpage unprotect ${name} there first, or subpage remove ${name} there`,
    )
  const outcome = await standby.discard('removed by command')
  if (outcome.how === 'took-over')
    throw new SubpageError(
      'GUEST_EXISTS',
      `${name} has just taken over and runs here now: subpage remove ${name} once more ends it`,
    )
  return `host ${host} may begin a new standby of ${name} here when it is back: subpage unprotect ${name} there ends that`
}
