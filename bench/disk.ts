/**
 * What protection costs the disk of a guest: operations a second and their latency for four kinds of load (guest/diskload.c), of the
 * same guest unprotected, mirrored only (into the endpoint, while no standby answers), protected, and protected with `--durability disk`,
 * by turns; then what the disk takes of the pauses, what of the writes goes over the wire, how long a takeover takes, and what a
 * standby costs that has the disk already.
 */
import { median, percentile } from 'subpage-lab/report/statistics'
import type { EphemeralAgent } from '../src/agent/ephemeral-agent.ts'
import type { GuestStatus } from '../src/agent/status.ts'
import {
  type Console,
  consoleAt,
  consoleLength,
  demoGuestOptions,
  typeLine,
  untilConsole,
} from '../src/qemu/demo-guest.ts'
import { Hosts, protect, ramBytes, signalHost, until } from '../test/support/hosts.ts'
import type { BenchOptions } from './bench.ts'
import { turned } from './turned.ts'

const name = 'disk'
const modes = ['unprotected', 'mirrored', 'protected', 'durable'] as const
type Mode = (typeof modes)[number]
const jobs = ['sync1', 'sync16', 'seq', 'mixed'] as const
type Job = (typeof jobs)[number]

export interface DiskRow {
  job: Job
  mode: Mode
  iops: number
  latencyUs: { p50: number; p99: number }
  mibPerS: number
}

interface Size {
  rounds: number
  seconds: number
  diskBytes: number
  takeovers: number
}
const sizes: Record<'tiny' | 'full', Size> = {
  tiny: { rounds: 1, seconds: 0.3, diskBytes: 32 * 2 ** 20, takeovers: 1 },
  full: { rounds: 5, seconds: 4, diskBytes: 2 ** 30, takeovers: 10 },
}

export async function run({ tiny }: BenchOptions) {
  const { rounds, seconds, diskBytes, takeovers } = tiny ? sizes.tiny : sizes.full
  await using hosts = new Hosts()
  const [a, b] = [await hosts.add('a'), await hosts.add('b')]
  const { console: log } = await a.client.run({
    ...{ name, ramBytes, accel: 'tcg', options: demoGuestOptions(['workload=idle']) },
    disks: [{ bytes: diskBytes, name: 'data' }],
  })
  const console = consoleAt(log)
  await untilConsole(console, 0, (said) => /^subpage-guest: ready/m.exec(said) ?? undefined, 120_000)

  const measured = new Map<string, DiskRow[]>()
  const barrier = new Barrier()
  for (let round = 0; round < rounds; round++)
    for (const mode of turned(modes, round)) {
      if (mode !== 'unprotected')
        await protect(a, name, b, { durability: mode === 'durable' ? 'disk' : 'memory' })
      if (mode === 'protected') await barrier.idle(a, seconds)
      if (mode === 'mirrored') await leaveAlone(a, b)
      for (const job of jobs) {
        const row = { job, mode, ...(await load(console, job, seconds)) }
        measured.set(`${job} ${mode}`, [...(measured.get(`${job} ${mode}`) ?? []), row])
      }
      if (mode === 'unprotected') continue
      if (mode === 'protected') barrier.loaded((await a.client.guest(name)).epochs!)
      if (mode === 'mirrored') await comeBack(a, b)
      // The copy goes: each protection begins alike.
      await a.client.unprotect(name, true)
    }
  const rows = [...measured.values()].map(middle)

  const resync = await resynced(a, b, console, diskBytes)
  const wireShare = await shareOf(a, console, seconds)
  const takeoverMs = await takenOver(a, b, takeovers)
  const json = {
    ...{ rounds, seconds, diskBytes, rows, wireShare, resync },
    ...barrier.figures,
    takeoverMs: {
      p50: median(takeoverMs),
      p99: percentile(
        [...takeoverMs].sort((x, y) => x - y),
        0.99,
      ),
    },
  }
  return { json, text: textOf(json) }
}

async function say<T>(console: Console, command: string, found: (said: string) => T | undefined): Promise<T> {
  const from = consoleLength(console)
  await typeLine(console, `run ${command}`)
  return await untilConsole(console, from, found, 120_000)
}

/** What the guest says of a load, once the line is whole: operations, microseconds, bytes, latencies p50 and p99. */
export function loadLine(job: Job, said: string): number[] | undefined {
  const numbers = 'ops=(\\d+) us=(\\d+) bytes=(\\d+) p50us=(\\d+) p99us=(\\d+)'
  return new RegExp(`^diskload job=${job} ${numbers}\\r?\\n`, 'm').exec(said)?.slice(1).map(Number)
}

async function load(console: Console, job: Job, seconds: number) {
  const found = await say(console, `diskload /dev/vda ${job} ${seconds} 2>&1`, (said) => {
    const failed = /^diskload: .*$/m.exec(said)
    if (failed) throw new Error(failed[0])
    return loadLine(job, said)
  })
  const [ops, us, bytes, p50, p99] = found as [number, number, number, number, number]
  const perSecond = 1e6 / us
  return {
    iops: Math.round(ops * perSecond),
    latencyUs: { p50, p99 },
    mibPerS: Number(((bytes * perSecond) / 2 ** 20).toFixed(2)),
  }
}

/** Of the rounds, the median; and how far they were apart. */
function middle(rows: DiskRow[]): DiskRow & { spread: { iops: [number, number] } } {
  const of = (value: (row: DiskRow) => number) => median(rows.map(value))
  const latencyUs = { p50: of((row) => row.latencyUs.p50), p99: of((row) => row.latencyUs.p99) }
  const iops = rows.map((row) => row.iops)
  const spread = { iops: [Math.min(...iops), Math.max(...iops)] as [number, number] }
  return { ...rows[0]!, iops: of((row) => row.iops), latencyUs, mibPerS: of((row) => row.mibPerS), spread }
}

/**
 * What a disk that is written to adds to the pause beyond its own flush: QEMU waits for what is on its way, and the journal is sealed. It is
 * the pause without harvest, capture and flush, less the same of the guest while it writes nothing; of each round, percentile by percentile.
 */
class Barrier {
  readonly #idle: GuestStatus['epochs'][] = []
  readonly #loaded: NonNullable<GuestStatus['epochs']>[] = []

  async idle(a: EphemeralAgent, seconds: number): Promise<void> {
    const checkpoints = Math.ceil(seconds * 20)
    const { epochs } = await until(a, name, (now) => (now.epochs?.checkpoints ?? 0) > checkpoints)
    this.#idle.push(epochs)
  }

  loaded(epochs: NonNullable<GuestStatus['epochs']>): void {
    this.#loaded.push(epochs)
  }

  get figures() {
    const both = (of: (at: 'p50' | 'p99') => number) => ({ p50: of('p50'), p99: of('p99') })
    const of = (from: readonly GuestStatus['epochs'][], what: 'pauseUs' | 'ownUs' | 'stopFlushUs') =>
      both((at) => median(from.map((epochs) => epochs![what][at])))
    const [pauseUs, ownUs, stopFlushUs] = [
      of(this.#loaded, 'pauseUs'),
      of(this.#loaded, 'ownUs'),
      of(this.#loaded, 'stopFlushUs'),
    ]
    const [idlePause, idleOwn] = [of(this.#idle, 'pauseUs'), of(this.#idle, 'ownUs')]
    const rest = (at: 'p50' | 'p99') => pauseUs[at] - ownUs[at] - stopFlushUs[at]
    const barrierUs = both((at) => Math.round(Math.max(0, rest(at) - (idlePause[at] - idleOwn[at]))))
    return { barrierUs, stopFlushUs, pauseUs, idlePauseUs: idlePause }
  }
}

/** The standby stands still for as long as a primary waits for its answer: the disk stays mirrored, and there are no checkpoints. */
async function leaveAlone(a: EphemeralAgent, b: EphemeralAgent): Promise<void> {
  await until(a, name, ({ disks: [disk] }) => disk?.state === 'Protected')
  signalHost(b, 'SIGSTOP')
  await until(a, name, ({ state }) => state === 'Connecting')
}

async function comeBack(a: EphemeralAgent, b: EphemeralAgent): Promise<void> {
  const { state, disks } = await a.client.guest(name)
  if (state !== 'Connecting' || disks[0]?.state !== 'Protected')
    throw new Error(`the disk was to be mirrored all the time; the guest is ${state}`)
  signalHost(b, 'SIGCONT')
  await until(a, name, (now) => now.state === 'Protected')
}

/** The standby has the disk as it was before the guest wrote a little of it. */
async function resynced(a: EphemeralAgent, b: EphemeralAgent, console: Console, diskBytes: number) {
  await protect(a, name, b)
  await a.client.unprotect(name)
  const changedBytes = 4 * 2 ** 20
  const write = `dd if=/dev/urandom of=/dev/vda bs=1M count=${changedBytes / 2 ** 20} seek=8 conv=notrunc,fsync 2>/dev/null`
  await say(console, `${write} && echo changed`, (said) => /^changed$/m.exec(said) ?? undefined)
  const startedAt = performance.now()
  await protect(a, name, b)
  const seconds = (performance.now() - startedAt) / 1000
  // By the map where both hosts had heard that the first checkpoint was applied, else by hashes.
  const disk = (await a.client.guest(name)).disks[0]!
  const { by, sentBytes } = disk.seeded!
  return { changedBytes, by, sentBytes, diskBytes, seconds: Number(seconds.toFixed(2)) }
}

/** Of what the guest writes to its disk through its page cache, the part that the wire has. */
async function shareOf(a: EphemeralAgent, console: Console, seconds: number): Promise<number> {
  const sent = async () => (await a.client.guest(name)).disks[0]!.sent
  const before = await sent()
  await load(console, 'sync1', seconds)
  // What is on its way is committed.
  const { committed } = await a.client.guest(name)
  await until(a, name, (now) => (now.committed?.epoch ?? 0) > (committed?.epoch ?? 0) + 1)
  const after = await sent()
  const { wireBytes, ...ways } = after
  const all = Object.entries(ways).reduce(
    (sum, [way, bytes]) => sum + bytes - before[way as keyof typeof ways],
    0,
  )
  return Number(((wireBytes - before.wireBytes) / all).toFixed(4))
}

/** Back and forth. */
async function takenOver(a: EphemeralAgent, b: EphemeralAgent, times: number): Promise<number[]> {
  const took: number[] = []
  let [from, to] = [a, b]
  for (let n = 0; n < times; n++) {
    const { pid, console: log } = await until(
      from,
      name,
      ({ state, disks: [disk] }) => state === 'Protected' && disk?.state === 'Protected',
    )
    await typeLine(consoleAt(log), 'run diskload /dev/vda sync1 3 &')
    // It dies while it writes.
    const writes = (await from.client.guest(name)).disks[0]!.writes
    await until(from, name, ({ disks: [disk] }) => disk!.writes > writes + 20)
    process.kill(pid!, 'SIGKILL')
    const { takeover } = await until(to, name, (status) => status.takeover !== null)
    took.push(takeover!.ms)
    ;[from, to] = [to, from]
  }
  return took
}

function textOf(json: {
  rounds: number
  seconds: number
  diskBytes: number
  rows: ReturnType<typeof middle>[]
  barrierUs: { p50: number; p99: number }
  pauseUs: { p50: number; p99: number }
  idlePauseUs: { p50: number; p99: number }
  stopFlushUs: { p50: number; p99: number }
  wireShare: number
  takeoverMs: { p50: number; p99: number }
  resync: Awaited<ReturnType<typeof resynced>>
}): string {
  const { rows, barrierUs, pauseUs, idlePauseUs, stopFlushUs, wireShare, takeoverMs, resync } = json
  const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`
  return [
    `a disk of ${mib(json.diskBytes)}, ${json.rounds} rounds of ${json.seconds} s`,
    ...rows.map(
      ({ job, mode, iops, latencyUs, mibPerS, spread }) =>
        `${job.padEnd(7)} ${mode.padEnd(12)} ${iops}/s (${spread.iops.join(' to ')}), ${mibPerS} MiB/s, p50 ${latencyUs.p50} µs, p99 ${latencyUs.p99} µs`,
    ),
    `pause p50 ${pauseUs.p50} µs, p99 ${pauseUs.p99} µs (without writes ${idlePauseUs.p50} and ${idlePauseUs.p99}); of it flushing the disk p50 ${stopFlushUs.p50} µs, p99 ${stopFlushUs.p99} µs, waiting for writes and sealing ${barrierUs.p50} and ${barrierUs.p99} µs`,
    `on the wire ${(wireShare * 100).toFixed(1)} % of what was written`,
    `takeover p50 ${takeoverMs.p50.toFixed(1)} ms, p99 ${takeoverMs.p99.toFixed(1)} ms`,
    `a standby that had the disk: ${mib(resync.changedBytes)} changed, ${mib(resync.sentBytes)} sent (by ${resync.by}), ${resync.seconds} s`,
  ].join('\n')
}
