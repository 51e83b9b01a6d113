/** Hosts for tests: real agents in child processes, with directories that go with them. */
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { ProtectBody } from '../../src/agent/api.ts'
import { type EphemeralAgent, startEphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { makeOwnedDirectory, removeOwnedDirectory } from '../../src/agent/owned-directory.ts'
import type { GuestStatus } from '../../src/agent/status.ts'
import { supervisorOf } from '../../src/agent/supervisor/settings.ts'
import {
  type Console,
  consoleAt,
  demoGuestOptions,
  untilConsole,
  victimLines,
} from '../../src/qemu/demo-guest.ts'
import { guestFiles, guestNames } from '../../src/qemu/guest-files.ts'
import { isRunning, killProcess, type ProcessIdentity, untilGone } from '../../src/qemu/process.ts'
import { sendingDefault } from '../../src/replication/sending.ts'

export const ramBytes = 160 * 2 ** 20
const pollMs = 10

export class Hosts {
  readonly directory = makeOwnedDirectory('subpage-test-')
  readonly agents: EphemeralAgent[] = []

  /** @param prefix a command that runs the agent, such as `ip netns exec NAME` */
  async add(
    host: string,
    env: Record<string, string> = {},
    listen?: string,
    prefix: string[] = [],
  ): Promise<EphemeralAgent> {
    const agent = await startEphemeralAgent({
      stateDirectory: join(this.directory, host),
      host,
      env,
      prefix,
      ...(listen === undefined ? {} : { listen }),
    })
    this.agents.push(agent)
    return agent
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.agents.map((agent) => agent.end()))
    await removeOwnedDirectory(this.directory)
  }
}

/** The supervisors of its guests that run. */
export function supervisorsOf(stateDirectory: string): ProcessIdentity[] {
  return guestNames(stateDirectory)
    .map((name) => supervisorOf(guestFiles(stateDirectory, name)))
    .filter((found) => found !== undefined && isRunning(found)) as ProcessIdentity[]
}

/** Kills the agent, and nothing else. */
export async function killAgent({ process: agent }: EphemeralAgent): Promise<void> {
  if (agent.exitCode !== null || agent.signalCode !== null) return
  const exited = once(agent, 'exit')
  agent.kill('SIGKILL')
  await exited
}

/** Kills the agent and the supervisors of its guests: of the host only the guests go on. */
export async function killHost(agent: EphemeralAgent): Promise<void> {
  // First the agent, which would start supervisors anew.
  await killAgent(agent)
  const supervisors = supervisorsOf(agent.stateDirectory)
  for (const supervisor of supervisors) killProcess(supervisor)
  await Promise.all(supervisors.map((supervisor) => untilGone(supervisor)))
}

/** To the agent and the supervisors of its guests. */
export function signalHost(agent: EphemeralAgent, signal: NodeJS.Signals): void {
  agent.process.kill(signal)
  for (const { pid } of supervisorsOf(agent.stateDirectory)) process.kill(pid, signal)
}

/** Resolves when the guest's supervisor has ended by itself, or been ended, and another one works for it. */
export async function untilReplaced(agent: EphemeralAgent, name: string, former: number): Promise<void> {
  await until(agent, name, ({ supervisor }) => supervisor !== null && supervisor.pid !== former)
}

/** Starts the demo guest and waits until its victim program reports. */
export async function startVictim(
  { client }: EphemeralAgent,
  name: string,
  append: string[] = [],
): Promise<{ status: GuestStatus; console: Console }> {
  const status = await client.run({ name, ramBytes, accel: 'tcg', options: demoGuestOptions(append) })
  const console = consoleAt(status.console)
  await untilConsole(console, 0, (text) => victimLines(text)[0], 120_000)
  return { status, console }
}

/** Protects and waits until the first checkpoint is safe. */
export async function protect(
  from: EphemeralAgent,
  name: string,
  to: EphemeralAgent,
  options: Partial<ProtectBody> = {},
): Promise<GuestStatus> {
  await from.client.protect(name, {
    to: to.address,
    epochMs: 25,
    suspicionMs: 500,
    outputs: 'held',
    tracker: 'auto',
    codec: 'masked',
    ...sendingDefault,
    ...options,
  })
  return await until(from, name, (status) => status.state === 'Protected')
}

/** Waits until the guest's status on this host satisfies the condition; errors such as GUEST_UNKNOWN count as not yet. */
export async function until(
  { client }: EphemeralAgent,
  name: string,
  found: (status: GuestStatus) => boolean,
  limitMs = 60_000,
): Promise<GuestStatus> {
  const deadline = performance.now() + limitMs
  for (;;) {
    const status = await client.guest(name).catch((error: Error) => error)
    if (!(status instanceof Error) && found(status)) return status
    if (performance.now() > deadline)
      throw new Error(
        `waited in vain; last: ${status instanceof Error ? status.message : JSON.stringify(status)}`,
      )
    await delay(pollMs)
  }
}
