/** `subpage doctor`: what is wrong with the protection of a guest, and what mends it. */
import { statSync } from 'node:fs'
import { dirname } from 'node:path'
import { AgentClient } from '../../agent/client.ts'
import { apiSocket } from '../../agent/state-directory.ts'
import type { GuestStatus } from '../../agent/status.ts'
import { asSubpageError, exitStatus } from '../../errors.ts'
import { agentFlags, agentOf } from '../agent-of.ts'
import type { Command, Invocation } from '../command.ts'
import { type ClockReading, readingOf } from '../doctor/clocks.ts'
import { diagnose } from '../doctor/diagnose.ts'
import type { Finding, Patient } from '../doctor/finding.ts'
import { guestName } from '../guest-name.ts'

export const doctorCommand: Command = {
  name: 'doctor',
  args: ['<name>'],
  completes: ['guest'],
  summary: 'see what is wrong with the protection of a guest, and what mends it',
  help: `Example:
  subpage doctor web --peer-api https://192.0.2.11:7476 --api-token-file token --tls-ca ca.crt

Asks the agent of this host, and that of the other one where it can: on one machine by its state directory, else by --peer-api, with the same token and CA. It changes nothing. The exit status is 0 when there is nothing worse than a warning, 3 when the guest would not outlive its host now, 4 when it is not protected.`,
  flags: [
    ...agentFlags,
    {
      form: '--peer-api <socket-or-url>',
      summary: 'API of the other host: its socket, or https://HOST:PORT',
    },
  ],
  async run(invocation) {
    const agent = agentOf(invocation)
    const name = guestName(String(invocation.args[0]))
    const guest = await agent.guest(name)
    const { host, clock } = await statusOf(agent)
    const density = await agent.density().catch(() => undefined) // An older agent, or a keeper that is just gone.
    const patient: Patient = {
      ...{ host, guest },
      ...(density && { density }),
      ...(await peerOf(invocation, guest, clock)),
      now: Date.now(), // The wall clock: certificates and people go by it.
    }
    const findings = diagnose(patient)
    invocation.output.data({ guest: name, findings }, () => formatFindings(name, findings))
    if (!findings.some(({ severity }) => severity === 'critical')) return exitStatus.ok
    return guest.role === 'Alone' && guest.state === 'Running' ? exitStatus.notProtected : exitStatus.degraded
  },
}

/** With its clock, as seen from here. */
async function statusOf(agent: AgentClient) {
  const before = Date.now() // The wall clock: it is compared with others.
  const host = await agent.status()
  return { host, clock: readingOf(host, before, Date.now()) } // The wall clock, too.
}

async function peerOf(
  invocation: Invocation,
  { name, peer }: GuestStatus,
  here: ClockReading | undefined,
): Promise<Pick<Patient, 'peer' | 'clocks'>> {
  const { peerApi } = invocation.flags
  const local = peer?.startsWith('/') ? stateDirectoryAt(peer) : undefined
  if (peerApi === undefined && local === undefined)
    return { peer: 'it is on another machine, and --peer-api was not given' }
  try {
    const client =
      peerApi === undefined
        ? new AgentClient(apiSocket(local!))
        : agentOf({ ...invocation, flags: { ...invocation.flags, api: peerApi } })
    const { host, clock: there } = await statusOf(client)
    return {
      peer: { host, guest: host.guests.find((guest) => guest.name === name) },
      ...(here &&
        there && {
          clocks: { aheadMs: there.aheadMs - here.aheadMs, withinMs: there.withinMs + here.withinMs },
        }),
    }
  } catch (error) {
    return { peer: asSubpageError(error).message }
  }
}

/** Of an agent of this machine: the directory itself, or the socket in it. */
const stateDirectoryAt = (path: string): string =>
  statSync(path, { throwIfNoEntry: false })?.isDirectory() ? path : dirname(path)

const words = { critical: 'CRITICAL', warning: 'warning', note: 'note' }

function formatFindings(name: string, findings: readonly Finding[]): string {
  if (findings.length === 0) return `${name}: nothing is wrong`
  const counted = (severity: Finding['severity'], several: string) => {
    const count = findings.filter((one) => one.severity === severity).length
    return `${count} ${count === 1 ? severity : several}`
  }
  const head = `${name}: ${counted('critical', 'critical')}, ${counted('warning', 'warnings')}, ${counted('note', 'notes')}`
  const parts = findings.map(({ severity, code, problem, remedy, command }) =>
    [
      `${words[severity]}: ${problem}`,
      `  → ${remedy}`,
      ...(command === undefined ? [] : [`    ${command}`]),
      ...(code === undefined ? [] : [`    ${code}: see docs/errors.md#${code.toLowerCase()}`]),
    ].join('\n'),
  )
  return [head, ...parts].join('\n\n')
}
