/** `subpage status` and `subpage events`: what runs here, and what happened. */
import type { AgentClient } from '../../agent/client.ts'
import type { HostEvent } from '../../agent/event-log.ts'
import type { GuestStatus, HostStatus } from '../../agent/status.ts'
import { exitStatus } from '../../errors.ts'
import { agentFlags, agentOf } from '../agent-of.ts'
import type { Command, Invocation } from '../command.ts'
import { table } from '../output.ts'
import { formatBytes, formatUs } from '../sizes.ts'

const watchMs = 1000

export const statusCommand: Command = {
  name: 'status',
  args: ['[name]'],
  summary: 'show the guests of this host',
  help: 'Exit status 3 when a protected guest is not safe right now or a QEMU hangs, 4 when the named guest is not protected at all.',
  flags: [
    ...agentFlags,
    { form: '-x, --extended', summary: 'show epochs, bytes and times' },
    { form: '--watch', summary: 'print again every second' },
  ],
  async run(invocation) {
    const agent = agentOf(invocation)
    if (!invocation.flags.watch) return await show(invocation, agent)
    for (;;) {
      await show(invocation, agent)
      await new Promise((resolve) => setTimeout(resolve, watchMs))
    }
  },
}

async function show(invocation: Invocation, agent: AgentClient): Promise<number> {
  const { args, output, flags } = invocation
  const name = args[0]
  if (name !== undefined) {
    const guest = await agent.guest(name)
    output.data(guest, () => details(guest))
    return health(guest)
  }
  const host = await agent.status()
  output.data(host, () => overview(host, flags.extended === true))
  return Math.max(
    exitStatus.ok,
    ...host.guests.map((g) => (health(g) === exitStatus.degraded ? exitStatus.degraded : 0)),
  )
}

function health(guest: GuestStatus): number {
  if (guest.state === 'Hung') return exitStatus.degraded
  if (guest.role === 'Alone') return exitStatus.notProtected
  return guest.state === 'Protected' ? exitStatus.ok : exitStatus.degraded
}

function overview(host: HostStatus, extended: boolean): string {
  const tls = host.certificate ? ` (TLS, certificate until ${host.certificate.validTo.slice(0, 10)})` : ''
  const head = `host ${host.host}, replication ${host.address}${tls}, subpage ${host.release}, process ${host.pid}`
  if (host.guests.length === 0) return `${head}\nno guests`
  const rows = host.guests.map((g) => [
    g.name,
    g.role,
    g.state,
    g.peer ?? '-',
    formatBytes(g.ramBytes),
    g.accel,
    g.tracker ?? '-',
    g.reason,
  ])
  const brief = `${head}\n${table([['GUEST', 'ROLE', 'STATE', 'PEER', 'RAM', 'ACCEL', 'TRACKER', 'REASON'], ...rows])}`
  return extended ? `${brief}\n\n${host.guests.map(details).join('\n\n')}` : brief
}

function details(guest: GuestStatus): string {
  const rows = [
    ['guest', guest.name],
    ['role', guest.role],
    ['state', guest.reason ? `${guest.state}: ${guest.reason}` : guest.state],
    ['peer', guest.peer ?? '-'],
    [
      'memory',
      `${formatBytes(guest.ramBytes)}, ${guest.accel}, QEMU ${guest.qemu}, process ${guest.pid ?? '-'}`,
    ],
    ['console', guest.console],
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
      ['decided by', guest.arbiter ?? 'people only: these hosts share no arbiter'],
      ['generation', String(guest.generation)],
    )
  if (guest.memory) rows.push(['protecting takes', memoryText(guest.memory)])
  if (guest.fence)
    rows.push([
      'fence',
      guest.fence.on
        ? `on, ${guest.fence.silenced} packets came too late`
        : 'OFF: this QEMU does not load the shim; a host that stopped may speak once more after a takeover',
    ])
  if (guest.committed) rows.push(['committed', `checkpoint ${guest.committed.epoch}`])
  const e = guest.epochs
  if (e) {
    rows.push(
      ['tracker', `${guest.tracker}, codec ${guest.codec}, epoch ${guest.epochMs} ms`],
      ['checkpoints', `${e.checkpoints} committed, ${e.failed} failed`],
      [
        'pause',
        `p50 ${formatUs(e.pauseUs.p50)}, p99 ${formatUs(e.pauseUs.p99)}, max ${formatUs(e.pauseUs.max)} (ours: p50 ${formatUs(e.ownUs.p50)})`,
      ],
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
      ['amplification', e.amplification === null ? '-' : e.amplification.toFixed(1)],
    )
  }
  return table(rows)
}

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

export const eventsCommand: Command = {
  name: 'events',
  args: [],
  summary: 'show what happened on this host',
  help: 'With --follow it goes on until interrupted.',
  flags: [...agentFlags, { form: '-f, --follow', summary: 'wait for new events' }],
  async run(invocation) {
    const agent = agentOf(invocation)
    const print = (event: HostEvent) =>
      invocation.output.data(
        event,
        () => `${event.time}  ${event.guest || '-'}  ${event.kind}  ${event.text}`,
      )
    if (invocation.flags.follow) for await (const event of agent.followEvents()) print(event)
    else for (const event of await agent.events()) print(event)
  },
}
