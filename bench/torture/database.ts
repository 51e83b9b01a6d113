/**
 * Torture of the Debian guest (test/support/debian-pair.ts): systemd, PostgreSQL under pgbench and rows with numbers, from clients outside. In
 * each run its QEMU, its supervisor and QEMU, or the agent of its host gets SIGKILL at a random moment.
 *
 * SUBPAGE_TEST_SEED repeats a series (the moments too, but not what the machine does meanwhile).
 */
import type { Manager } from '../../test/support/debian-hosts.ts'
import { DebianPair, type KillKind, killKinds, type Outcome } from '../../test/support/debian-pair.ts'
import { seededRandom } from '../../test/support/random.ts'
import { say } from '../bench.ts'
import { percentiles } from './judgement.ts'
import { shuffled } from './shuffled.ts'

interface TortureOfDatabase {
  /** Who started the guest. */
  manager: Manager
  runs: number
  failovers: number
  killed: Partial<Record<KillKind, number>>
  takeoverMs: { p50: number; p99: number }
  /** The longest wait for the acknowledgement of a row, in each run with a failover. */
  clientWaitMs: { p50: number; p99: number }
  /** Of pgbench, its connections the same all the time. */
  transactions: number
  tps: number
  /** By how much the guest's time of day was behind when it was protected first, and at the end; and its battery clock. */
  clocks: { beforeMs: number; afterMs: number; rtcAfterMs: number }
  seed: number
  errors: string[]
}

/** A process dies within this time after all was well. */
const momentMsMax = 3_000

interface Options {
  manager: Manager
  runs: number
  enough?: AbortSignal
}

export async function tortureDatabase({ manager, runs, enough }: Options): Promise<TortureOfDatabase> {
  const random = seededRandom()
  await using pair = await DebianPair.start(manager)
  const { behindMs: beforeMs } = await pair.clocks()
  await pair.protect()
  await pair.load()
  const outcomes: Outcome[] = []
  const errors: string[] = []
  let bag: KillKind[] = []
  while (outcomes.length < runs && !enough?.aborted) {
    if (bag.length === 0) bag = shuffled(killKinds, random)
    const afterMs = random.integer(0, momentMsMax)
    const outcome = await pair.kill(bag.pop()!, afterMs)
    outcomes.push(outcome)
    const { kind, problems, takeoverMs, clocks, transactions } = outcome
    const took = takeoverMs === undefined ? 'goes on' : `taken over in ${takeoverMs.toFixed(1)} ms`
    say(
      `${outcomes.length}/${runs} ${kind} after ${afterMs} ms: ${took}, ${transactions} transactions, clock behind by ${clocks.behindMs} ms${problems.length > 0 ? `; PROBLEM ${problems.join('; ')}` : ''}`,
    )
    errors.push(
      ...problems.map((problem) => `seed ${random.seed}, run ${outcomes.length}, ${kind}: ${problem}`),
    )
  }
  const { behindMs: afterMs, rtcBehindMs: rtcAfterMs } = await pair.clocks()
  const { tps } = pair
  errors.push(...(await pair.end()))
  const failovers = outcomes.filter(({ takeoverMs }) => takeoverMs !== undefined)
  const killed: TortureOfDatabase['killed'] = {}
  for (const { kind } of outcomes) killed[kind] = (killed[kind] ?? 0) + 1
  return {
    ...{ manager, runs: outcomes.length, failovers: failovers.length, killed, tps, errors },
    takeoverMs: percentiles(failovers.map(({ takeoverMs }) => takeoverMs!)),
    clientWaitMs: percentiles(failovers.map(({ longestMs }) => longestMs)),
    transactions: outcomes.at(-1)?.transactions ?? 0,
    clocks: { beforeMs, afterMs, rtcAfterMs },
    seed: random.seed,
  }
}
