/**
 * The demonstration: two agents on this machine, a guest that verifies itself, its standby, the SIGKILL of its QEMU in
 * the middle of work, and what became of it. Leaves nothing behind.
 */
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { invariant, SubpageError } from '../errors.ts'
import {
  askVictim,
  bootTrouble,
  type Console,
  consoleAt,
  consoleLength,
  demoGuestOptions,
  readConsole,
  recordLoop,
  recordsIn,
  typeLine,
  untilConsole,
  victimDamage,
  victimDigest,
  victimLines,
} from '../qemu/demo-guest.ts'
import { formatBytes } from '../units.ts'
import type { AgentClient } from './client.ts'
import { type EphemeralAgent, startEphemeralAgent } from './ephemeral-agent.ts'
import { makeOwnedDirectory, removeOwnedDirectory } from './owned-directory.ts'
import type { GuestStatus } from './status.ts'
import { untilGuest } from './until-guest.ts'

export interface DemoOptions {
  ramBytes: number
  epochMs: number
  accel: 'auto' | 'kvm' | 'tcg'
  /** How long epochs pass before the kill. */
  watchMs: number
}

export interface DemoSummary {
  guest: {
    /** The victim's steps went on on the other host. */
    continued: boolean
    /** Steps that were safe on the standby and are missing after the failover: 0, or the promise is broken. */
    lost: number
    /** The victim has checked all its memory after the failover and found it whole. */
    verified: boolean
  }
  disk: {
    /** Numbers that it had written to a file, each synced, by the checkpoint from which it went on. */
    committed: number
    /** Of these, what the file does not have after the failover: 0, or the promise is broken. */
    lost: number
  }
  /** From the SIGKILL until the guest ran on the other host. */
  failoverMs: number
  /** Steps that the guest did after its last checkpoint and did again after the failover. */
  stepsRepeated: number
  checkpoints: number
  pauseUs: { p50: number; p99: number; max: number }
  bytes: { dirtyPages: number; changedLines: number; sent: number }
  amplification: number | null
  tracker: string
  accel: string
}

/** What a person is told while the demo runs. */
export interface DemoObserver {
  say(text: string): void
  epochs(status: GuestStatus): void
}

const name = 'demo'
const bootLimitMs = 120_000
const displayMs = 500
const diskBytes = 16 * 2 ** 20
const stepLimitMs = bootLimitMs
/** The guest's kernel and its program, with some room. */
export const demoRamBytesMin = 128 * 2 ** 20

export async function demo(
  options: DemoOptions,
  observer: DemoObserver,
  signal: AbortSignal,
): Promise<DemoSummary> {
  const directory = makeOwnedDirectory('subpage-demo-')
  const agents: EphemeralAgent[] = []
  try {
    for (const host of ['a', 'b'])
      agents.push(await startEphemeralAgent({ stateDirectory: join(directory, host), host }))
    const [a, b] = agents
    invariant(a && b, 'two agents were started')
    observer.say(`two agents run on this machine: host a and host b`)
    return await scenario(options, observer, a, b, signal)
  } finally {
    await Promise.all(agents.map((agent) => agent.end()))
    await removeOwnedDirectory(directory)
  }
}

async function scenario(
  { ramBytes, epochMs, accel, watchMs }: DemoOptions,
  observer: DemoObserver,
  a: EphemeralAgent,
  b: EphemeralAgent,
  signal: AbortSignal,
): Promise<DemoSummary> {
  const started = await a.client.run({
    name,
    ramBytes,
    accel,
    options: demoGuestOptions(),
    disks: [{ bytes: diskBytes, name: 'data' }],
  })
  const before = consoleAt(started.console)
  observer.say(
    `guest "${name}" starts on a: stock QEMU ${started.qemu}, ${started.accel}, process ${started.pid}`,
  )
  await untilBooted(a.client, before, ramBytes, signal)
  await untilRecords(before)
  observer.say('it has booted; its program updates 32 MiB of checksummed memory and counts its steps')
  observer.say('another one writes numbers to a file on its disk, and says each when it is synced')

  await a.client.protect(name, {
    to: b.address,
    epochMs,
    // Within one machine nothing has to be made smaller; between two it does.
    compress: 'zstd',
  })
  observer.say(
    'host a protects it to b: first all its disk and memory, then what changes, checkpoint by checkpoint',
  )
  const last = await watch(a.client, watchMs, observer, signal)
  invariant(last.epochs && started.pid !== null, 'a protected guest has epochs and a process')

  signal.throwIfAborted()
  // As status says it: by the wall clock of one machine.
  const killedAt = Date.now()
  process.kill(started.pid, 'SIGKILL')
  observer.say(`SIGKILL to QEMU, process ${started.pid}, in the middle of work`)
  const taken = await until(b.client, 'taken over', ({ takeover }) => takeover !== null, signal)
  invariant(taken.takeover, 'the wait was for a takeover')
  observer.say(`host b has taken over from checkpoint ${taken.takeover.epoch}`)

  const after = consoleAt(taken.console)
  const safeBytes = taken.takeover.consoleBytes
  // Now: the host that has lost the guest begins a new log soon.
  const committed = recordsIn(readConsole(before, 0, safeBytes)).at(-1) ?? 0
  const outcome = await judge(before, after, safeBytes)
  const lost = Math.max(0, committed - (await recordsOnDisk(after)))
  return {
    guest: { continued: outcome.continued, lost: outcome.lost, verified: outcome.verified },
    disk: { committed, lost },
    failoverMs: taken.takeover.at - killedAt,
    stepsRepeated: outcome.repeated,
    checkpoints: taken.takeover.epoch,
    pauseUs: last.epochs.pauseUs,
    bytes: {
      dirtyPages: last.epochs.bytes.dirtyPages,
      changedLines: last.epochs.bytes.changedLines,
      sent: last.epochs.bytes.sent,
    },
    amplification: last.epochs.amplification,
    tracker: last.tracker ?? '',
    accel: last.accel,
  }
}

/** Makes a file system on the guest's disk and begins to write numbers to a file there. */
async function untilRecords(console: Console): Promise<void> {
  const from = consoleLength(console)
  const append = 'dd of=/mnt/records oflag=append conv=notrunc,fsync 2>/dev/null'
  const make = 'mke2fs /dev/vda >/dev/null 2>&1 && mkdir -p /mnt && mount -t ext4 /dev/vda /mnt'
  await typeLine(console, `run ${make} && ${recordLoop(`echo $i | ${append}`)} &`)
  await untilConsole(console, from, (text) => recordsIn(text)[0], bootLimitMs)
}

/** How many the file has: all up to that number, or none. */
async function recordsOnDisk(console: Console): Promise<number> {
  const from = consoleLength(console)
  await typeLine(
    console,
    `run awk '$1 != NR { bad = 1 } END { print "on disk " (bad ? 0 : NR) }' /mnt/records`,
  )
  return await untilConsole(
    console,
    from,
    (text) => {
      const [, count] = /^on disk (\d+)\r?\n/m.exec(text) ?? []
      return count === undefined ? undefined : Number(count)
    },
    20_000,
  )
}

/** Shows epochs for a while; the guest must be protected at its end. */
async function watch(
  client: AgentClient,
  watchMs: number,
  observer: DemoObserver,
  signal: AbortSignal,
): Promise<GuestStatus> {
  let status = await until(client, 'protected', ({ committed }) => committed !== null, signal)
  const deadline = performance.now() + watchMs
  while (performance.now() < deadline) {
    observer.epochs(status)
    await delay(Math.min(displayMs, watchMs), undefined, { signal })
    status = await client.guest(name)
  }
  return status
}

const until = (
  client: AgentClient,
  what: string,
  found: (status: GuestStatus) => boolean,
  signal: AbortSignal,
) => untilGuest(client, name, what, found, stepLimitMs, signal)

/** A guest that does not come up is not waited for. */
async function untilBooted(client: AgentClient, console: Console, ramBytes: number, signal: AbortSignal) {
  const over = new AbortController()
  const either = AbortSignal.any([signal, over.signal])
  const failed = (why: string) =>
    new SubpageError(
      'GUEST_DIED',
      `the guest did not come up with ${formatBytes(ramBytes)} of memory: ${why}; try a larger --ram`,
    )
  const said = untilConsole(
    console,
    0,
    (text) => {
      const trouble = bootTrouble(text)
      if (trouble !== undefined) throw failed(`its kernel says "${trouble}"`)
      return victimLines(text)[0]
    },
    bootLimitMs,
    either,
  )
  const ended = until(client, 'ended', ({ state }) => state === 'Ended', either).then(() => {
    throw failed(`it ended after ${consoleLength(console)} bytes of output`)
  })
  try {
    await Promise.race([said, ended])
  } finally {
    over.abort()
    await Promise.allSettled([said, ended])
  }
}

/**
 * Compares what the guest said before and after. `safeBytes` is the length of its console output at the checkpoint
 * from which it went on: every step in there must still be done.
 */
export async function judge(before: Console, after: Console, safeBytes: number) {
  const safeStep = victimLines(readConsole(before, 0, safeBytes)).at(-1)?.step ?? 0
  const lastStep = victimLines(readConsole(before)).at(-1)?.step ?? 0
  const [first] = await untilConsole(
    after,
    0,
    (text) => {
      const lines = victimLines(text)
      return lines.length >= 3 || victimDamage(text) ? lines : undefined
    },
    20_000,
  )
  // Its memory is whole, and it is the memory that this history must have led to.
  const verified =
    (await askVictim(after)) && first !== undefined && victimDigest(first.step) === first.digest
  return {
    continued: first !== undefined,
    lost: Math.max(0, safeStep - (first?.step ?? 0)),
    repeated: Math.max(0, lastStep - (first?.step ?? lastStep)),
    verified,
  }
}
