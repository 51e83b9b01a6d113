/**
 * What protection costs a guest and its clients: request latency that a redis client sees, redis requests per second, and the
 * steps per second of the victim program, which only computes. The same guest is measured unprotected, protected at a fixed
 * epoch, at an automatic one, and at one that follows a goal for what clients wait, by turns; what protection costs is told from
 * rounds, with its spread. Two hosts and the bridge are in one namespace, the client is in another.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { median } from 'subpage-lab/report/statistics'
import type { EphemeralAgent } from '../src/agent/ephemeral-agent.ts'
import {
  type Console,
  consoleAt,
  demoGuestOptions,
  readConsole,
  untilConsole,
  victimLines,
} from '../src/qemu/demo-guest.ts'
import { automaticPace, type Pace } from '../src/replication/pace.ts'
import { protect, until } from '../test/support/hosts.ts'
import type { BenchOptions } from './bench.ts'
import { RedisGuest, redisGuest } from './redis-guest.ts'
import type { Latency } from './redis-load.ts'
import { type Spread, spreadOf } from './spread.ts'
import { turned } from './turned.ts'

const epochMs = 25
/** Checkpoints before a measurement begins. */
const settled = { tiny: 5, full: 20 }

/** What `--latency 15ms` asks for. */
const goalMs = 15

const paces = {
  protected: { epochMs },
  auto: automaticPace,
  goal: { ...automaticPace, latencyMs: goalMs },
} as const satisfies Record<string, Pace>
type Protected = keyof typeof paces
const protectedModes = Object.keys(paces) as Protected[]
const modes = ['unprotected', ...protectedModes] as const
type Mode = (typeof modes)[number]
type Measure<T> = Record<Mode, T[]>

const each = <T>(value: (mode: Mode) => T) =>
  Object.fromEntries(modes.map((mode) => [mode, value(mode)])) as Record<Mode, T>

export async function run(options: BenchOptions) {
  await using redis = await RedisGuest.start()
  return await measure(redis, options)
}

/** The redis guest is gone afterwards. */
export async function measure(redis: RedisGuest, { tiny }: BenchOptions) {
  const rounds = tiny ? 1 : 5
  const seconds = tiny ? 1 : 4
  const checkpoints = tiny ? settled.tiny : settled.full
  const { a, b } = redis
  const latency: Measure<Latency> = each(() => [])
  const throughput: Measure<number> = each(() => [])
  const steps: Measure<number> = each(() => [])

  for (let round = 0; round < rounds; round++)
    for (const mode of turned(modes, round)) {
      await enter(mode, redisGuest, a, b, checkpoints)
      latency[mode].push(await redis.latency(seconds))
      throughput[mode].push(await redis.throughput(seconds))
      await leave(mode, redisGuest, a)
    }
  await a.client.remove(redisGuest)

  const victim = await a.client.run({
    name: 'victim',
    ramBytes: 160 * 2 ** 20,
    accel: 'tcg',
    options: demoGuestOptions(['victim_rate=0']),
  })
  const console = consoleAt(victim.console)
  await untilConsole(console, 0, (text) => victimLines(text)[0], 120_000)
  for (let round = 0; round < rounds; round++)
    for (const mode of turned(modes, round)) {
      await enter(mode, 'victim', a, b, checkpoints)
      steps[mode].push(await stepsPerSecond(console, seconds))
      await leave(mode, 'victim', a)
    }
  await a.client.remove('victim')

  return report(rounds, latency, throughput, steps)
}

async function enter(
  mode: Mode,
  name: string,
  a: EphemeralAgent,
  b: EphemeralAgent,
  checkpoints: number,
): Promise<void> {
  if (mode === 'unprotected') return
  await protect(a, name, b, paces[mode])
  await until(a, name, ({ epochs }) => (epochs?.checkpoints ?? 0) >= checkpoints)
}

async function leave(mode: Mode, name: string, a: EphemeralAgent): Promise<void> {
  if (mode !== 'unprotected') await a.client.unprotect(name)
}

async function stepsPerSecond(console: Console, seconds: number): Promise<number> {
  const now = () => ({ step: victimLines(readConsole(console)).at(-1)?.step ?? 0, at: performance.now() })
  const from = now()
  await delay(seconds * 1000)
  const to = now()
  return Math.round(((to.step - from.step) * 1000) / (to.at - from.at))
}

function report(
  rounds: number,
  latency: Measure<Latency>,
  throughput: Measure<number>,
  steps: Measure<number>,
) {
  const latencyUs = each((mode) => ({
    p50: median(latency[mode].map(({ p50 }) => p50)),
    p99: median(latency[mode].map(({ p99 }) => p99)),
  }))
  /** By protecting, in each round. */
  const lost = (measure: Measure<number>, mode: Mode): Spread =>
    spreadOf(measure[mode].map((value, round) => 1 - value / measure.unprotected[round]!))
  const added = (mode: Mode): Spread =>
    spreadOf(latency[mode].map(({ p50 }, round) => (p50 - latency.unprotected[round]!.p50) / 1000))
  const summary = (measure: Measure<number>) => each((mode) => median(measure[mode]))
  const json = {
    epochMs,
    auto: automaticPace,
    goal: paces.goal,
    rounds,
    latencyUs,
    throughput: summary(throughput),
    steps: summary(steps),
    /** Medians and quartiles over rounds: milliseconds at p50; shares of what the guest does unprotected. */
    cost: Object.fromEntries(
      protectedModes.map((mode) => [
        mode,
        { addedP50Ms: added(mode), requests: lost(throughput, mode), steps: lost(steps, mode) },
      ]),
    ) as Record<Protected, { addedP50Ms: Spread; requests: Spread; steps: Spread }>,
  }
  const line = (mode: Mode) =>
    [
      mode.padEnd(12),
      `p50 ${(latencyUs[mode].p50 / 1000).toFixed(2)} ms, p99 ${(latencyUs[mode].p99 / 1000).toFixed(2)} ms`,
      `${json.throughput[mode]} requests/s`,
      `${json.steps[mode]} steps/s`,
    ].join('   ')
  const costLine = (mode: Protected) => {
    const { addedP50Ms, requests, steps: fewer } = json.cost[mode]
    return `${mode.padEnd(12)}   adds ${say(addedP50Ms, 1, 2)} ms at p50, costs ${say(requests, 100, 1)} % of requests and ${say(fewer, 100, 1)} % of steps`
  }
  return {
    json,
    text: [
      `epoch ${epochMs} ms (auto: at most ${automaticPace.epochMs} ms; goal: clients wait ${goalMs} ms), ${rounds} rounds`,
      ...modes.map(line),
      'median of the rounds (quartiles):',
      ...protectedModes.map(costLine),
    ].join('\n'),
  }
}

const say = ({ median: middle, low, high }: Spread, scale: number, digits: number) =>
  `${(middle * scale).toFixed(digits)} (${(low * scale).toFixed(digits)} to ${(high * scale).toFixed(digits)})`
