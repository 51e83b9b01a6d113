/** `subpage status`: what runs here. */
import { setTimeout as delay } from 'node:timers/promises'
import type { AgentClient } from '../../agent/client.ts'
import type { GuestStatus, HostStatus } from '../../agent/status.ts'
import { asSubpageError, exitStatus } from '../../errors.ts'
import { agentFlags, agentOf } from '../agent-of.ts'
import type { Command, Invocation } from '../command.ts'
import { guestName } from '../guest-name.ts'
import { interruptible } from '../interruption.ts'
import { details, overview, ratesText } from '../status-text.ts'

const watchMs = 1000
/** ECMA-48: to the first place, and everything from there on away. */
const clearScreen = '\x1b[H\x1b[J'

export const statusCommand: Command = {
  name: 'status',
  args: ['[name]'],
  completes: ['guest'],
  summary: 'show the guests of this host',
  help: `Exit status 3 when a protected guest is not safe right now or a QEMU hangs, 4 when the named guest is not protected at all.
--watch shows the time and what has happened since the last look, and clears the screen where there is one; it goes on until
interrupted, also while no agent answers.`,
  flags: [
    ...agentFlags,
    { form: '-x, --extended', summary: 'show epochs, bytes and times' },
    { form: '--watch', summary: 'print again every second' },
  ],
  async run(invocation) {
    const agent = agentOf(invocation)
    if (invocation.flags.watch) return await interruptible((signal) => watch(invocation, agent, signal))
    const seen = await look(invocation, agent)
    invocation.output.data(seen.host ?? seen.guests[0], () => seenText(invocation, seen))
    return health(seen)
  },
}

interface Seen {
  /** Unless one guest was asked for. */
  host: HostStatus | undefined
  guests: GuestStatus[]
  /** performance.now() */
  at: number
}

async function look({ args }: Invocation, agent: AgentClient): Promise<Seen> {
  const at = performance.now()
  if (args[0] !== undefined) return { host: undefined, guests: [await agent.guest(guestName(args[0]))], at }
  const host = await agent.status()
  return { host, guests: host.guests, at }
}

const seenText = ({ flags }: Invocation, { host, guests }: Seen) =>
  host ? overview(host, flags.extended === true) : details(guests[0]!)

async function watch(invocation: Invocation, agent: AgentClient, signal: AbortSignal): Promise<number> {
  const { output } = invocation
  const clear = process.stdout.isTTY === true ? clearScreen : ''
  let before: Seen | undefined
  // What is wrong with the command line, or was from the start, ends it.
  let seen: Seen | Error = await look(invocation, agent)
  while (!signal.aborted) {
    const time = new Date()
    const now = seen
    if (now instanceof Error) {
      const { code, message } = asSubpageError(now)
      output.data({ time: time.toISOString(), code, message }, () =>
        [`${clear}${localTime(time)}`, message].join('\n'),
      )
    } else {
      const ms = before ? now.at - before.at : 0
      const rates = now.guests.flatMap(
        (guest) =>
          ratesText(
            guest,
            before?.guests.find(({ name }) => name === guest.name),
            ms,
          ) ?? [],
      )
      output.data({ time: time.toISOString(), ...(now.host ?? now.guests[0]) }, () =>
        [
          `${clear}${localTime(time)}`,
          seenText(invocation, now),
          ...(rates.length > 0 ? ['', ...rates] : []),
          ...(clear ? [] : ['']),
        ].join('\n'),
      )
      before = now
    }
    await delay(watchMs, undefined, { signal }).catch(() => undefined) // Interrupted.
    seen = await look(invocation, agent).catch((error: Error) => error)
  }
  return exitStatus.interrupted
}

/** As ISO 8601 writes it, in the zone of this host. */
function localTime(time: Date): string {
  const local = new Date(time.getTime() - 60_000 * time.getTimezoneOffset())
  return local.toISOString().slice(0, 19).replace('T', ' ')
}

function health({ host, guests }: Seen): number {
  if (!host) return guestHealth(guests[0]!)
  return guests.some((guest) => guestHealth(guest) === exitStatus.degraded)
    ? exitStatus.degraded
    : exitStatus.ok
}

function guestHealth(guest: GuestStatus): number {
  if (guest.state === 'Hung') return exitStatus.degraded
  if (guest.role === 'Alone') return exitStatus.notProtected
  const safe = guest.state === 'Protected' && guest.arbiterTrouble === null
  return safe ? exitStatus.ok : exitStatus.degraded
}
