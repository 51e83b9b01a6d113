/** Hosts for tests: real agents in child processes, with directories that go with them. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
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
import { type GuestFiles, guestFiles, guestNames } from '../../src/qemu/guest-files.ts'
import { Qmp } from '../../src/qemu/qmp.ts'
import type { ProtectBody } from '../../src/replication/protection-settings.ts'

export const ramBytes = 160 * 2 ** 20
/** A guest without a kernel: its firmware looks for a disk for ever. Boots at once and costs nothing. */
export const idle = { ramBytes: 32 * 2 ** 20, accel: 'tcg' as const, options: [] as string[] }
const pollMs = 10

export class Hosts {
  readonly directory = makeOwnedDirectory('subpage-test-')
  readonly agents: EphemeralAgent[] = []
  readonly #names = new Set<string>()

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
      env: { ...this.#qemuOf(host), ...env },
      prefix,
      ...(listen === undefined ? {} : { listen }),
    })
    this.agents.push(agent)
    return agent
  }

  /** Every other host has the QEMU that is unpacked in OTHER_QEMU (scripts/test-matrix.sh): pairs of two versions. */
  #qemuOf(host: string): Record<string, string> {
    this.#names.add(host)
    const root = process.env.OTHER_QEMU
    if (root === undefined || [...this.#names].indexOf(host) % 2 === 0) return {}
    return {
      SUBPAGE_QEMU: join(root, 'usr/bin/qemu-system-x86_64'),
      QEMU_MODULE_DIR: join(root, 'usr/lib/x86_64-linux-gnu/qemu'),
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // One that was stopped could not be ended.
    for (const { stateDirectory } of this.agents)
      for (const pid of supervisorsOf(stateDirectory)) process.kill(pid, 'SIGCONT')
    await Promise.all(this.agents.map((agent) => agent.end()))
    await removeOwnedDirectory(this.directory)
  }
}

/** Processes of the supervisors of a host's guests. */
export const supervisorsOf = (stateDirectory: string): number[] =>
  guestNames(stateDirectory).flatMap((name) => supervisorsOfGuest(stateDirectory, name))

/** None or one. */
export function supervisorsOfGuest(stateDirectory: string, name: string): number[] {
  const files = guestFiles(stateDirectory, name)
  const pid = supervisorOf(files)?.pid ?? 0
  // The host may have another boot id than we; and it has another title once it has begun.
  const command = commandOf(pid)
  return command.includes(files.supervisor.settings) || command.startsWith(`subpage supervisor ${name}`)
    ? [pid]
    : []
}

/** Empty when there is no such process. */
function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1')
  } catch {
    // There is none.
    return ''
  }
}

export async function untilExited(pids: number[]): Promise<void> {
  while (pids.some((pid) => commandOf(pid) !== '')) await delay(pollMs)
}

/** Ends the agent with this signal, and nothing else. */
export async function endAgent({ process: agent }: EphemeralAgent, signal: NodeJS.Signals): Promise<void> {
  if (agent.exitCode !== null || agent.signalCode !== null) return
  const exited = once(agent, 'exit')
  agent.kill(signal)
  await exited
}

/** Ends the agent and the supervisors of its guests: of the host only the guests go on. */
export async function endHost(agent: EphemeralAgent, signal: NodeJS.Signals): Promise<void> {
  // First the agent, which would start supervisors anew.
  await endAgent(agent, signal)
  const supervisors = supervisorsOf(agent.stateDirectory)
  for (const pid of supervisors) process.kill(pid, signal)
  await untilExited(supervisors)
}

export const killHost = (agent: EphemeralAgent) => endHost(agent, 'SIGKILL')

/** To the agent and the supervisors of its guests. */
export function signalHost(agent: EphemeralAgent, signal: NodeJS.Signals): void {
  agent.process.kill(signal)
  for (const pid of supervisorsOf(agent.stateDirectory)) process.kill(pid, signal)
}

/** Of the kernel's clock (sysconf(_SC_CLK_TCK)). */
const millisecondsPerTick = 10

/** Processor time of the agent and the supervisors of its guests, until now. */
export function processorMs({ process: { pid }, stateDirectory }: EphemeralAgent): number {
  return [pid!, ...supervisorsOf(stateDirectory)]
    .map((one) => {
      const fields = readFileSync(`/proc/${one}/stat`, 'latin1').split(') ')[1]!.split(' ')
      return (Number(fields[11]) + Number(fields[12])) * millisecondsPerTick
    })
    .reduce((sum, ms) => sum + ms, 0)
}

/** Of a guest that is there, once its supervisor answers: 0 would be our own processes to whoever signals it. */
export async function supervisorPid(agent: EphemeralAgent, name: string): Promise<number> {
  const { supervisor } = await until(agent, name, (status) => status.supervisor !== null)
  return supervisor!.process
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
  devices: string[] = [],
  bytes = ramBytes,
): Promise<{ status: GuestStatus; console: Console }> {
  const options = [...demoGuestOptions(append), ...devices]
  const status = await client.run({ name, ramBytes: bytes, accel: 'tcg', options })
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
  await beginProtect(from, name, to, options)
  return await until(from, name, (status) => status.state === 'Protected')
}

/** Resolves when it has begun. */
export async function beginProtect(
  from: EphemeralAgent,
  name: string,
  to: EphemeralAgent,
  options: Partial<ProtectBody> = {},
): Promise<void> {
  await from.client.protect(name, {
    to: to.address,
    ...options,
  })
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
