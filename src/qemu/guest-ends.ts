/**
 * What QEMU says before it ends, and what that makes of the end. An end is a death, unless QEMU has announced that it is
 * meant and has done nothing since that a guest which runs on would do. docs/operations.md has the whole table; the facts
 * are QEMU's, 7.2 and 10.0 (docs/interop/qemu-qmp-ref, system/runstate.c, hw/watchdog/watchdog.c).
 */
import type { GuestEnd } from '../replication/guest.ts'
import type { QmpEvent } from './qmp.ts'

type Announced = GuestEnd | 'runs on' | undefined

/** By ShutdownCause. A cause that is not here is nobody's wish. */
const shutdowns: Record<string, GuestEnd> = {
  'guest-shutdown': { how: 'powered-off', detail: 'it shut itself down' },
  // Only with `-no-reboot`, or `-action reboot=shutdown`: without them a reset is no shutdown.
  'guest-reset': { how: 'powered-off', detail: 'it wanted to reboot, and is not to' },
  'subsystem-reset': { how: 'powered-off', detail: 'it wanted to reboot, and is not to' },
  'guest-panic': { how: 'panicked', detail: 'its kernel panicked' },
  'host-qmp-quit': { how: 'stopped', detail: 'QEMU was told to quit' },
  'host-qmp-system-reset': { how: 'stopped', detail: 'QEMU was told to reset it, and it is not to reboot' },
  'snapshot-load': { how: 'stopped', detail: 'QEMU was told to load a snapshot, and it is not to reboot' },
  'host-ui': { how: 'stopped', detail: 'the window of QEMU was closed' },
  // Whoever sends QEMU a signal ends a process: a service manager, a host that shuts down, a guard against want of memory.
  // The guest is ended by `subpage remove`.
  'host-signal': { how: 'died', detail: 'its QEMU process was ended by a signal' },
  'host-error': { how: 'died', detail: 'QEMU could not go on after an error of this host' },
}

const readers: Record<string, (data: Record<string, unknown>) => Announced> = {
  SHUTDOWN: ({ reason }) =>
    shutdowns[String(reason)] ?? {
      how: 'died',
      detail: `QEMU shut it down for a reason that is not known (${reason})`,
    },
  // With `run` the guest goes on; with `pause` it stands still, and its process lives. SHUTDOWN follows `poweroff`.
  GUEST_PANICKED: ({ action }) => (action === 'poweroff' ? shutdowns['guest-panic'] : undefined),
  // The watchdog ends QEMU at once, without SHUTDOWN. Of `shutdown` the guest hears, and can ignore it.
  WATCHDOG: ({ action }) =>
    action === 'poweroff' ? { how: 'powered-off', detail: 'its watchdog powered it off' } : undefined,
  RESET: () => 'runs on',
  RESUME: () => 'runs on',
  WAKEUP: () => 'runs on',
}

/** Events that say nothing about an end: an end that follows one is a death. */
export const silentEvents: readonly string[] = [
  ...[
    'STOP',
    'SUSPEND',
    'SUSPEND_DISK',
    'POWERDOWN',
    'GUEST_CRASHLOADED',
    'GUEST_PVSHUTDOWN',
    'MEMORY_FAILURE',
  ],
  ...['BLOCK_IO_ERROR', 'BLOCK_IMAGE_CORRUPTED', 'BLOCK_WRITE_THRESHOLD', 'BLOCK_EXPORT_DELETED'],
  ...[
    'BLOCK_JOB_COMPLETED',
    'BLOCK_JOB_CANCELLED',
    'BLOCK_JOB_ERROR',
    'BLOCK_JOB_READY',
    'BLOCK_JOB_PENDING',
  ],
  ...[
    'JOB_STATUS_CHANGE',
    'QUORUM_FAILURE',
    'QUORUM_REPORT_BAD',
    'PR_MANAGER_STATUS_CHANGED',
    'DUMP_COMPLETED',
  ],
  ...['MIGRATION', 'MIGRATION_PASS', 'COLO_EXIT', 'UNPLUG_PRIMARY', 'FAILOVER_NEGOTIATED', 'VFIO_MIGRATION'],
  ...[
    'DEVICE_DELETED',
    'DEVICE_UNPLUG_GUEST_ERROR',
    'DEVICE_TRAY_MOVED',
    'MEM_UNPLUG_ERROR',
    'ACPI_DEVICE_OST',
  ],
  ...['BALLOON_CHANGE', 'HV_BALLOON_STATUS_REPORT', 'MEMORY_DEVICE_SIZE_CHANGE', 'CPU_POLARIZATION_CHANGE'],
  ...['NIC_RX_FILTER_CHANGED', 'NETDEV_STREAM_CONNECTED', 'NETDEV_STREAM_DISCONNECTED'],
  ...['NETDEV_VHOST_USER_CONNECTED', 'NETDEV_VHOST_USER_DISCONNECTED', 'RDMA_GID_STATUS_CHANGED'],
  ...['VSERPORT_CHANGE', 'RTC_CHANGE', 'VFU_CLIENT_HANGUP'],
  ...['SPICE_CONNECTED', 'SPICE_INITIALIZED', 'SPICE_DISCONNECTED', 'SPICE_MIGRATE_COMPLETED'],
  ...['VNC_CONNECTED', 'VNC_INITIALIZED', 'VNC_DISCONNECTED'],
]

export const tellingEvents: readonly string[] = Object.keys(readers)
export const shutdownCauses: readonly string[] = Object.keys(shutdowns)

/** Hears the events of one QEMU in their order. */
export class Announcement {
  #end: GuestEnd | undefined

  heard({ event, data }: QmpEvent): void {
    const said = Object.hasOwn(readers, event) ? readers[event]?.(data ?? {}) : undefined
    if (said === 'runs on') this.#end = undefined
    // Where QEMU stays after a shutdown (-no-shutdown) somebody ends it then, by a signal: the guest had ended before.
    else if (said && !(said.how === 'died' && this.#end)) this.#end = said
  }

  /** What an end would be now; undefined: nobody has said that it is meant. */
  get end(): GuestEnd | undefined {
    return this.#end
  }
}

/** What each of QEMU's run states means for a guest that is not in a pause of ours (qapi/run-state.json). */
export const runStates: Record<string, 'runs' | 'stands' | 'ended' | 'waits'> = {
  running: 'runs',
  // In S3 it wakes by its own devices.
  suspended: 'runs',
  // By somebody else's command, or for a moment of QEMU's own.
  paused: 'stands',
  debug: 'stands',
  'save-vm': 'stands',
  'restore-vm': 'stands',
  'finish-migrate': 'stands',
  postmigrate: 'stands',
  colo: 'stands',
  // By what is in it: `cont` lets it go on, or try again.
  'guest-panicked': 'stands',
  watchdog: 'stands',
  'io-error': 'stands',
  // QEMU refuses to run it any further.
  'internal-error': 'ended',
  shutdown: 'ended',
  inmigrate: 'waits',
  prelaunch: 'waits',
}
