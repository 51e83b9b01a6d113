/**
 * How long a guest is away: detection (from the SIGKILL of its QEMU until the standby starts to take over) and takeover
 * (until the guest runs). Several failovers in a row at random moments, from one host to the other and back. Each is judged: nothing
 * is lost, and the guest has found all its memory whole.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { judge } from '../src/agent/demo.ts'
import { SubpageError } from '../src/errors.ts'
import { consoleAt } from '../src/qemu/demo-guest.ts'
import { Hosts, protect, startVictim, until } from '../test/support/hosts.ts'
import { seededRandom } from '../test/support/random.ts'
import type { BenchOptions } from './bench.ts'

const median = (values: number[]) => values.sort((x, y) => x - y)[Math.floor(values.length / 2)] ?? 0

export async function run({ tiny, runs }: BenchOptions) {
  const failovers = runs ?? (tiny ? 6 : 20)
  const random = seededRandom()
  await using hosts = new Hosts()
  let from = await hosts.add('a')
  let to = await hosts.add('b')
  let { console } = await startVictim(from, 'bench')
  const detectionMs: number[] = []
  const takeoverMs: number[] = []
  const reasons = new Set<string>()
  for (let n = 0; n < failovers; n++) {
    // After a failover the protection begins by itself the other way round.
    if (n === 0) await protect(from, 'bench', to)
    await until(from, 'bench', ({ state, epochs }) => state === 'Protected' && (epochs?.checkpoints ?? 0) > 0)
    await delay(random.integer(0, 400))
    const { pid } = await from.client.guest('bench')
    const killedAt = Date.now()
    process.kill(pid ?? Number.NaN, 'SIGKILL')
    const { takeover, console: path } = await until(to, 'bench', (status) => status.takeover !== null)
    if (!takeover) throw new Error('the wait was for a takeover')
    const after = consoleAt(path)
    const { continued, lost, verified } = await judge(console, after, takeover.consoleBytes)
    if (!continued || lost > 0 || !verified)
      throw new SubpageError(
        'INTERNAL',
        `failover ${n + 1} of ${failovers}, seed ${random.seed}: ${JSON.stringify({ continued, lost, verified })}`,
      )
    console = after
    reasons.add(takeover.reason)
    takeoverMs.push(takeover.ms)
    detectionMs.push(takeover.at - takeover.ms - killedAt)
    ;[from, to] = [to, from]
  }
  const json = {
    failovers,
    seed: random.seed,
    reasons: [...reasons],
    detectionMs: { p50: median(detectionMs), max: Math.max(...detectionMs) },
    takeoverMs: { p50: median(takeoverMs), max: Math.max(...takeoverMs) },
  }
  const line = (name: string, { p50, max }: { p50: number; max: number }) =>
    `${name.padEnd(10)} p50 ${p50.toFixed(1)} ms, max ${max.toFixed(1)} ms`
  return {
    json,
    text: [
      `${failovers} failovers, each verified by the guest: nothing lost; seed ${random.seed}`,
      line('detection', json.detectionMs),
      line('takeover', json.takeoverMs),
    ].join('\n'),
  }
}
