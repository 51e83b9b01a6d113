/**
 * The table of limits: how much of anything that comes from outside is taken. Whoever reads such bytes takes its limit from here;
 * docs/limits.md is made of this table, and each row names the test that fails when its limit is not kept. Limits of native/core
 * are defined there, because C needs them as constants; test/limits.test.ts holds that both agree.
 */

export interface Limit {
  value: number
  unit: 'bytes' | 'lines' | 'connections' | 'sessions' | 'events' | 'characters' | 'segments' | 'of them'
  /** Of what. */
  of: string
  /** What happens to more. */
  beyond: string
  /** The test that fails when it is not kept. */
  test: string
}

const MiB = 2 ** 20

/** A frame has its header beside this. */
const framePayloadBytes = 4 * MiB

export const limits = {
  framePayloadBytes: {
    value: framePayloadBytes,
    unit: 'bytes',
    of: 'the payload of a frame',
    beyond: 'FRAME_MALFORMED before memory is taken for it; the connection is closed',
    test: 'test/replication/frame.test.ts',
  },
  checkpointOverheadBytes: {
    value: 64 * MiB,
    unit: 'bytes',
    of: "the frames of a checkpoint, beyond the size of the guest's memory",
    beyond: 'FRAME_MALFORMED; the connection is closed',
    test: 'test/replication/hostile-primary.test.ts',
  },
  checkpointDiskBytes: {
    value: 512 * MiB,
    unit: 'bytes',
    of: 'the writes to disks in a checkpoint, which a standby holds until its commit',
    beyond: 'FRAME_MALFORMED; the connection is closed. A primary lets the guest wait before',
    test: 'test/replication/disks.test.ts',
  },
  heldDiskBytes: {
    value: 64 * MiB,
    unit: 'bytes',
    of: 'these writes, in the memory of the standby',
    beyond:
      'they are put into a file of its state directory, without a name; if that has no room, DISK_FAILED, the checkpoint is refused, and the guest runs on',
    test: 'test/replication/disk-spill.test.ts',
  },
  deviceStateBytes: {
    // Its pages go raw at worst, a byte of gap and two of kind each: 1023 of them fit into a frame with length and header.
    value: framePayloadBytes - 4096,
    unit: 'bytes',
    of: 'the device state of a guest',
    beyond: 'GUEST_UNPROTECTABLE on the primary, FRAME_MALFORMED on the standby',
    test: 'test/replication/device-state.test.ts',
  },
  disks: {
    value: 16,
    unit: 'of them',
    of: 'the writable disks of a guest',
    beyond: 'BAD_ARGUMENT; PEER_MISMATCH in what another host describes',
    test: 'test/qemu/machine-description.test.ts',
  },
  networkCards: {
    value: 8,
    unit: 'of them',
    of: 'the network cards of a guest, by --net',
    beyond: 'BAD_ARGUMENT; PEER_MISMATCH in what another host describes',
    test: 'test/qemu/machine-description.test.ts',
  },
  memoryBlocks: {
    // As the shim has it (native/shim/shim.h).
    value: 60,
    unit: 'of them',
    of: 'the blocks of memory of a guest beside its RAM',
    beyond: 'GUEST_UNPROTECTABLE; PEER_MISMATCH in what another host describes',
    test: 'test/qemu/machine-description.test.ts',
  },
  memoryBackends: {
    // As the shim has it.
    value: 16,
    unit: 'of them',
    of: 'the memory backends that the RAM of a guest is made of: the main memory or its NUMA nodes, and memory devices',
    beyond: 'GUEST_UNPROTECTABLE; PEER_MISMATCH in what another host describes',
    test: 'test/qemu/memory-backends.test.ts',
  },
  recordBytes: {
    value: 4169,
    unit: 'bytes',
    of: 'the record of a page in a delta, without its gap (native/core)',
    beyond: 'DELTA_MALFORMED: a line that costs more by its words than whole is refused',
    test: 'test/native/test_restore.c',
  },
  reducedBodyBytes: {
    value: 8 * MiB,
    unit: 'bytes',
    of: 'the body of a reduced delta before compression (native/core)',
    beyond: 'DELTA_MALFORMED before memory is taken for it; the connection is closed',
    test: 'test/native/test_restore.c',
  },
  diskWriteBytes: {
    value: 32 * MiB,
    unit: 'bytes',
    of: 'one write to a disk, and one record of it (native/disk)',
    beyond: 'the connection of the NBD client is closed; FRAME_MALFORMED for a record',
    test: 'test/disk/hostile.test.ts',
  },
  nbdOptionBytes: {
    value: 16_384,
    unit: 'bytes',
    of: 'what an NBD client says of an option (native/disk)',
    beyond: 'the connection is closed',
    test: 'test/disk/hostile.test.ts',
  },
  dictionarySlots: {
    value: 65_280,
    unit: 'lines',
    of: 'what each side of a connection keeps of the lines that were sent (native/core)',
    beyond: 'the oldest is replaced',
    test: 'test/native/test_reduce.c',
  },
  strangers: {
    value: 64,
    unit: 'connections',
    of: 'hosts that have connected and said no hello yet',
    beyond: 'the connection is closed at once',
    test: 'test/agent/transport.test.ts',
  },
  strangersPerAddress: {
    value: 16,
    unit: 'connections',
    of: 'the same from one address',
    beyond: 'the connection is closed at once',
    test: 'test/agent/transport.test.ts',
  },
  apiConnections: {
    value: 64,
    unit: 'connections',
    of: 'the API over TCP',
    beyond: 'the connection is closed at once',
    test: 'test/agent/api-auth.test.ts',
  },
  apiBodyBytes: {
    value: 256 * 1024,
    unit: 'bytes',
    of: 'the body of a request to the API',
    beyond: 'status 413; the connection is closed',
    test: 'test/agent/api-auth.test.ts',
  },
  dashboardSessions: {
    value: 64,
    unit: 'sessions',
    of: 'pages of the dashboard that one agent lets in, and addresses that it has given out for them',
    beyond: 'the oldest ends',
    test: 'test/agent/access.test.ts',
  },
  keptEvents: {
    value: 1000,
    unit: 'events',
    of: 'what an agent keeps of what happened on its host',
    beyond: 'the oldest is forgotten',
    test: 'test/limits.test.ts',
  },
  notificationsAtOnce: {
    value: 4,
    unit: 'events',
    of: 'events that one program (`agent --on-event`), or `--webhook`, is told at once',
    beyond: 'the next ones wait',
    test: 'test/agent/notifications.test.ts',
  },
  notificationsWaiting: {
    value: 256,
    unit: 'events',
    of: 'events that wait to be notified',
    beyond: 'the oldest is dropped, and an event says how many were',
    test: 'test/agent/notifications.test.ts',
  },
  supervisorLogBytes: {
    value: 256 * 1024,
    unit: 'bytes',
    of: "a supervisor's log, in the directory of its guest",
    beyond: 'it begins anew',
    test: 'test/agent/log.test.ts',
  },
  eventLength: {
    value: 2048,
    unit: 'characters',
    of: 'the text of an event, some of which a peer says',
    beyond: 'the rest is cut off',
    test: 'test/limits.test.ts',
  },
  qmpLineBytes: {
    value: 4 * MiB,
    unit: 'bytes',
    of: 'an answer or event of QEMU (QMP), in characters',
    beyond: 'QEMU_FAILED; this control connection is closed',
    test: 'test/qemu/qmp.test.ts',
  },
  arbiterDecisionBytes: {
    value: 4096,
    unit: 'bytes',
    of: 'a decision in the file of an arbiter',
    beyond: 'it counts as damaged, and nothing is decided by it',
    test: 'test/replication/arbiter-file.test.ts',
  },
  arbiterAnswerBytes: {
    value: 64 * 1024,
    unit: 'bytes',
    of: 'an answer of etcd',
    beyond: 'ARBITER_UNREACHABLE; nothing is decided by it',
    test: 'test/replication/arbiter-open.test.ts',
  },
  traceBodyBytes: {
    value: 512 * MiB,
    unit: 'bytes',
    of: 'the body of a block of a trace',
    beyond: 'TRACE_MALFORMED before memory is taken for it',
    test: 'lab/test/trace.test.ts',
  },
  coreSegments: {
    value: 4 * MiB,
    unit: 'segments',
    of: 'an ELF core, or ranges of an image of LiME',
    beyond: 'IMAGE_MALFORMED before memory is taken for them',
    test: 'test/limits.test.ts',
  },
} as const satisfies Record<string, Limit>
