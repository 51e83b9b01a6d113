/**
 * What can be asked about guests. A guest's supervisor does it, for its one guest; the agent of a host passes it on to the
 * supervisor of the guest that is named; a client asks an agent for it, over HTTP (api.ts, client.ts).
 */
import type { DensitySettings } from '../qemu/guest-record.ts'
import type { RunRequest } from '../qemu/run-request.ts'
import type { ProtectionSettings } from '../replication/protection-settings.ts'
import type { StandbyOutcome } from '../replication/standby-options.ts'
import type { GuestDensity, HostDensityStatus } from './density-status.ts'
import type { HostEvent } from './event-log.ts'
import type { MemoryMap, WorkingSets } from './memory-status.ts'
import type { Cancelled, GuestStatus, HostStatus, Screenshot, Unprotected, Verified } from './status.ts'
import type { WatchListener, WatchQuery } from './supervisor/memory-watch.ts'

export interface GuestApi {
  status(): Promise<HostStatus>
  /** @throws SubpageError GUEST_UNKNOWN, as all that names a guest */
  guest(name: string): Promise<GuestStatus>
  /** @throws SubpageError GUEST_EXISTS, GUEST_UNPROTECTABLE, NO_SPACE, QEMU_FAILED, … */
  run(request: RunRequest): Promise<GuestStatus>
  /**
   * Ends a guest, whatever it is here, and removes what it left.
   * @param standbyToo also a standby whose primary is connected, which would begin another one: this host ends
   */
  remove(name: string, standbyToo?: boolean): Promise<{ removed: string; note?: string }>
  /**
   * Takes up a domain of libvirt that runs here, if it is not a guest of subpage already.
   * @throws SubpageError GUEST_UNKNOWN, GUEST_UNPROTECTABLE, GUEST_DIED, LIBVIRT_UNREACHABLE, …
   */
  adopt(name: string): Promise<GuestStatus>
  protect(name: string, settings: ProtectionSettings): Promise<GuestStatus>
  /** @param discard the copies of its disks, too */
  unprotect(name: string, discard?: boolean): Promise<Unprotected>
  /** @throws SubpageError STANDBY_NOT_READY, HELD_ELSEWHERE, ARBITER_UNREACHABLE */
  failover(name: string, force?: boolean): Promise<StandbyOutcome>
  switchover(name: string): Promise<{ switchedOver: string }>
  verify(name: string): Promise<Verified>
  /** Ends what somebody waits for. @throws SubpageError NOT_CANCELLABLE */
  cancel(name: string): Promise<Cancelled>
  /** What is on its screen, here where it runs. */
  screenshot(name: string): Promise<Screenshot>
  density(): Promise<HostDensityStatus>
  densityOn(name: string, settings: DensitySettings): Promise<GuestDensity | undefined>
  densityOff(name: string): Promise<{ whole: string }>
  /**
   * What each interval of watching a guest's memory says, from now on.
   * @returns ends it
   */
  watch(name: string, query: WatchQuery, listener: WatchListener): Promise<() => void>
  /** Where its memory is, and how hot. @throws SubpageError KEEPER_FAILED */
  memoryMap(name: string): Promise<MemoryMap>
  /** What watching its memory has said, while somebody watched. */
  workingSets(name: string): Promise<WorkingSets>
  events(): Promise<HostEvent[]>
  /** All events so far, then each new one. @returns ends it */
  follow(listener: (event: HostEvent) => void): () => void
}
