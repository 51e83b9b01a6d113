/**
 * The table of metrics: each figure of `status` by the name that Prometheus knows it by, in base units (seconds, bytes, shares).
 * metrics.ts answers /metrics with it; docs/metrics.md is made of it; test/agent/metrics.test.ts holds that no figure of the schema
 * is left out, and that the dashboard and the alerts in packaging/ use no other names.
 */
import type { PrimaryState } from '../replication/primary-options.ts'
import type { StandbyState } from '../replication/standby-options.ts'
import type { GuestStatus } from './status.ts'

export interface FigureMetric {
  name: string
  type: 'gauge' | 'counter'
  help: string
  /** Path of the figure in the status of a guest; `[]` goes through its disks. */
  from: string
  /** Of one unit of the figure, in the metric's. */
  scale?: number
  labels?: Record<string, string>
}

const ms = 1e-3

const gauge = (name: string, help: string, from: string, scale?: number, labels?: Record<string, string>) =>
  figure('gauge', name, help, from, scale, labels)
const counter = (name: string, help: string, from: string, scale?: number, labels?: Record<string, string>) =>
  figure('counter', name, help, from, scale, labels)

function figure(
  type: 'gauge' | 'counter',
  name: string,
  help: string,
  from: string,
  scale?: number,
  labels?: Record<string, string>,
): FigureMetric {
  return {
    ...{ name: `subpage_${name}`, type, help, from },
    ...(scale !== undefined && { scale }),
    ...(labels && { labels }),
  }
}

const bytesHelp = 'Bytes of committed checkpoints, by what they are.'
const reducedHelp = 'Changed lines since the connection began, by what became of them.'
const diskSentHelp = 'Bytes of writes that went to the standby, by how they went.'
const diskSent = (from: string, how: string) =>
  counter('guest_disk_sent_bytes_total', diskSentHelp, `disks[].sent.${from}`, 1, { how })
const epochBytes = (from: string, what: string) =>
  counter('guest_checkpoint_bytes_total', bytesHelp, `epochs.bytes.${from}`, 1, { what })
const reducedLines = (from: string, how: string) =>
  counter('guest_reduced_lines_total', reducedHelp, `last.reduced.${from}`, 1, { how })

/** Of a guest; each has the label guest, those of disks the label disk. */
export const figureMetrics: readonly FigureMetric[] = [
  gauge('guest_memory_bytes', 'RAM of the guest.', 'ramBytes'),
  gauge('guest_device_memory_bytes', 'Memory of its devices and firmware.', 'auxBytes'),
  gauge('guest_generation', 'Decisions about who runs the guest, counted.', 'generation'),
  gauge('guest_epoch_seconds', 'Length of an epoch, as it is now.', 'epochMs', ms),
  gauge('guest_pause_share_max', 'Share of time that pauses and faults may take.', 'pauseShareMax'),
  gauge(
    'guest_latency_goal_seconds',
    'How long what the guest sends may wait for its commit, on average.',
    'latencyMs',
    ms,
  ),
  gauge(
    'guest_lag_seconds',
    'Age of the state that the standby holds: what a failover now would lose.',
    'epochs.lagMs',
    ms,
  ),
  gauge(
    'guest_paused_share',
    'Share of time that the guest stands still for checkpoints, lately.',
    'epochs.cost.pauses',
  ),
  gauge(
    'guest_fault_share',
    'Share of the time of one virtual CPU that first writes to armed pages take, estimated.',
    'epochs.cost.faults',
  ),
  gauge(
    'guest_output_wait_seconds',
    'How long what the guest sends waits for its commit, on average, lately.',
    'epochs.cost.outputWaitMs',
    ms,
  ),
  gauge('guest_committed_epoch', 'The newest checkpoint that is safe on the standby.', 'committed.epoch'),
  counter('guest_checkpoints_total', 'Checkpoints that were committed.', 'epochs.checkpoints'),
  counter(
    'guest_checkpoints_failed_total',
    'Checkpoints that were begun and not committed.',
    'epochs.failed',
  ),
  counter(
    'guest_dirty_pages_total',
    'Pages that were written: by the tracker, or not armed and changed.',
    'epochs.dirtyPages',
  ),
  counter('guest_changed_lines_total', 'Lines of 64 bytes whose content changed.', 'epochs.changedLines'),
  counter(
    'guest_early_pages_total',
    'Pages that were sent before the end of their epoch.',
    'epochs.earlyPages',
  ),
  counter(
    'guest_early_pages_again_total',
    'Of these, sent in vain: written again.',
    'epochs.earlyPagesAgain',
  ),
  counter(
    'guest_shared_captures_total',
    'Captures of so many pages that two threads shared them.',
    'epochs.sharedCaptures',
  ),
  gauge(
    'guest_amplification',
    'Bytes of dirty pages divided by bytes of changed lines.',
    'epochs.amplification',
  ),
  epochBytes('dirtyPages', 'dirty_pages'),
  epochBytes('changedLines', 'changed_lines'),
  epochBytes('delta', 'delta'),
  epochBytes('sent', 'sent'),
  epochBytes('final', 'sent_after_pause'),
  reducedLines('lines', 'looked_up'),
  reducedLines('dictionaryLines', 'dictionary'),
  reducedLines('sharedLines', 'shared'),
  counter(
    'guest_similar_pages_total',
    'New pages sent as a change of another, since the connection began.',
    'last.reduced.similarPages',
  ),
  counter(
    'guest_reduced_body_bytes_total',
    'Bytes left before compression, since the connection began.',
    'last.reduced.bodyBytes',
  ),
  gauge('guest_seeding_done_bytes', 'Of memory and disks: compared or sent.', 'seeding.doneBytes'),
  gauge('guest_seeding_bytes', 'All that seeding has to compare or send.', 'seeding.totalBytes'),
  gauge('guest_seeding_bytes_per_second', 'How fast seeding goes.', 'seeding.bytesPerSecond'),
  gauge('guest_seeding_left_seconds', 'How long seeding will still take.', 'seeding.secondsLeft'),
  gauge('guest_operation_done_bytes', 'What a command has done of its work.', 'operation.progress.doneBytes'),
  gauge('guest_operation_bytes', 'All that a command has to do.', 'operation.progress.totalBytes'),
  gauge(
    'guest_operation_bytes_per_second',
    'How fast a command goes on.',
    'operation.progress.bytesPerSecond',
  ),
  gauge(
    'guest_operation_left_seconds',
    'How long a command will still take.',
    'operation.progress.secondsLeft',
  ),
  gauge('guest_verified_timestamp_seconds', 'When guest and standby were compared last.', 'verified.at', ms),
  gauge('guest_shadow_bytes', 'Memory of the shadow, at most.', 'memory.shadowBytes'),
  gauge('guest_reducer_bytes', 'Memory of dictionary and indexes.', 'memory.reducerBytes'),
  gauge(
    'guest_hot_pages',
    'Pages that change in most epochs: not armed, and always compared.',
    'hotPages.now',
  ),
  counter(
    'guest_faults_saved_total',
    'Writes to hot pages: each would have cost the guest a fault.',
    'hotPages.faultsSaved',
  ),
  counter(
    'guest_hot_comparisons_total',
    'Comparisons of hot pages that had not changed.',
    'hotPages.comparisons',
  ),
  counter('guest_fenced_packets_total', 'Packets of a copy that may not speak, dropped.', 'fence.silenced'),
  gauge('guest_supervisor_memory_bytes', 'Memory of its supervisor itself.', 'supervisor.ownBytes'),
  gauge(
    'guest_supervisor_loop_delay_max_seconds',
    'Longest time that the event loop of its supervisor was late.',
    'supervisor.loopDelayMs',
    ms,
  ),
  gauge('guest_takeover_timestamp_seconds', 'When this host took the guest over.', 'takeover.at', ms),
  gauge('guest_takeover_seconds', 'How long that took.', 'takeover.ms', ms),
  gauge('guest_takeover_epoch', 'The checkpoint that was taken over.', 'takeover.epoch'),
  gauge('guest_disk_bytes', 'Size of a writable disk.', 'disks[].bytes'),
  gauge(
    'guest_disk_behind_bytes',
    'Written here, and not on their way to the standby yet.',
    'disks[].behindBytes',
  ),
  gauge('guest_disk_journal_memory_bytes', 'Of these, in memory.', 'disks[].journal.memoryBytes'),
  gauge('guest_disk_journal_file_bytes', 'Of these, in a file.', 'disks[].journal.fileBytes'),
  counter(
    'guest_disk_journal_spilled_bytes_total',
    'Bytes that ever were in that file, for want of memory.',
    'disks[].journal.spilledBytes',
  ),
  counter('guest_disk_writes_total', 'Writes, of the guest and of seeding.', 'disks[].writes'),
  counter('guest_disk_written_bytes_total', 'Bytes of these writes.', 'disks[].writtenBytes'),
  counter('guest_disk_equal_bytes_total', 'Of these, what the standby had already.', 'disks[].equalBytes'),
  counter('guest_disk_zero_bytes_total', 'Of these, zeros.', 'disks[].zeroBytes'),
  counter('guest_disk_errors_total', 'Reads and writes that failed on this host.', 'disks[].errors'),
  counter('guest_disk_cuts_total', 'Times that the mirror was cut for the guest.', 'disks[].cuts'),
  gauge(
    'guest_disk_seeded_read_bytes',
    'Read when the copy was last brought up.',
    'disks[].seeded.readBytes',
  ),
  gauge(
    'guest_disk_seeded_sent_bytes',
    'Of these and of writes meanwhile, sent.',
    'disks[].seeded.sentBytes',
  ),
  gauge('guest_spill_bytes', 'Writes to disks in the file of a standby.', 'spill.bytes'),
  counter('guest_spilled_bytes_total', 'Writes to disks that ever were there.', 'spill.totalBytes'),
  diskSent('wireBytes', 'all'),
  diskSent('sharedBytes', 'shared'),
  diskSent('dictionaryBytes', 'dictionary'),
  diskSent('zeroBytes', 'zero'),
  diskSent('compressedBytes', 'compressed'),
  diskSent('plainBytes', 'plain'),
]

/** Percentiles since the protection began: p50, p99 and the longest, as the quantiles 0.5, 0.99 and 1 of a summary. */
export const summaryMetrics = [
  {
    name: 'subpage_guest_own_pause_seconds',
    help: 'Our own part of pauses: harvest and capture.',
    from: 'epochs.ownUs',
  },
  {
    name: 'subpage_guest_harvest_seconds',
    help: 'Of our own part of pauses, finding the dirty pages.',
    from: 'epochs.harvestUs',
  },
  {
    name: 'subpage_guest_flush_seconds',
    help: "QEMU's flush of disks within pauses.",
    from: 'epochs.stopFlushUs',
  },
  {
    name: 'subpage_guest_commit_gap_seconds',
    help: 'Between two commits one after the other.',
    from: 'epochs.gapUs',
  },
] as const

export const histogramMetrics = [
  {
    name: 'subpage_guest_pause_seconds',
    help: 'How long the guest stood still for each checkpoint.',
    from: 'pause',
  },
  {
    name: 'subpage_guest_commit_seconds',
    help: 'From the end of a pause until the standby held the checkpoint.',
    from: 'commit',
  },
] as const

/** What is no number in status, and is one here. */
export const stateMetrics = {
  state: {
    name: 'subpage_guest_state',
    type: 'gauge',
    help: '1 for the state that the guest is in, 0 for the others.',
  },
  role: {
    name: 'subpage_guest_role',
    type: 'gauge',
    help: '1 for the role of the guest on this host, 0 for the others.',
  },
  reason: {
    name: 'subpage_guest_reason',
    type: 'gauge',
    help: '1 with the code of the reason for its state (errors.md); none where nothing has to be explained.',
  },
  safe: {
    name: 'subpage_guest_safe',
    type: 'gauge',
    help: '1 while this host could be lost, or could take over, and the guest would go on.',
  },
  verified: {
    name: 'subpage_guest_verified_equal',
    type: 'gauge',
    help: '1 when the last comparison found guest and standby equal.',
  },
  fence: {
    name: 'subpage_guest_fence_on',
    type: 'gauge',
    help: '1 when a copy that another host has taken over can be kept from speaking.',
  },
  shim: {
    name: 'subpage_guest_shim_missing',
    type: 'gauge',
    help: '1 when the library that tracks and guards is not in its QEMU.',
  },
} as const

export const hostMetrics = {
  build: { name: 'subpage_build_info', type: 'gauge', help: 'The release of the agent, and its host.' },
  memory: { name: 'subpage_agent_memory_bytes', type: 'gauge', help: 'Memory of the agent itself.' },
  guests: { name: 'subpage_guests', type: 'gauge', help: 'Guests of this host, by role.' },
  arbiter: { name: 'subpage_arbiter_up', type: 'gauge', help: '1 while the arbiter answers.' },
  clock: {
    name: 'subpage_clock_synchronized',
    type: 'gauge',
    help: '1 while something keeps the clock of the host right; none where the kernel does not tell.',
  },
  expiry: {
    name: 'subpage_certificate_expiry_timestamp_seconds',
    type: 'gauge',
    help: 'Until when the certificate of this host is valid.',
  },
} as const

export const roles: readonly GuestStatus['role'][] = ['Primary', 'Standby', 'Alone']
const stateNames: Record<PrimaryState | StandbyState | 'Running' | 'Ended' | 'Hung', true> = {
  Connecting: true,
  Seeding: true,
  Protected: true,
  Lagging: true,
  Failed: true,
  Running: true,
  Ended: true,
  Hung: true,
}
export const states: readonly string[] = Object.keys(stateNames)

/** Numbers of the schema that are no metric, and why. */
export const noMetric: Record<string, string> = {
  pid: 'a name',
  'vnc.port': 'a name',
  'supervisor.process': 'a name',
  'committed.consoleBytes': 'a position, for who reads the console',
  'takeover.consoleBytes': 'a position, for who reads the console',
  'last.epoch': 'subpage_guest_committed_epoch',
  'last.pauseUs': 'subpage_guest_pause_seconds',
  'last.ownUs': 'subpage_guest_own_pause_seconds',
  'last.commitUs': 'subpage_guest_commit_seconds',
  'last.dirtyPages': 'subpage_guest_dirty_pages_total',
  'last.changedLines': 'subpage_guest_changed_lines_total',
  'last.sentBytes': 'subpage_guest_checkpoint_bytes_total',
  'epochs.pauseUs': 'subpage_guest_pause_seconds',
  'epochs.commitUs': 'subpage_guest_commit_seconds',
}

/** A standby could take over right now, and somebody can decide that it may. */
export const isSafe = ({ role, state, arbiterTrouble }: GuestStatus): boolean =>
  role !== 'Alone' && state === 'Protected' && arbiterTrouble === null
