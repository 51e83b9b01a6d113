/** What a guest can be to this host: it runs here, waits here to take over, has not answered yet, or has ended here. */
import { SubpageError } from '../../errors.ts'
import type { GuestFiles } from '../../qemu/guest-files.ts'
import type { GuestRecord } from '../../qemu/guest-record.ts'
import type { QemuProcess } from '../../qemu/qemu-process.ts'
import type { Present } from '../../replication/admission.ts'
import type { GuestEnd } from '../../replication/guest.ts'
import { directoryOf, parseAddress } from '../address.ts'
import type { Host } from './host.ts'
import type { GuestProcess, Hypervisor } from './hypervisor.ts'
import type { RunningGuest } from './running-guest.ts'
import type { StandbyGuest } from './standby-guest.ts'
import type { UnansweredGuest } from './unanswered-guest.ts'

export type HostedGuest<P extends GuestProcess = QemuProcess> =
  | RunningGuest<P>
  | StandbyGuest<P>
  | UnansweredGuest
  | EndedGuest

/** A guest that no longer runs: kept by name, with its logs, until it is started again or removed. */
export interface EndedGuest {
  kind: 'ended'
  name: string
  /** Undefined when it is damaged. */
  record: GuestRecord | undefined
  files: GuestFiles
  end: GuestEnd
}

/** As a primary that asks this host for a standby meets it. */
export function presentOf<P extends GuestProcess>(guest: HostedGuest<P> | undefined): Present {
  if (guest?.kind === 'running' || guest?.kind === 'unanswered') return guest.present
  return guest?.kind === 'standby' ? guest : { kind: 'nothing' }
}

/**
 * @param command what `subpage` was asked to do
 * @throws SubpageError GUEST_UNKNOWN when it runs elsewhere, GUEST_HUNG, GUEST_DIED
 */
export function runningOf<P extends GuestProcess>(guest: HostedGuest<P>, command: string): RunningGuest<P> {
  if (guest.kind === 'running') return guest
  if (guest.kind === 'unanswered') throw guest.error
  if (guest.kind === 'standby') {
    const { host, address } = guest.hello.source
    const at = parseAddress(address)
    const [where, option] =
      'path' in at ? [directoryOf(at.path), ` --state ${directoryOf(at.path)}`] : [address, ' there']
    throw new SubpageError(
      'GUEST_UNKNOWN',
      `${guest.name} is a standby here, and runs on host ${host} (${where}): subpage ${command} ${guest.name}${option}`,
    )
  }
  throw new SubpageError('GUEST_DIED', `${guest.name} does not run any more: ${guest.end.detail}`)
}

/** It runs or waits here. @param command as of runningOf() @throws SubpageError GUEST_HUNG, GUEST_DIED */
export function aliveOf<P extends GuestProcess>(
  guest: HostedGuest<P>,
  command: string,
): RunningGuest<P> | StandbyGuest<P> {
  return guest.kind === 'standby' ? guest : runningOf(guest, command)
}

/** @throws SubpageError GUEST_EXISTS when the process of a guest that counts as ended may still run */
export function refuseIfAlive(
  { name, record, end }: EndedGuest,
  hypervisor: Pick<Hypervisor, 'isGone'>,
): void {
  if (!record || !hypervisor.isGone(record))
    throw new SubpageError(
      'GUEST_EXISTS',
      `${name} is here and may still run (${end.detail}): subpage remove ${name}`,
    )
}

/** @throws SubpageError GUEST_EXISTS when there is a guest of the name that is wanted */
export function refuseIfPresent(
  present: HostedGuest | undefined,
  { name: host, hypervisor }: Pick<Host, 'name' | 'hypervisor'>,
): void {
  if (present?.kind === 'ended') refuseIfAlive(present, hypervisor)
  else if (present) {
    const what = present.kind === 'standby' ? 'is a standby' : 'runs'
    throw new SubpageError('GUEST_EXISTS', `${present.name} ${what} on host ${host} already`)
  }
}
