/**
 * What each way of sending less costs and gains on a live guest under load, by turns: requests per second lost, processor
 * time of both agents, the pause, how long a commit takes, and what is sent.
 */
import { readFileSync } from 'node:fs'
import type { EphemeralAgent } from '../src/agent/ephemeral-agent.ts'
import { type Sending, sendingDefault } from '../src/replication/sending.ts'
import { median } from '../src/study/report/statistics.ts'
import { protect, until } from '../test/support/hosts.ts'
import type { BenchOptions, BenchResult } from './main.ts'
import { RedisGuest, redisGuest } from './redis-guest.ts'
import { turned } from './turned.ts'

const epochMs = 25
/** Checkpoints before a measurement begins. */
const settled = 20
const millisecondsPerTick = 10

const nothing: Sending = { reduce: [], compress: 'off', speculate: 'off' }
const ways: Record<string, Sending | undefined> = {
  unprotected: undefined,
  'deltas only': nothing,
  '+ sent early': { ...nothing, speculate: 'auto' },
  '+ dictionary': { ...nothing, reduce: ['dictionary'] },
  '+ all reducing': { ...sendingDefault, compress: 'off', speculate: 'off' },
  '+ zstd': { ...sendingDefault, compress: 'zstd', speculate: 'off' },
  'all, always': { ...sendingDefault, compress: 'zstd' },
  'as protect does': sendingDefault,
}

/** Of one turn; what belongs to checkpoints is for each. */
interface Turn {
  perSecond: number
  /** Share of a processor. */
  primaryCpu: number
  standbyCpu: number
  pauseUs: number
  commitUs: number
  dirtyPages: number
  sentBytes: number
}

export async function run({ tiny }: BenchOptions): Promise<BenchResult> {
  const rounds = tiny ? 1 : 5
  const seconds = tiny ? 0.5 : 4
  const names = tiny ? ['unprotected', 'deltas only', 'as protect does'] : Object.keys(ways)
  await using redis = await RedisGuest.start()
  const found: Record<string, Turn[]> = Object.fromEntries(names.map((name) => [name, []]))
  for (let round = 0; round < rounds; round++)
    for (const name of turned(names, round)) found[name]!.push(await turn(redis, ways[name], seconds))

  const middle = (name: string, key: keyof Turn) => median(found[name]!.map((one) => one[key]))
  const alone = middle('unprotected', 'perSecond')
  const table = names.map((name) => ({
    name,
    lost: 1 - middle(name, 'perSecond') / alone,
    perSecond: middle(name, 'perSecond'),
    primaryCpu: middle(name, 'primaryCpu'),
    standbyCpu: middle(name, 'standbyCpu'),
    pauseUs: middle(name, 'pauseUs'),
    commitUs: middle(name, 'commitUs'),
    dirtyPages: Math.round(middle(name, 'dirtyPages')),
    sentBytes: Math.round(middle(name, 'sentBytes')),
  }))
  const percent = (share: number) => `${(share * 100).toFixed(1)} %`
  return {
    json: { epochMs, rounds, ways: table },
    text: table
      .map((row) =>
        [
          row.name.padEnd(15),
          `${row.perSecond} requests/s, lost ${percent(row.lost)}`,
          `agents ${percent(row.primaryCpu)} + ${percent(row.standbyCpu)}`,
          `pause ${(row.pauseUs / 1000).toFixed(2)} ms, commit ${(row.commitUs / 1000).toFixed(2)} ms`,
          `${row.dirtyPages} pages, ${row.sentBytes} bytes sent`,
        ].join('   '),
      )
      .join('\n'),
  }
}

async function turn(
  { a, b, throughput }: RedisGuest,
  sending: Sending | undefined,
  seconds: number,
): Promise<Turn> {
  if (sending) {
    await protect(a, redisGuest, b, { epochMs, ...sending })
    await until(a, redisGuest, ({ epochs }) => (epochs?.checkpoints ?? 0) >= settled)
  }
  const look = async () => ({
    at: performance.now(),
    cpuMs: [processorMs(a), processorMs(b)] as const,
    epochs: (await a.client.guest(redisGuest)).epochs,
  })
  const from = await look()
  const perSecond = await throughput(seconds)
  const to = await look()
  if (sending) await a.client.unprotect(redisGuest)
  const share = (host: 0 | 1) => (to.cpuMs[host] - from.cpuMs[host]) / (to.at - from.at)
  const count = Math.max(1, (to.epochs?.checkpoints ?? 0) - (from.epochs?.checkpoints ?? 0))
  return {
    perSecond,
    primaryCpu: share(0),
    standbyCpu: share(1),
    pauseUs: to.epochs?.pauseUs.p50 ?? 0,
    commitUs: to.epochs?.commitUs.p50 ?? 0,
    dirtyPages: ((to.epochs?.dirtyPages ?? 0) - (from.epochs?.dirtyPages ?? 0)) / count,
    sentBytes: ((to.epochs?.bytes.sent ?? 0) - (from.epochs?.bytes.sent ?? 0)) / count,
  }
}

/** Processor time that an agent has used: proc(5), utime and stime. */
function processorMs({ process: { pid } }: EphemeralAgent): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  return (Number(fields[11]) + Number(fields[12])) * millisecondsPerTick
}
