/**
 * How many guests one pair of hosts protects: what their checkpoints cost as there are more of them, and what happens to them while
 * a large guest begins and ends beside them, and when the agents are killed. Both hosts are this machine. The guests have no
 * operating system: each costs next to nothing but its protection.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { EphemeralAgent } from '../src/agent/ephemeral-agent.ts'
import type { GuestStatus } from '../src/agent/status.ts'
import { endAgent, Hosts, processorMs, protect, until } from '../test/support/hosts.ts'
import type { BenchOptions } from './bench.ts'

const epochMs = 100
const mib = 2 ** 20
const ramBytes = 32 * mib

interface Percentiles {
  p50: number
  p99: number
}

/** Of all guests together; percentiles are medians of theirs, and the worst of theirs. */
interface Phase {
  pauseUs: Percentiles
  commitUs: Percentiles
  missedCheckpoints: number
  longestGapMs: number
}

interface Row extends Phase {
  guests: number
  /** Processors that subpage takes of both hosts. */
  cpuPerGuest: number
  /** Private memory of a primary's supervisor, its shadow not counted. */
  privateBytesPerGuest: number
  /** Of a standby's supervisor, its image not counted. */
  privateBytesPerStandby: number
  /** Of the larger of the two agents. */
  privateBytesOfAgent: number
  loopDelayMsMax: number
}

export async function run({ tiny }: BenchOptions) {
  const counts = tiny ? [1, 2] : [1, 2, 4, 8, 16]
  const checkpoints = tiny ? 20 : 200
  const largeBytes = tiny ? 256 * mib : 8192 * mib
  await using hosts = new Hosts()
  let a = await hosts.add('a')
  let b = await hosts.add('b')
  const names: string[] = []
  const rows: Row[] = []
  for (const guests of counts) {
    for (let n = names.length; n < guests; n++) {
      names.push(`g${n}`)
      await a.client.run({ name: `g${n}`, ramBytes, accel: 'tcg', options: [] })
    }
    await protectAnew(a, b, names)
    const before = cpuSeconds(a, b)
    const startedAt = performance.now()
    const phase = await phaseOf(a, names, checkpoints)
    const seconds = (performance.now() - startedAt) / 1000
    const [all, standbys] = [await statusOf(a, names), await statusOf(b, names)]
    rows.push({
      guests,
      ...phase,
      cpuPerGuest: (cpuSeconds(a, b) - before) / seconds / guests,
      privateBytesPerGuest: median(
        all.map(({ supervisor, memory }) => privateBytes(supervisor!.process) - memory!.shadowBytes),
      ),
      privateBytesPerStandby: median(standbys.map(({ supervisor }) => privateBytes(supervisor!.process))),
      privateBytesOfAgent: Math.max(...[a, b].map(({ process }) => privateBytes(process.pid!))),
      loopDelayMsMax: Math.max(...all.map(({ supervisor }) => supervisor!.loopDelayMs)),
    })
  }

  await protectAnew(a, b, names)
  await a.client.run({ name: 'large', ramBytes: largeBytes, accel: 'tcg', options: [] })
  await a.client.remove('large')
  const largeBeside = await phaseOf(a, names, checkpoints)

  await protectAnew(a, b, names)
  await phaseOf(a, names, Math.ceil(checkpoints / 4))
  await Promise.all([endAgent(a, 'SIGKILL'), endAgent(b, 'SIGKILL')])
  await delay(10 * epochMs)
  ;[a, b] = await Promise.all([hosts.add('a'), hosts.add('b')])
  const agentsKilled = await phaseOf(a, names, checkpoints)

  const json = { epochMs, ramBytes, checkpoints, rows, largeBytes, largeBeside, agentsKilled }
  const line = (what: string, { pauseUs, commitUs, longestGapMs, missedCheckpoints }: Phase) =>
    `${what.padEnd(22)} pause p50 ${pauseUs.p50} µs, p99 ${pauseUs.p99} µs; commit p50 ${commitUs.p50} µs, p99 ${commitUs.p99} µs; longest gap ${longestGapMs.toFixed(0)} ms; missed ${missedCheckpoints}`
  return {
    json,
    text: [
      `epochs of ${epochMs} ms, ${checkpoints} checkpoints of each guest`,
      ...rows.flatMap((row) => [
        line(`${row.guests} guests`, row),
        `${''.padEnd(22)} each: ${row.cpuPerGuest.toFixed(3)} processors, ${inMib(row.privateBytesPerGuest)} and ${inMib(row.privateBytesPerStandby)} MiB; an agent: ${inMib(row.privateBytesOfAgent)} MiB; event loops late by ${row.loopDelayMsMax.toFixed(0)} ms at most`,
      ]),
      line(`${largeBytes / mib} MiB come and go`, largeBeside),
      line('agents killed', agentsKilled),
    ].join('\n'),
  }
}

/** What they counted begins anew with their protections. */
async function protectAnew(a: EphemeralAgent, b: EphemeralAgent, names: string[]): Promise<void> {
  for (const name of names) {
    const { role } = await a.client.guest(name)
    if (role === 'Primary') await a.client.unprotect(name)
    await protect(a, name, b, { epochMs, shadow: 'hash' })
  }
}

async function statusOf({ client }: EphemeralAgent, names: string[]): Promise<GuestStatus[]> {
  const { guests } = await client.status()
  return guests.filter(({ name }) => names.includes(name))
}

async function phaseOf(a: EphemeralAgent, names: string[], checkpoints: number): Promise<Phase> {
  const counted = await Promise.all(
    names.map((name) => until(a, name, ({ epochs }) => (epochs?.checkpoints ?? 0) >= checkpoints, 600_000)),
  )
  const epochs = counted.map(({ epochs }) => epochs!)
  const of = (what: 'pauseUs' | 'commitUs') => ({
    p50: median(epochs.map((one) => one[what].p50)),
    p99: Math.max(...epochs.map((one) => one[what].p99)),
  })
  return {
    pauseUs: of('pauseUs'),
    commitUs: of('commitUs'),
    missedCheckpoints: epochs.reduce((sum, { failed }) => sum + failed, 0),
    longestGapMs: Math.max(...epochs.map(({ gapUs }) => gapUs.max)) / 1000,
  }
}

const inMib = (bytes: number) => (bytes / mib).toFixed(0)

const median = (values: number[]) => values.sort((x, y) => x - y)[Math.floor(values.length / 2)] ?? 0

/** Of both hosts, until now. */
const cpuSeconds = (...agents: EphemeralAgent[]) =>
  agents.reduce((sum, agent) => sum + processorMs(agent) / 1000, 0)

/** Private pages and its part of shared ones (proc(5), smaps_rollup): guest memory and images are files, which are not counted. */
function privateBytes(pid: number): number {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1')
  const kib = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(rollup)?.[1] ?? 0)
  return (kib('Pss') - kib('Pss_File') - kib('Pss_Shmem')) * 1024
}
