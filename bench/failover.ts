/**
 * How long a guest is away: detection (from the SIGKILL of its QEMU until the standby starts to take over) and takeover
 * (until the guest runs). Several failovers in a row, from one host to the other and back.
 */
import { Hosts, protect, startVictim, until } from '../test/support/hosts.ts'
import type { BenchOptions } from './bench.ts'

const median = (values: number[]) => values.sort((x, y) => x - y)[Math.floor(values.length / 2)] ?? 0

export async function run({ tiny }: BenchOptions) {
  const failovers = tiny ? 2 : 15
  await using hosts = new Hosts()
  let from = await hosts.add('a')
  let to = await hosts.add('b')
  await startVictim(from, 'bench')
  const detectionMs: number[] = []
  const takeoverMs: number[] = []
  for (let n = 0; n < failovers; n++) {
    // After a failover the protection begins by itself the other way round.
    if (n === 0) await protect(from, 'bench', to)
    const { pid } = await until(from, 'bench', ({ epochs }) => (epochs?.checkpoints ?? 0) >= 20)
    const killedAt = Date.now()
    process.kill(pid ?? 0, 'SIGKILL')
    const { takeover } = await until(to, 'bench', (status) => status.takeover !== null)
    if (!takeover) throw new Error('the wait was for a takeover')
    takeoverMs.push(takeover.ms)
    detectionMs.push(takeover.at - takeover.ms - killedAt)
    ;[from, to] = [to, from]
  }
  const json = {
    failovers,
    detectionMs: { p50: median(detectionMs), max: Math.max(...detectionMs) },
    takeoverMs: { p50: median(takeoverMs), max: Math.max(...takeoverMs) },
  }
  const line = (name: string, { p50, max }: { p50: number; max: number }) =>
    `${name.padEnd(10)} p50 ${p50.toFixed(1)} ms, max ${max.toFixed(1)} ms`
  return {
    json,
    text: [
      `${failovers} failovers`,
      line('detection', json.detectionMs),
      line('takeover', json.takeoverMs),
    ].join('\n'),
  }
}
