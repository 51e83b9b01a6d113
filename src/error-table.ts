/**
 * The one table of errors. It gives each code its meaning, its exit status and, in docs/errors.md (generated from here), what to do
 * about it. Every message says what happened, to what, and what to do.
 */
import { type ErrorEntry, entry, exitStatus } from './error-entry.ts'

export { exitStatus }

export const errorTable = {
  ADDON_MISSING: entry(
    'The native addon could not be loaded.',
    'Run `npm run build:native` in the folder of subpage, the one above build/; it needs a C compiler and the development files that `subpage check` names.',
    500,
    exitStatus.lacksFeature,
  ),
  AGENT_UNREACHABLE: entry(
    'No agent answers on the API socket.',
    'Start it with `subpage agent`, or name its socket with --api.',
  ),
  AGENT_RUNNING: entry(
    'Another agent already serves this state directory.',
    'Stop that one, or give this one a directory of its own with --state.',
    409,
    exitStatus.heldElsewhere,
  ),
  ADDRESS_IN_USE: entry(
    'The address to listen on is taken by another program.',
    'Choose another port, or stop the program that holds it.',
  ),
  ARBITER_NOT_SHARED: entry(
    'The two hosts do not see the same arbiter.',
    'Give both the same --arbiter: a directory that both have mounted, or the same etcd cluster.',
    409,
  ),
  ARBITER_UNREACHABLE: entry(
    'The arbiter gives no answer, so neither host may conclude that it holds the guest.',
    'Bring the etcd cluster or the shared directory back, as the message says; the question is then asked again.',
    503,
  ),
  AUTH_REFUSED: entry(
    'One side did not prove to the other that it may be here: a certificate or a token is missing, wrong or expired.',
    'The message says which, and why; see security.md. `subpage cert` makes certificates.',
    401,
    exitStatus.refused,
  ),
  BAD_ARGUMENT: entry(
    'An argument or a field of a request has a wrong form.',
    'Correct it as the message says.',
    400,
    exitStatus.usage,
  ),
  CANCELLED: entry(
    'Somebody cancelled what was under way: a comparison, a switchover, a protection that had no checkpoint yet.',
    'The message says what is left. Begin it again when you want it.',
    409,
    exitStatus.interrupted,
  ),
  NOT_CANCELLABLE: entry(
    'Nothing is under way that could be cancelled: it is over, or has come too far.',
    '`subpage status NAME` says what the guest is now. `subpage unprotect NAME` ends a protection.',
    409,
  ),
  CONSOLE_TAKEN: entry(
    'Somebody has the serial console of this guest already; one at a time can have it.',
    'Leave the other one with Ctrl-]; the log of the console, which `status` names, can be read meanwhile.',
    409,
  ),
  DELTA_MALFORMED: entry(
    'A delta breaks its format or names a page outside the image. Nothing of it was written.',
    'The peer is broken or hostile; the connection is closed. Check that both hosts run the same release.',
  ),
  FILE_EXISTS: entry(
    'A file that would be written exists, and others may depend on it.',
    'Choose another directory, or replace it with --force.',
    409,
  ),
  FRAME_MALFORMED: entry(
    'A frame on the replication connection breaks the protocol or its checksum.',
    'The connection is closed and opened anew; if it recurs, the network or the peer damages data.',
  ),
  GUEST_DENSE: entry(
    'The memory of the guest is held densely: much of it is not in its RAM file.',
    '`subpage density off NAME` brings it back; then record or analyze it.',
    409,
  ),
  GUEST_DIED: entry(
    'The QEMU process of the guest, or the process that was recorded, has ended.',
    "The message says how; a guest's own last words are in its log.",
    409,
  ),
  FIRMWARE_MISSING: entry(
    'This host has no firmware of the kind that the guest is to have.',
    'Install the package that the message names, on both hosts.',
    422,
    exitStatus.lacksFeature,
  ),
  GUEST_ENDED: entry(
    'The guest has ended as it was meant to: it shut itself down, or somebody ended it.',
    'Nothing is wrong. `subpage remove NAME` forgets it; its logs go then, too.',
    409,
  ),
  GUEST_SUSPENDED: entry(
    'Somebody other than subpage has suspended the guest: it stands still.',
    '`virsh resume NAME`, or QMP `cont`, lets it run. Its protection is as it was.',
    409,
    exitStatus.degraded,
  ),
  GUEST_EXISTS: entry(
    'A guest of this name exists on this host.',
    'Choose another name, or end that guest first.',
    409,
  ),
  GUEST_HUNG: entry(
    'The QEMU of the guest runs and gives no answer.',
    'The message says since when. Look for a disk that is gone, a debugger, or a host without memory; the agent goes on by itself when QEMU answers. `subpage remove` ends the guest.',
    503,
    exitStatus.degraded,
  ),
  GUEST_UNKNOWN: entry(
    'No guest of this name is on this host.',
    'See `subpage status` for the names.',
    404,
    exitStatus.notFound,
  ),
  GUEST_UNPROTECTABLE: entry(
    'The guest has a device or an option that a standby could not take over.',
    'Leave out what the message names.',
    422,
  ),
  HELD_ELSEWHERE: entry(
    'The guest runs on another host in a newer generation.',
    'Nothing here may run it; see `subpage status` on that host, and protect the guest from there.',
    409,
    exitStatus.heldElsewhere,
  ),
  IMAGE_DIFFERS: entry(
    'The image on the standby is not what the guest holds.',
    'This is a defect; keep both files. `subpage unprotect` and `protect` seed the image afresh.',
  ),
  IMAGE_MALFORMED: entry(
    'A memory image is cut short, damaged, or not of a kind that is read here.',
    'The message names the kind and the way to convert it. Raw images, sparse ones, ELF cores of 64 bits and uncompressed images of LiME and AVML are read.',
  ),
  KEEPER_FAILED: entry(
    'The process that keeps dense memory did not start, has ended, or is of an older release than what is asked of it.',
    'The agent starts it again, and guests go on; keeper.log in the state directory says why it ended. One of an older release is ended with SIGTERM.',
    503,
  ),
  LIBVIRT_MISSING: entry(
    'The client of libvirt, virsh, is not installed on this host.',
    'Install libvirt-clients (Debian) or what your distribution calls it; only `subpage libvirt` needs it.',
    501,
    exitStatus.lacksFeature,
  ),
  LIBVIRT_REFUSED: entry(
    'Libvirt did not do what it was asked, or a directory for a domain could not be made.',
    "The message has libvirt's own words.",
    502,
  ),
  LIBVIRT_UNREACHABLE: entry(
    'The daemon of libvirt does not answer.',
    'Start it (`systemctl start libvirtd`), run the command as a user that may speak to it (root, or of the group libvirt), or name another connection with --connect.',
    503,
  ),
  NETWORK_FAILED: entry(
    'A guest could not be put on its bridge.',
    'The agent needs CAP_NET_ADMIN, /dev/net/tun and the command `ip`; `subpage check` says what is missing.',
  ),
  DEVICES_DIFFER: entry(
    'The guest has other devices or media than its standby, which could not take it over.',
    'Take back what the message names, or shut the guest down and start it with the devices that it shall have. Its protection goes on by itself.',
    409,
  ),
  DISK_UNUSABLE: entry(
    'A file or device cannot be a disk of the guest.',
    'The message says why; name another one, or move away what is in its place.',
    400,
  ),
  DISK_FAILED: entry(
    'A disk of a protected guest could not be copied, or written on the standby.',
    'Look at the room and the health of the file systems that the message names; the guest runs on, and its protection is tried again.',
  ),
  DISK_FULL: entry(
    'The file system, or the device, below a disk of the guest is full.',
    'Make room there: the guest stands still until it can write, then it goes on by itself.',
    507,
  ),
  NO_SPACE: entry(
    'There is no room for guest memory, shadow or image.',
    'Free memory on that host, enlarge /dev/shm, or give the guest less RAM.',
    507,
  ),
  NOT_FOUND: entry(
    'The API has nothing under this method and path.',
    'Look at the path; client and agent may also be of different releases.',
    404,
  ),
  NOT_SET_UP: entry(
    'Something that this command needs has not been built or installed yet.',
    'Run the command that the message names; `npm run setup -- --studies` in a checkout brings whatever benchmarks and studies need.',
    500,
    exitStatus.lacksFeature,
  ),
  LAB_MISSING: entry(
    'The package subpage-lab is not installed, or is of another release. It has `record`, `report`, `study` and the plugin that `run --track` loads into QEMU.',
    'Run the command that the message names: `npm install subpage-lab` where npm has installed subpage, in a checkout `npm run setup`; beside the Debian package the lab has a subpage of its own.',
    500,
    exitStatus.lacksFeature,
  ),
  NOT_PROTECTED: entry(
    'The guest has no standby that could take over.',
    'Protect it with `subpage protect NAME --to HOST`.',
    409,
    exitStatus.notProtected,
  ),
  ALREADY_PROTECTED: entry(
    'The guest is protected already.',
    '`subpage unprotect NAME` first, to choose another standby.',
    409,
  ),
  OUTPUT_FAILED: entry(
    'Something that a command makes could not be written.',
    'The message says where and why: a disk that fails, a mount that is gone. What was written before is whole.',
  ),
  PAUSE_BROKEN: entry(
    'A checkpoint took so long that the guest was resumed before it was complete.',
    'Nothing is lost: the next checkpoint carries its pages. If it recurs, this host is overloaded.',
    503,
  ),
  PEER_MISMATCH: entry(
    'The two hosts differ in a way that would break a failover.',
    'Install the same QEMU and subpage on both, as the message says.',
    409,
  ),
  PEER_UNREACHABLE: entry(
    'The agent of the other host does not answer.',
    'Check the address, the firewall, and that `subpage agent` runs there.',
    502,
  ),
  PROCESS_REFUSED: entry(
    'A process may not be watched, or cannot be held.',
    'The message says why: another tracer, another user, a rule of this host. The process goes on.',
    403,
    exitStatus.refused,
  ),
  QEMU_FAILED: entry(
    'QEMU refused to start or to do what it was asked.',
    "Read QEMU's own words in the message.",
    502,
  ),
  QEMU_MISSING: entry(
    'No QEMU is installed.',
    'apt-get install qemu-system-x86',
    500,
    exitStatus.lacksFeature,
  ),
  RAM_UNLINKED: entry(
    'The file with the RAM of the guest was removed by somebody else. The memory lasts as long as its process.',
    'Keep /dev/shm free of programs that clean it. A switchover, or a start anew, gives the guest a file again.',
    409,
    exitStatus.degraded,
  ),
  READ_ONLY: entry(
    'The token, or the page of the dashboard, may only read: what was asked for changes something, or shows what is on a screen.',
    'Ask with the token of --api-token-file.',
    403,
    exitStatus.refused,
  ),
  SECRET_EXPOSED: entry(
    'A file or directory that must be secret can be read by other users of this host.',
    'Change its mode or owner as the message says; if it was exposed for long, make the secret anew.',
    403,
    exitStatus.refused,
  ),
  STANDBY_LAGS: entry(
    'The standby, or the link to it, does not keep up with what the guest writes: a failover would lose more than an epoch of what was not sent yet.',
    "Look at the link and at the load of the standby's host. Longer epochs, or `--epoch auto`, need less of both.",
    503,
    exitStatus.degraded,
  ),
  STANDBY_NOT_READY: entry(
    'The standby has no whole checkpoint yet, or must not take over.',
    'Wait until `subpage status` says Protected, or give --force if you know that the primary is gone.',
    409,
  ),
  STORE_DAMAGED: entry(
    'What the content store holds is not what was put there: its memory or its swap file was changed.',
    'A guest that needs such a page waits rather than reads a wrong one. Check the disk of the swap file; a protected guest can be failed over.',
  ),
  STATE_DAMAGED: entry(
    'A file in the state directory is damaged.',
    'The message names it, and says what becomes of what it was for.',
  ),
  SUPERVISOR_FAILED: entry(
    'The process that works for a guest did not start, hangs, or has ended; the guest runs on.',
    'The agent starts it again; supervisor.log in the directory of the guest says why it ended.',
    503,
  ),
  TAKEOVER_BY_COMMAND: entry(
    'The standby has lost its primary and does not go on by itself: nobody could keep two copies from serving.',
    'When you know that the primary and its guest are gone, `subpage failover NAME --force` on this host. An arbiter that both hosts share, and outputs that are held, let it decide by itself.',
    409,
    exitStatus.degraded,
  ),
  TLS_REQUIRED: entry(
    'Without certificates an agent speaks to agents of its own machine only, through the sockets in their state directories.',
    'Make certificates with `subpage cert`, and start both agents with --tls-ca, --tls-cert and --tls-key. On one machine give `protect --to` the state directory of the other agent.',
    403,
    exitStatus.refused,
  ),
  TRACE_MALFORMED: entry(
    'A trace file is cut short, damaged, of another format, or no trace at all.',
    'The message says which. Copy the file again, read it with the release that wrote it, or record anew.',
  ),
  TRACKER_UNAVAILABLE: entry(
    'The kernel or the guest does not allow this way of tracking writes.',
    '`subpage check` says which trackers work here; `compare` works everywhere, for guests of some GiB: it reads all memory in each pause.',
    422,
    exitStatus.lacksFeature,
  ),
  WORKLOAD_FAILED: entry(
    'A workload of a study could not be set up, or ended before it could be recorded.',
    'The message has its last words; `subpage study NAME --only WORKLOAD` runs it alone.',
  ),
  INTERRUPTED: entry(
    'A signal ended the command before there was anything to show.',
    'Run it again; a study that has measured some of its parts shows those.',
    500,
    exitStatus.interrupted,
  ),
  INTERNAL: entry(
    'An invariant of subpage does not hold: a defect.',
    'Please report it with the message and the stack.',
  ),
} as const satisfies Record<string, ErrorEntry>
