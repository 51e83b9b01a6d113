/**
 * What each way of sending less costs and gains on a live guest under load, by turns: requests per second lost, processor
 * time of both agents, the pause, how long a commit takes, and what is sent. Each way is compared with the plain one of the
 * same round, so that what the machine does beside it weighs on both; medians and quartiles are of the rounds.
 */
import type { Sending } from '../src/replication/sending.ts'
import { processorMs, protect, until } from '../test/support/hosts.ts'
import type { BenchOptions, BenchResult } from './bench.ts'
import { RedisGuest, redisGuest } from './redis-guest.ts'
import { type Difference, differenceOf, type Spread, spreadOf } from './spread.ts'
import { turned } from './turned.ts'

const epochMs = 25
/** Checkpoints before a measurement begins. */
const settled = 20

const nothing: Sending = { reduce: [], compress: 'off', speculate: 'off' }
/** What the others are compared with. */
const plain = 'deltas only'
const ways: Record<string, Sending | undefined> = {
  unprotected: undefined,
  [plain]: nothing,
  '+ sent early': { ...nothing, speculate: 'auto' },
  '+ dictionary': { ...nothing, reduce: ['dictionary'] },
  '+ all reducing': { compress: 'off', speculate: 'off' },
  '+ zstd': { compress: 'zstd', speculate: 'off' },
  'all, always': { compress: 'zstd', speculate: 'always' },
  'as protect does': {},
}
const tinyWays = ['unprotected', plain, '+ sent early', '+ zstd', 'all, always']

const metrics = [
  'perSecond',
  'primaryCpu',
  'standbyCpu',
  'pauseUs',
  'commitUs',
  'dirtyPages',
  'sentBytes',
  'finalBytes',
  'earlyPages',
  'earlyPagesAgain',
] as const
type Metric = (typeof metrics)[number]
/** Of one turn: shares are of a processor, and what belongs to checkpoints is for each. */
type Turn = Record<Metric, number>

export interface SendingWay {
  name: string
  spread: Record<Metric, Spread>
  /** To the plain way, in pairs of one round; of the plain way itself there is none. */
  difference: Partial<Record<Metric, Difference>>
}

export interface SendingBench {
  epochMs: number
  rounds: number
  seconds: number
  ways: SendingWay[]
}

export async function run(options: BenchOptions): Promise<BenchResult> {
  await using redis = await RedisGuest.start()
  return await measure(redis, options)
}

export async function measure(redis: RedisGuest, { tiny, runs }: BenchOptions): Promise<BenchResult> {
  const rounds = runs ?? (tiny ? 1 : 7)
  const seconds = tiny ? 1 : 2
  const names = tiny ? tinyWays : Object.keys(ways)
  const found: Record<string, Turn[]> = Object.fromEntries(names.map((name) => [name, []]))
  for (let round = 0; round < rounds; round++)
    for (const name of turned(names, round)) found[name]!.push(await turn(redis, ways[name], seconds))

  const of = (name: string, metric: Metric) => found[name]!.map((one) => one[metric])
  const each = <T>(value: (metric: Metric) => T) =>
    Object.fromEntries(metrics.map((metric) => [metric, value(metric)])) as Record<Metric, T>
  const json: SendingBench = {
    epochMs,
    rounds,
    seconds,
    ways: names.map((name) => ({
      name,
      spread: each((metric) => spreadOf(of(name, metric))),
      difference: name === plain ? {} : each((metric) => differenceOf(of(name, metric), of(plain, metric))),
    })),
  }
  return { json, text: textOf(json) }
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
  type Epochs = NonNullable<typeof from.epochs>
  const grown = (count: (epochs: Epochs) => number) =>
    to.epochs && from.epochs ? count(to.epochs) - count(from.epochs) : 0
  const checkpoints = Math.max(
    1,
    grown((epochs) => epochs.checkpoints),
  )
  return {
    perSecond,
    primaryCpu: share(0),
    standbyCpu: share(1),
    pauseUs: to.epochs?.pauseUs.p50 ?? 0,
    commitUs: to.epochs?.commitUs.p50 ?? 0,
    dirtyPages: grown((epochs) => epochs.dirtyPages) / checkpoints,
    sentBytes: grown((epochs) => epochs.bytes.sent) / checkpoints,
    finalBytes: grown((epochs) => epochs.bytes.final) / checkpoints,
    earlyPages: grown((epochs) => epochs.earlyPages) / checkpoints,
    earlyPagesAgain: grown((epochs) => epochs.earlyPagesAgain) / checkpoints,
  }
}

const formats: Record<Metric, [head: string, format: (value: number) => string]> = {
  perSecond: ['requests/s', (value) => value.toFixed(0)],
  primaryCpu: ['primary, % of a processor', (value) => (value * 100).toFixed(1)],
  standbyCpu: ['standby, % of a processor', (value) => (value * 100).toFixed(1)],
  pauseUs: ['pause p50, ms', (value) => (value / 1000).toFixed(2)],
  commitUs: ['commit p50, ms', (value) => (value / 1000).toFixed(2)],
  dirtyPages: ['dirty pages', (value) => value.toFixed(0)],
  sentBytes: ['sent, KB', (value) => (value / 1000).toFixed(1)],
  finalBytes: ['of it after the pause, KB', (value) => (value / 1000).toFixed(1)],
  earlyPages: ['pages sent early', (value) => value.toFixed(0)],
  earlyPagesAgain: ['of these in vain', (value) => value.toFixed(1)],
}

/** A block for each measure, a line for each way: the quartiles, and how it differs from the plain way. */
function textOf({ ways, rounds, seconds }: SendingBench): string {
  const blocks = metrics.map((metric) => {
    const [head, format] = formats[metric]
    const lines = ways.map(({ name, spread, difference }) => {
      const { median, low, high } = spread[metric]
      const differs = difference[metric]
      const against = !differs
        ? ''
        : differs.told
          ? `${differs.median > 0 ? '+' : ''}${format(differs.median)}`
          : 'no difference'
      return `  ${name.padEnd(16)}${format(median).padStart(9)}${`${format(low)} … ${format(high)}`.padStart(20)}   ${against}`.trimEnd()
    })
    return [`${head}: median, quartiles, difference to "${plain}"`, ...lines].join('\n')
  })
  return [
    `epoch ${epochMs} ms, ${rounds} rounds of ${seconds} s by turns; a difference whose quartiles lie on both sides of zero is none`,
    ...blocks,
  ].join('\n\n')
}
