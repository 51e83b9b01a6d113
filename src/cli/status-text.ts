/** `subpage status` for people: the guests of a host, one of them, and what it does just now. */
import type { DiskStatus } from '../agent/disk-status.ts'
import type { GuestStatus, HostStatus } from '../agent/status.ts'
import { cellsOf, columnsOf } from '../text-layout.ts'
import { pairs, table } from './output.ts'
import { progressText } from './progress.ts'
import { formatBytes, formatUs } from './sizes.ts'

export function overview(host: HostStatus, extended: boolean, columns = columnsOf(process.stdout)): string {
  const tls = host.certificate ? ` (TLS, certificate until ${host.certificate.validTo.slice(0, 10)})` : ''
  const { description, trouble } = host.arbiter
  const arbiter = trouble === null ? '' : `\narbiter ${description}: ${trouble}`
  const head = `host ${host.host}, replication ${host.address}${tls}, subpage ${host.release}, process ${host.pid}${arbiter}`
  if (host.guests.length === 0) return `${head}\nno guests`
  const brief = `${head}\n${guestTable(host.guests, columns)}`
  return extended ? `${brief}\n\n${host.guests.map((guest) => details(guest, columns)).join('\n\n')}` : brief
}

const heading = ['GUEST', 'ROLE', 'STATE', 'PEER', 'RAM', 'ACCEL', 'TRACKER', 'REASON']

/** The reasons, which are sentences, go below where they do not fit beside. */
function guestTable(guests: GuestStatus[], columns: number): string {
  const rows = guests.map((g) => [
    ...[g.name, g.role, g.state, otherHost(g) ?? '-', formatBytes(g.ramBytes), g.accel, g.tracker ?? '-'],
    g.reason,
  ])
  const whole = table([heading, ...rows], Number.POSITIVE_INFINITY)
  if (whole.split('\n').every((line) => cellsOf(line) <= columns)) return whole
  const reasons = guests.flatMap((g) => (g.reason === '' ? [] : [`${g.name}: ${g.reason}`]))
  return [
    table(
      [heading, ...rows].map((row) => row.slice(0, -1)),
      columns,
    ),
    ...reasons,
  ].join('\n')
}

/** The other host, by its name where that is known; an agent of an older release does not say. */
export const otherHost = ({ peer, peerHost }: Pick<GuestStatus, 'peer' | 'peerHost'>): string | null =>
  peerHost ?? peer

/** With the address where that says more. */
function peerText(guest: GuestStatus): string {
  const host = otherHost(guest)
  if (host === null) return '-'
  return host === guest.peer ? host : `${host} (${guest.peer})`
}

/** As VNC viewers take it. */
export const vncText = ({ host, port, encrypted }: NonNullable<GuestStatus['vnc']>) =>
  `vnc://${host.includes(':') ? `[${host}]` : host}:${port}${encrypted ? ' (encrypted)' : ''}`

export function details(guest: GuestStatus, columns = columnsOf(process.stdout)): string {
  const rows = [
    ['guest', guest.name],
    ['role', guest.role],
    ['state', guest.reason ? `${guest.state}: ${guest.reason}` : guest.state],
    ['peer', peerText(guest)],
    [
      'memory',
      `${formatBytes(guest.ramBytes)}, ${guest.accel}, QEMU ${guest.qemu}, process ${guest.pid ?? '-'}`,
    ],
    ['console', guest.console],
    ...(guest.firmware ? [['firmware', `${guest.firmware.kind}, variables in ${guest.firmware.nvram}`]] : []),
    ...(guest.vnc ? [['screen', vncText(guest.vnc)]] : []),
    ...guest.disks.map((disk) => ['disk', diskText(disk)]),
  ]
  if (guest.takeover)
    rows.push([
      'takeover',
      `${guest.takeover.ms.toFixed(1)} ms, from checkpoint ${guest.takeover.epoch}: ${guest.takeover.reason}`,
    ])
  if (guest.outputs !== null)
    rows.push(
      [
        'outputs',
        guest.outputs === 'held'
          ? 'held until their checkpoint is committed'
          : 'FREE: a client may see answers that a failover takes back',
      ],
      ['decided by', decidedBy(guest)],
      ['generation', String(guest.generation)],
    )
  if (guest.durability !== null)
    rows.push([
      'durability',
      guest.durability === 'disk'
        ? 'disk: a checkpoint is safe when the standby has it on stable storage'
        : "memory: a checkpoint is safe when the standby has it; a loss of both hosts' power leaves this host's disks",
    ])
  if (guest.seeding) rows.push(['seeding', progressText(guest.seeding)])
  if (guest.memory) rows.push(['protecting takes', memoryText(guest.memory)])
  if (guest.shimMissing !== null) rows.push(['without', guest.shimMissing])
  if (guest.fence)
    rows.push([
      'fence',
      guest.fence.on
        ? `on, ${guest.fence.silenced} packets came too late`
        : 'OFF: this QEMU does not load the shim; a host that stopped may speak once more after a takeover',
    ])
  if (guest.verified)
    rows.push([
      'verified',
      `${guest.verified.equal ? 'equal' : 'DIFFERENT'}, ${new Date(guest.verified.at).toISOString()}`,
    ])
  if (guest.committed) rows.push(['committed', `checkpoint ${guest.committed.epoch}`])
  const e = guest.epochs
  if (e) {
    rows.push(
      ['tracker', `${guest.tracker}, codec ${guest.codec}, epoch ${guest.epochMs} ms`],
      ['checkpoints', `${e.checkpoints} committed, ${e.failed} failed`],
      [
        'pause',
        `p50 ${formatUs(e.pauseUs.p50)}, p99 ${formatUs(e.pauseUs.p99)}, max ${formatUs(e.pauseUs.max)} (ours: p50 ${formatUs(e.ownUs.p50)}${flushText(e)})`,
      ],
      ...costRows(guest),
      ['commit', `p50 ${formatUs(e.commitUs.p50)}, p99 ${formatUs(e.commitUs.p99)}`],
      [
        'bytes',
        `dirty pages ${formatBytes(e.bytes.dirtyPages)}, changed lines ${formatBytes(e.bytes.changedLines)}, sent ${formatBytes(e.bytes.sent)}`,
      ],
      ...reducedRows(guest.last?.reduced),
      [
        'sent early',
        `${e.earlyPages} pages, ${share(e.earlyPagesAgain, e.earlyPages)} of them in vain; after the pause ${formatBytes(e.bytes.final)}`,
      ],
      ...hotRows(guest.hotPages),
      ['amplification', e.amplification === null ? '-' : e.amplification.toFixed(1)],
    )
  }
  return pairs(rows, columns)
}

/** What an operator would otherwise have to find out with a benchmark. */
function costRows({ epochs, latencyMs }: Pick<GuestStatus, 'epochs' | 'latencyMs'>): string[][] {
  const cost = epochs?.cost
  if (!cost) return []
  const { pauses, faults, outputWaitMs } = cost
  const waits =
    outputWaitMs === null
      ? ''
      : `; what it sends waits ${outputWaitMs.toFixed(1)} ms${latencyMs === null ? '' : ` (goal ${latencyMs} ms)`}`
  return [['costs the guest', `${share(pauses, 1)} of time in pauses, ${share(faults, 1)} in faults${waits}`]]
}

function hotRows(hot: GuestStatus['hotPages']): string[][] {
  if (!hot) return []
  const { now, faultsSaved, comparisons } = hot
  return [['hot pages', `${now} not armed, ${faultsSaved} faults saved, ${comparisons} compared in vain`]]
}

/** Such as `37 %: 1.2 GiB of 3.3 GiB, 310 MiB/s, 7 s left`. */
function diskText(disk: DiskStatus): string {
  const { name, bytes, path, copy, state, behindBytes, writtenBytes, equalBytes } = disk
  const { journal } = disk
  const spilled = journal.fileBytes > 0 ? `, ${formatBytes(journal.fileBytes)} of it in a file` : ''
  const copied =
    state === 'Alone' || state === 'Standby'
      ? ''
      : `, ${formatBytes(behindBytes)} behind${spilled}; written ${formatBytes(writtenBytes)}, of which the standby had ${formatBytes(equalBytes)}; ${sentText(disk.sent)}`
  const there = copy === null ? '' : `, on the standby ${copy}`
  const seeded = disk.seeded
    ? `; brought up by ${disk.seeded.by}: ${formatBytes(disk.seeded.readBytes)} read, ${formatBytes(disk.seeded.sentBytes)} to be sent`
    : ''
  const failed = disk.lastError === null ? '' : `; ${disk.errors} ERRORS, the last: ${disk.lastError}`
  return `${name}, ${formatBytes(bytes)}, ${state}${copied}: ${path}${there}${seeded}${failed}`
}

function sentText({ wireBytes, ...ways }: DiskStatus['sent']): string {
  const all = Object.values(ways).reduce((sum, bytes) => sum + bytes, 0)
  if (all === 0) return 'nothing sent yet'
  return `sent ${formatBytes(wireBytes)} for ${formatBytes(all)}, of which ${share(ways.sharedBytes, all)} were in its memory, ${share(ways.dictionaryBytes, all)} known, ${share(ways.zeroBytes, all)} zeros`
}

function decidedBy({ arbiter, arbiterTrouble, role, committed }: GuestStatus): string {
  if (arbiter !== null)
    return arbiterTrouble === null ? arbiter : `${arbiter}, which cannot: ${arbiterTrouble}`
  // The hosts compare their arbiters when they meet.
  const twoCopies = role === 'Primary' || (role === 'Standby' && committed !== null)
  return twoCopies
    ? 'people only: these hosts share no arbiter'
    : 'nobody yet: there is no second copy that could go on'
}

const flushText = ({ stopFlushUs: { p50, p99 } }: NonNullable<GuestStatus['epochs']>) =>
  p99 === 0 ? '' : `; flushing disks: p50 ${formatUs(p50)}, p99 ${formatUs(p99)}`

function reducedRows(reduced: NonNullable<GuestStatus['last']>['reduced'] | undefined): string[][] {
  if (!reduced) return []
  const { lines, dictionaryLines, sharedLines, similarPages, compression } = reduced
  return [
    [
      'reduced',
      `of ${lines} changed lines ${share(dictionaryLines, lines)} were known, ${share(sharedLines, lines)} elsewhere in the image; ${similarPages} similar pages; compression ${compression}`,
    ],
  ]
}

const share = (part: number, of: number) => `${of === 0 ? 0 : Math.round((100 * part) / of)} %`

const shadowTexts = {
  full: "a copy of the guest's memory",
  cache: 'copies of the pages that are written most',
  hash: "hashes of the guest's memory",
}

function memoryText({ shadow, shadowBytes, reducerBytes }: NonNullable<GuestStatus['memory']>): string {
  return `up to ${formatBytes(shadowBytes)} here for ${shadowTexts[shadow]}, ${formatBytes(reducerBytes)} for what repeats`
}

/** What a guest did between two looks at it; undefined when it is not protected, or was not then. */
export function ratesText(
  guest: GuestStatus,
  before: GuestStatus | undefined,
  ms: number,
): string | undefined {
  const [now, then] = [guest.epochs, before?.epochs]
  // Counters begin anew with each protection.
  if (!now || !then || now.checkpoints < then.checkpoints || ms <= 0) return undefined
  const perSecond = (count: number) => (1000 * count) / ms
  const bytes = (what: 'dirtyPages' | 'changedLines' | 'sent') =>
    `${formatBytes(Math.max(0, perSecond(now.bytes[what] - then.bytes[what])))}/s`
  const checkpoints = perSecond(now.checkpoints - then.checkpoints).toFixed(1)
  return `${guest.name}: ${checkpoints} checkpoints/s, dirty pages ${bytes('dirtyPages')}, changed lines ${bytes('changedLines')}, sent ${bytes('sent')}`
}
