/** What a supervisor says of its guest. */
import type { ErrorCode, Reason } from '../../errors.ts'
import { memoryBytes } from '../../qemu/aux-ram.ts'
import type { QemuProcess } from '../../qemu/qemu-process.ts'
import { readShimStatus, shimMissing } from '../../tracking/shim.ts'
import { type DiskStatus, diskStatus } from '../disk-status.ts'
import { loopDelayMs } from '../loop-delay.ts'
import { ownMemory } from '../own-memory.ts'
import { type GuestStatus, unprotected } from '../status.ts'
import { differences, namedVerification } from '../verified.ts'
import type { Host } from './host.ts'
import type { HostedGuest } from './hosted-guest.ts'

export function guestStatus(guest: HostedGuest, host: Host): GuestStatus {
  const status = statusOf(guest, host)
  if ((guest.kind !== 'running' && guest.kind !== 'standby') || !guest.qemu.ramIsUnlinked) return status
  const unlinked = 'its RAM file was removed by somebody else, and its memory lasts as long as its process'
  return status.reason === ''
    ? { ...status, ...because('RAM_UNLINKED', unlinked) }
    : { ...status, reason: `${status.reason}; ${unlinked}` }
}

function statusOf(guest: HostedGuest, host: Host): GuestStatus {
  const { trouble } = host.health
  const { record, files } = guest.kind === 'ended' || guest.kind === 'unanswered' ? guest : guest.qemu
  const common = {
    ...unprotected,
    name: guest.name,
    ramBytes: record?.machine.ramBytes ?? 0,
    auxBytes: record ? memoryBytes(record.machine) - record.machine.ramBytes : 0,
    accel: record?.machine.accel ?? '',
    qemu: record?.qemuVersion ?? '',
    pid: record?.process.pid ?? null,
    console: files.consoleLog,
    consoleSocket: files.console,
    vnc: guest.kind === 'running' || guest.kind === 'standby' ? (guest.qemu.vnc ?? null) : null,
    disks: disksOf(guest),
    firmware: firmwareOf(guest),
    shimMissing:
      guest.kind === 'running' || guest.kind === 'standby' ? (shimMissing(files.shimStatus) ?? null) : null,
    generation: record?.generation ?? 0,
    supervisor: supervisorStatus(guest),
  }
  if (guest.kind === 'ended')
    return {
      ...common,
      role: 'Alone',
      state: guest.end.how === 'died' ? 'Failed' : 'Ended',
      ...because(guest.end.how === 'died' ? 'GUEST_DIED' : endedAs[guest.end.how], guest.end.detail),
      pid: null,
    }
  if (guest.kind === 'unanswered')
    return { ...common, role: 'Alone', state: 'Hung', ...because('GUEST_HUNG', guest.reason) }
  if (guest.kind === 'standby') {
    const { standby, hello } = guest
    const { hang } = guest.qemu
    const arbiterTrouble = (standby.succession.arbiter !== null && trouble) || null
    return {
      ...common,
      role: 'Standby',
      state: hang.since === undefined ? standby.state : 'Hung',
      ...(hang.since === undefined
        ? shown(standby.why ?? undecided('ARBITER_UNREACHABLE', arbiterTrouble))
        : because('GUEST_HUNG', hang.reason)),
      ...{ peer: hello.source.address, peerHost: hello.source.host },
      generation: standby.succession.generation,
      arbiter: standby.succession.arbiter,
      arbiterTrouble,
      outputs: hello.settings.outputs,
      committed: standby.committed ?? null,
      spill: guest.spill,
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
  const hung =
    hang.since === undefined ? {} : { state: 'Hung' as const, ...because('GUEST_HUNG', hang.reason) }
  const reason = guest.comingBack
    ? because('GUEST_DENSE', 'its protection goes on when its memory is back')
    : because('NOT_PROTECTED', 'not protected')
  if (!primary && guest.trouble !== undefined)
    return { ...running, role: 'Alone', state: 'Failed', ...shown(guest.trouble), ...hung }
  if (!primary) return { ...running, role: 'Alone', state: 'Running', ...reason, ...hung }
  const { last } = primary.stats
  const found = primary.verified
  const { arbiter } = guest.succession
  const arbiterTrouble = (arbiter !== null && (trouble ?? primary.dispute)) || null
  const suspended: Reason | undefined =
    record?.suspended === true
      ? { code: 'GUEST_SUSPENDED', message: 'it was suspended, and stands still (virsh resume lets it run)' }
      : undefined
  const [difference] = found
    ? differences(namedVerification(found.verification, guest.qemu.record.machine.disks))
    : []
  const different: Reason | undefined =
    difference === undefined ? undefined : { code: 'IMAGE_DIFFERS', message: difference }
  return {
    ...running,
    role: primary.alone ? 'Alone' : 'Primary',
    state: primary.state,
    suspended: record?.suspended === true,
    devicesDiffer: primary.devicesDiffer,
    ...shown(
      primary.why ??
        suspended ??
        different ??
        undecided(trouble ? 'ARBITER_UNREACHABLE' : 'HELD_ELSEWHERE', arbiterTrouble),
    ),
    ...hung,
    peer: record?.protection?.to ?? null,
    peerHost: primary.peerHost ?? null,
    tracker: primary.tracking.tracker.name,
    codec: primary.options.codec,
    epochMs: primary.options.pace.epochMs,
    pauseShareMax: primary.options.pace.pauseShareMax ?? null,
    latencyMs: primary.options.pace.latencyMs ?? null,
    outputs: primary.options.outputs,
    durability:
      guest.qemu.record.machine.disks.length > 0 ? (record?.protection?.durability ?? 'memory') : null,
    seeding: primary.seeding ?? null,
    operation: primary.operations.current(primary.seeding) ?? null,
    verified: found ? { at: found.at, equal: found.verification.equal } : null,
    memory: primary.memory,
    hotPages: last?.hotPages ?? null,
    fence: primary.options.outputs === 'held' ? fenceOf(guest.guest.qemu) : null,
    arbiter,
    arbiterTrouble,
    epochs: primary.stats.summary(primary.options.clock.now(), primary.options.outputs),
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
function undecided(code: ErrorCode, arbiterTrouble: string | null): Reason | undefined {
  return arbiterTrouble === null
    ? undefined
    : { code, message: `the arbiter cannot decide, so neither host would go on alone: ${arbiterTrouble}` }
}

const because = (reasonCode: ErrorCode, reason: string) => ({ reason, reasonCode })
const shown = (why: Reason | undefined) =>
  why ? because(why.code, why.message) : { reason: '', reasonCode: null }

const endedAs = {
  'powered-off': 'GUEST_ENDED',
  stopped: 'GUEST_ENDED',
  panicked: 'GUEST_DIED',
  superseded: 'HELD_ELSEWHERE',
} as const

function fenceOf({ files, fence }: QemuProcess): NonNullable<GuestStatus['fence']> {
  return { on: readShimStatus(files.shimStatus)?.fence === 'on', silenced: fence.silenced }
}

function firmwareOf(guest: HostedGuest): GuestStatus['firmware'] {
  const { record } = guest.kind === 'ended' || guest.kind === 'unanswered' ? guest : guest.qemu
  const { kind, nvram } = record?.machine.firmware ?? {}
  return kind !== undefined && nvram !== undefined ? { kind, nvram } : null
}

function disksOf(guest: HostedGuest): DiskStatus[] {
  const { record } = guest.kind === 'ended' || guest.kind === 'unanswered' ? guest : guest.qemu
  return (record?.machine.disks ?? []).map((disk, index) => {
    const seen =
      guest.kind === 'running' && guest.primary ? guest.qemu.devices.disks.seenOf(index) : undefined
    const cuts = guest.kind === 'running' ? guest.qemu.lease.mirrorsCut : 0
    const copy = (guest.kind === 'running' && guest.primary?.copies[index]?.path) || null
    const failed = guest.kind === 'running' ? guest.qemu.diskErrors.of(disk.name) : undefined
    const errors = failed
      ? { errors: failed.count, lastError: failed.last.what, lastErrorCode: failed.last.code }
      : {}
    const sent = guest.kind === 'running' ? guest.primary?.diskTraffic[index] : undefined
    const of = { ...diskStatus(disk, guest.kind === 'standby'), copy, cuts, ...seen, ...errors }
    return sent ? { ...of, sent: { ...sent } } : of
  })
}

function supervisorStatus(guest: HostedGuest): GuestStatus['supervisor'] {
  const shadowBytes = guest.kind === 'running' ? (guest.primary?.memory.shadowBytes ?? 0) : 0
  return { process: process.pid, ownBytes: ownMemory(shadowBytes), loopDelayMs: loopDelayMs() }
}
