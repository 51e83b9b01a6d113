/** What the agent says of itself and its guests: the schema of `status`, and how it is filled. */
import { type Static, Type } from 'typebox'
import { shadowKinds } from '../delta/shadow.ts'
import type { QemuProcess } from '../qemu/qemu-process.ts'
import { release } from '../release.ts'
import { readShimStatus, shimMissing } from '../tracking/shim.ts'
import { formatAddress } from './address.ts'
import type { Agent } from './agent.ts'
import type { HostedGuest } from './hosted-guest.ts'
import { ownMemory } from './own-memory.ts'

const Percentiles = Type.Object({ p50: Type.Number(), p99: Type.Number(), max: Type.Number() })
const Nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) =>
  Type.Union([schema, Type.Null()])

export const Epochs = Type.Object({
  checkpoints: Type.Integer(),
  failed: Type.Integer(),
  pauseUs: Percentiles,
  ownUs: Percentiles,
  commitUs: Percentiles,
  bytes: Type.Object({
    dirtyPages: Type.Integer(),
    changedLines: Type.Integer(),
    delta: Type.Integer(),
    sent: Type.Integer(),
    final: Type.Integer({ description: 'of these, sent after the pause: what clients wait for' }),
  }),
  dirtyPages: Type.Integer(),
  earlyPages: Type.Integer({ description: 'of these, sent before the end of their epoch' }),
  earlyPagesAgain: Type.Integer({ description: 'sent early in vain: written again, and sent again' }),
  changedLines: Type.Integer(),
  amplification: Nullable(Type.Number()),
})

const Last = Type.Object({
  epoch: Type.Integer(),
  pauseUs: Type.Number(),
  ownUs: Type.Number(),
  commitUs: Type.Number(),
  dirtyPages: Type.Integer(),
  changedLines: Type.Integer(),
  sentBytes: Type.Integer(),
  /** What makes the deltas smaller; counts since the connection began. */
  reduced: Type.Object({
    compression: Type.String({
      description: 'none (not reduced), off, lz4 or zstd, as chosen for this epoch',
    }),
    lines: Type.Integer({ description: 'changed lines that were looked up' }),
    dictionaryLines: Type.Integer({ description: 'of these, known to the dictionary' }),
    sharedLines: Type.Integer({ description: 'of these, in the image already, elsewhere' }),
    similarPages: Type.Integer({ description: 'new pages sent as a change of another' }),
    bodyBytes: Type.Integer({ description: 'what was left before compression' }),
  }),
})

export const GuestStatus = Type.Object({
  name: Type.String(),
  role: Type.Union([Type.Literal('Primary'), Type.Literal('Standby'), Type.Literal('Alone')]),
  state: Type.String(),
  reason: Type.String(),
  peer: Nullable(Type.String()),
  ramBytes: Type.Integer(),
  accel: Type.String(),
  qemu: Type.String(),
  pid: Nullable(Type.Integer()),
  console: Type.String({ description: 'file with the output of the serial console' }),
  tracker: Nullable(Type.String()),
  codec: Nullable(Type.String()),
  epochMs: Nullable(Type.Number()),
  /** Not null: the epoch is automatic, and pauses may take this share of time. */
  pauseShareMax: Nullable(Type.Number()),
  /** `held`: what the guest sends waits for the commit. */
  outputs: Nullable(Type.Union([Type.Literal('held'), Type.Literal('free')])),
  /** What protecting takes of this host's memory. */
  memory: Nullable(
    Type.Object({
      shadow: Type.Enum([...shadowKinds]),
      shadowBytes: Type.Integer({ description: 'at most; memory that is all zeros takes none' }),
      reducerBytes: Type.Integer({ description: 'dictionary, and indexes of what the standby holds' }),
    }),
  ),
  /** Whether a copy that another host has taken over can be kept from speaking, and how many packets that has cost. */
  fence: Nullable(Type.Object({ on: Type.Boolean(), silenced: Type.Integer() })),
  shimMissing: Nullable(
    Type.String({
      description: 'the library that tracks, guards and fences was not loaded into QEMU: what follows',
    }),
  ),
  generation: Type.Integer(),
  /** Who decides when the two hosts have lost each other; null: only people, or nobody while there is one copy only. */
  arbiter: Nullable(Type.String()),
  arbiterTrouble: Nullable(
    Type.String({
      description: 'why the arbiter cannot decide just now; neither host goes on by itself then',
    }),
  ),
  epochs: Nullable(Epochs),
  last: Nullable(Last),
  /** The newest checkpoint that is safe on the standby. */
  committed: Nullable(Type.Object({ epoch: Type.Integer(), consoleBytes: Type.Integer() })),
  takeover: Nullable(
    Type.Object({
      /** Milliseconds since 1970, when the guest ran here. */
      at: Type.Number(),
      ms: Type.Number(),
      reason: Type.String(),
      epoch: Type.Integer(),
      /** Length of the guest's console output, on its former host, at the checkpoint that was taken over. */
      consoleBytes: Type.Integer(),
    }),
  ),
})
export type GuestStatus = Static<typeof GuestStatus>

export const HostStatus = Type.Object({
  host: Type.String(),
  release: Type.String(),
  pid: Type.Integer(),
  /** Where other agents reach this one: HOST:PORT, or without certificates the socket in its state directory. */
  address: Type.String(),
  /** The host's certificate; null when it speaks to its own machine only. */
  certificate: Nullable(
    Type.Object({ name: Type.String(), validTo: Type.String({ description: 'ISO 8601, UTC' }) }),
  ),
  /** Whom this host asks when it has lost another. */
  arbiter: Type.Object({
    description: Type.String(),
    trouble: Nullable(Type.String({ description: 'why it gives no answer' })),
  }),
  ownBytes: Type.Integer({
    description: 'memory of the agent itself: neither guest RAM and images nor shadows',
  }),
  guests: Type.Array(GuestStatus),
})
export type HostStatus = Static<typeof HostStatus>

export function hostStatus(agent: Agent): HostStatus {
  return {
    host: agent.host.name,
    release,
    pid: process.pid,
    address: formatAddress(agent.address),
    certificate: certificateOf(agent),
    arbiter: { description: agent.host.arbiter.description, trouble: agent.host.health.trouble ?? null },
    ownBytes: ownMemory(shadowBytes(agent)),
    guests: [...agent.guests.values()].map((guest) => guestStatus(guest, agent)),
  }
}

function certificateOf({ host }: Agent): HostStatus['certificate'] {
  const credentials = host.transport.credentials?.()
  return credentials ? { name: credentials.name, validTo: credentials.validTo.toISOString() } : null
}

function shadowBytes(agent: Agent): number {
  return [...agent.guests.values()]
    .map((guest) => (guest.kind === 'running' ? (guest.primary?.memory.shadowBytes ?? 0) : 0))
    .reduce((sum, bytes) => sum + bytes, 0)
}

export function guestStatus(guest: HostedGuest, agent: Agent): GuestStatus {
  const status = statusOf(guest, agent)
  if ((guest.kind !== 'running' && guest.kind !== 'standby') || !guest.qemu.ramIsUnlinked) return status
  const unlinked = 'its RAM file was removed by somebody else, and its memory lasts as long as its process'
  return { ...status, reason: status.reason ? `${status.reason}; ${unlinked}` : unlinked }
}

function statusOf(guest: HostedGuest, { host }: Agent): GuestStatus {
  const { trouble } = host.health
  const { record, files } = guest.kind === 'ended' || guest.kind === 'unanswered' ? guest : guest.qemu
  const common = {
    name: guest.name,
    peer: null,
    ramBytes: record?.machine.ramBytes ?? 0,
    accel: record?.machine.accel ?? '',
    qemu: record?.qemuVersion ?? '',
    pid: record?.process.pid ?? null,
    console: files.consoleLog,
    tracker: null,
    codec: null,
    epochMs: null,
    pauseShareMax: null,
    outputs: null,
    memory: null,
    fence: null,
    shimMissing:
      guest.kind === 'running' || guest.kind === 'standby' ? (shimMissing(files.shimStatus) ?? null) : null,
    generation: record?.generation ?? 0,
    arbiter: null,
    arbiterTrouble: null,
    epochs: null,
    last: null,
    committed: null,
    takeover: null,
  }
  if (guest.kind === 'ended')
    return {
      ...common,
      role: 'Alone',
      state: guest.end.how === 'died' ? 'Failed' : 'Ended',
      reason: guest.end.detail,
      pid: null,
    }
  if (guest.kind === 'unanswered') return { ...common, role: 'Alone', state: 'Hung', reason: guest.reason }
  if (guest.kind === 'standby') {
    const { standby, hello } = guest
    const { hang } = guest.qemu
    const arbiterTrouble = (standby.arbiter !== null && trouble) || null
    return {
      ...common,
      role: 'Standby',
      state: hang.since === undefined ? standby.state : 'Hung',
      reason: hang.since === undefined ? standby.reason || undecided(arbiterTrouble) : hang.reason,
      peer: hello.source.host,
      generation: standby.generation,
      arbiter: standby.arbiter,
      arbiterTrouble,
      outputs: hello.settings.outputs,
      committed: standby.committed ?? null,
    }
  }
  const { primary, takeover } = guest
  const running = {
    ...common,
    takeover: takeover
      ? {
          at: takeover.at,
          ms: takeover.takeoverMs,
          reason: takeover.reason,
          ...takeover.committed,
        }
      : null,
  }
  const { hang } = guest.qemu
  const hung = hang.since === undefined ? {} : { state: 'Hung', reason: hang.reason }
  const reason = guest.comingBack ? 'its protection goes on when its memory is back' : 'not protected'
  if (!primary && guest.trouble !== undefined)
    return { ...running, role: 'Alone', state: 'Failed', reason: guest.trouble, ...hung }
  if (!primary) return { ...running, role: 'Alone', state: 'Running', reason, ...hung }
  const { last } = primary.stats
  const { arbiter } = guest.succession
  const arbiterTrouble = (arbiter !== null && (trouble ?? primary.dispute)) || null
  return {
    ...running,
    role: primary.alone ? 'Alone' : 'Primary',
    state: primary.state,
    reason: primary.reason || undecided(arbiterTrouble),
    ...hung,
    peer: record?.protection?.to ?? null,
    tracker: primary.trackerName,
    codec: primary.options.codec,
    epochMs: primary.options.pace.epochMs,
    pauseShareMax: primary.options.pace.pauseShareMax ?? null,
    outputs: primary.options.outputs,
    memory: primary.memory,
    fence: primary.options.outputs === 'held' ? fenceOf(guest.guest.qemu) : null,
    arbiter,
    arbiterTrouble,
    epochs: primary.stats.summary(),
    last: last
      ? {
          epoch: last.epoch,
          pauseUs: last.pauseUs,
          ownUs: last.ownUs,
          commitUs: last.commitUs,
          dirtyPages: last.dirtyPages,
          changedLines: last.changedLines,
          sentBytes: last.sentBytes,
          reduced: last.reduced,
        }
      : null,
    committed: last ? { epoch: last.epoch, consoleBytes: last.consoleBytes } : null,
  }
}

/** Why a guest that has a whole standby is not safe all the same. */
function undecided(arbiterTrouble: string | null): string {
  return arbiterTrouble === null
    ? ''
    : `the arbiter cannot decide, so neither host would go on alone: ${arbiterTrouble}`
}

function fenceOf({ files, fence }: QemuProcess): NonNullable<GuestStatus['fence']> {
  return { on: readShimStatus(files.shimStatus)?.fence === 'on', silenced: fence.silenced }
}
