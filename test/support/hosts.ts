/** Hosts for tests: real agents in child processes, with directories that go with them. */
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { ProtectBody } from '../../src/agent/api.ts'
import { type EphemeralAgent, startEphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { makeOwnedDirectory, removeOwnedDirectory } from '../../src/agent/owned-directory.ts'
import type { GuestStatus } from '../../src/agent/status.ts'
import {
  type Console,
  consoleAt,
  demoGuestOptions,
  untilConsole,
  victimLines,
} from '../../src/qemu/demo-guest.ts'
import type { GuestFiles } from '../../src/qemu/guest-files.ts'
import { Qmp } from '../../src/qemu/qmp.ts'
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

/** What QEMU says of the guest, over the control socket that only the guard uses. */
export async function runState(files: GuestFiles): Promise<string> {
  const qmp = await Qmp.connect(files.guardQmp)
  const { status } = await qmp.run<{ status: string }>('query-status')
  qmp.close()
  return status
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
