/**
 * The trial of a host (`subpage check --guest`): on this machine, with two agents, a guest that needs no operating system boots, is protected
 * while it writes its memory as fast as it can, is compared with its standby, loses its QEMU, goes on, and is protected back. The guest
 * (guest/bare) looks at its own memory all the time. Leaves nothing behind.
 */
import { join } from 'node:path'
import { builtFile } from '../built.ts'
import { asSubpageError, SubpageError } from '../errors.ts'
import { type Console, consoleAt, consoleLength, untilConsole } from '../qemu/demo-guest.ts'
import type { AgentClient } from './client.ts'
import { type EphemeralAgent, startEphemeralAgent } from './ephemeral-agent.ts'
import { makeOwnedDirectory, removeOwnedDirectory } from './owned-directory.ts'
import type { GuestStatus } from './status.ts'
import { untilGuest } from './until-guest.ts'

export interface TrialOptions {
  accel: 'auto' | 'kvm' | 'tcg'
  /** Virtual CPUs, 1 to 8; each writes 8 MiB of its own. */
  cpus: number
}

export interface TrialStep {
  name: string
  ok: boolean
  ms: number
  /** What was seen, or why it failed. */
  found: string
}

export interface TrialReport {
  passed: boolean
  steps: TrialStep[]
  accel: string
  cpus: number
  qemu: string
  tracker: string
  checkpoints: number
  pauseUs: { p50: number; p99: number; max: number } | null
  commitUs: { p50: number; p99: number } | null
  /** Of a checkpoint, on average. */
  dirtyPages: number
  /** From the SIGKILL until the guest ran on the other host; null: it never did. */
  failoverMs: number | null
}

const name = 'trial'
const ramBytes = 128 * 2 ** 20
const epochMs = 10
const limitMs = 60_000
/** Compared so often, with so many checkpoints between. */
const comparisons = 3
const checkpointsBetween = 50

/** @throws SubpageError when the trial could not begin; what fails in it is in the report */
export async function guestTrial(options: TrialOptions, signal: AbortSignal): Promise<TrialReport> {
  const directory = makeOwnedDirectory('subpage-trial-')
  const agents: EphemeralAgent[] = []
  try {
    for (const host of ['a', 'b'])
      agents.push(await startEphemeralAgent({ stateDirectory: join(directory, host), host }))
    const trial = new Trial(options, agents[0]!, agents[1]!, signal)
    return await trial.run()
  } finally {
    await Promise.all(agents.map((agent) => agent.end()))
    await removeOwnedDirectory(directory)
  }
}

class Trial {
  readonly #options: TrialOptions
  readonly #a: EphemeralAgent
  readonly #b: EphemeralAgent
  readonly #signal: AbortSignal
  readonly #steps: TrialStep[] = []
  #protected: GuestStatus | undefined
  #failoverMs: number | null = null

  constructor(options: TrialOptions, a: EphemeralAgent, b: EphemeralAgent, signal: AbortSignal) {
    this.#options = options
    this.#a = a
    this.#b = b
    this.#signal = signal
  }

  /** Stops at the first step that fails: the next ones need it. */
  async run(): Promise<TrialReport> {
    const { cpus, accel } = this.#options
    let started: GuestStatus | undefined
    const passed =
      (await this.#step('boot', async () => {
        started = await this.#a.client.run({
          name,
          ramBytes,
          accel,
          options: ['-M', 'microvm', '-smp', String(cpus), '-kernel', builtFile('guest/bare')],
        })
        await this.#looksRound(consoleAt(started.console), 0)
        return `QEMU ${started.qemu}, ${started.accel}, ${cpus} virtual CPU${cpus > 1 ? 's' : ''}`
      })) &&
      (await this.#step('protect', () => this.#protect())) &&
      (await this.#step('verify', () => this.#compare(this.#a.client))) &&
      (await this.#step('failover', () => this.#failover(started!))) &&
      (await this.#step('protect back', () => this.#untilSafe(this.#b.client))) &&
      (await this.#step('verify again', () => this.#compare(this.#b.client)))
    const epochs = this.#protected?.epochs
    return {
      passed,
      steps: this.#steps,
      accel: started?.accel ?? accel,
      cpus,
      qemu: started?.qemu ?? '',
      tracker: this.#protected?.tracker ?? '',
      checkpoints: epochs?.checkpoints ?? 0,
      pauseUs: epochs?.pauseUs ?? null,
      commitUs: epochs?.commitUs ?? null,
      dirtyPages: epochs ? Math.round(epochs.dirtyPages / Math.max(1, epochs.checkpoints)) : 0,
      failoverMs: this.#failoverMs,
    }
  }

  async #step(step: string, work: () => Promise<string>): Promise<boolean> {
    const startedAt = performance.now()
    const done = (ok: boolean, found: string) => {
      this.#steps.push({ name: step, ok, ms: performance.now() - startedAt, found })
      return ok
    }
    try {
      return done(true, await work())
    } catch (error) {
      // One that was interrupted has found nothing.
      this.#signal.throwIfAborted()
      const { code, message } = asSubpageError(error)
      return done(false, `${code}: ${message}`)
    }
  }

  async #protect(): Promise<string> {
    await this.#a.client.protect(name, {
      to: this.#b.address,
      epochMs,
    })
    return await this.#untilSafe(this.#a.client)
  }

  /** Also of the host that has taken over, which begins by itself. */
  async #untilSafe(client: AgentClient): Promise<string> {
    const { tracker } = await this.#until(client, 'protected', ({ committed }) => committed !== null)
    return `tracker ${tracker}, a checkpoint each ${epochMs} ms`
  }

  /** While the guest writes as fast as it can. */
  async #compare(client: AgentClient): Promise<string> {
    let pages = 0
    for (let n = 0; n < comparisons; n++) {
      const { epochs } = await client.guest(name)
      const enough = (epochs?.checkpoints ?? 0) + checkpointsBetween
      const status = await this.#until(
        client,
        `at checkpoint ${enough}`,
        (now) => (now.epochs?.checkpoints ?? 0) >= enough,
      )
      if (client === this.#a.client) this.#protected = status
      const found = await client.verify(name)
      if (!found.equal)
        throw new SubpageError('INTERNAL', 'guest and standby differ: a write of the guest was not seen')
      pages = status.epochs?.dirtyPages ?? 0
    }
    return `equal ${comparisons} times, over ${pages} dirty pages`
  }

  async #failover({ console, pid }: GuestStatus): Promise<string> {
    await this.#looksRound(consoleAt(console), consoleLength(consoleAt(console)))
    // As status says it: by the wall clock of one machine.
    const killedAt = Date.now()
    process.kill(pid!, 'SIGKILL')
    const taken = await this.#until(this.#b.client, 'taken over', ({ takeover }) => takeover !== null)
    this.#failoverMs = taken.takeover!.at - killedAt
    const there = consoleAt(taken.console)
    await this.#looksRound(there, consoleLength(there))
    return `goes on after ${this.#failoverMs} ms, its memory whole`
  }

  /** Waits until each virtual CPU has looked at all its memory, and then once more. */
  async #looksRound(console: Console, from: number): Promise<void> {
    const { cpus } = this.#options
    await untilConsole(
      console,
      from,
      (text) => {
        const looks = looksIn(text)
        const torn = looks.find((look) => look.torn > 0)
        if (torn) throw new SubpageError('INTERNAL', `${torn.torn} pages of CPU ${torn.cpu} are torn`)
        const each = Array.from({ length: cpus }, (_, cpu) => looks.filter((look) => look.cpu === cpu))
        return each.every((own) => own.length >= 2) ? looks : undefined
      },
      limitMs,
      this.#signal,
    )
  }

  #until(client: AgentClient, what: string, found: (status: GuestStatus) => boolean): Promise<GuestStatus> {
    return untilGuest(client, name, what, found, limitMs, this.#signal)
  }
}

/** Whole lines of guest/bare/check.c. */
function looksIn(text: string): { cpu: number; torn: number }[] {
  const lines = text.matchAll(/^bare: cpu (\d+) whole \d+ torn (\d+)\r?\n/gm)
  return [...lines].map(([, cpu, torn]) => ({ cpu: Number(cpu), torn: Number(torn) }))
}
