/**
 * What a checkpoint costs the guest: the pause at a 25 ms epoch with 1,000 scattered dirty pages, and our own part of it
 * (harvest and capture); the rest is QEMU's stop, device save and cont. A real guest, a real standby.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { consoleAt, untilConsole, victimLines } from '../src/qemu/demo-guest.ts'
import { Hosts, protect, startVictim, until } from '../test/support/hosts.ts'
import type { BenchOptions } from './bench.ts'

const epochMs = 25
const scatteredPages = 1000

export async function run({ tiny }: BenchOptions) {
  const checkpoints = tiny ? 20 : 800
  await using hosts = new Hosts()
  const a = await hosts.add('a')
  const b = await hosts.add('b')
  const { console } = await startVictim(a, 'bench', [`victim_pattern=scattered:${scatteredPages}`])
  await protect(a, 'bench', b, { epochMs })
  // Who asks for its status takes time from what is measured.
  await delay(checkpoints * epochMs)
  const status = await until(a, 'bench', ({ epochs }) => (epochs?.checkpoints ?? 0) >= checkpoints, 300_000)
  const { epochs } = status
  if (!epochs) throw new Error('a protected guest has epochs')
  await untilConsole(consoleAt(console.log), 0, (text) => victimLines(text).at(-1), 10_000)
  const json = {
    epochMs,
    checkpoints: epochs.checkpoints,
    dirtyPages: Math.round(epochs.dirtyPages / epochs.checkpoints),
    changedLines: Math.round(epochs.changedLines / epochs.checkpoints),
    pauseUs: { p50: epochs.pauseUs.p50, p99: epochs.pauseUs.p99 },
    ownUs: { p50: epochs.ownUs.p50, p99: epochs.ownUs.p99 },
    stopFlushUs: { p50: epochs.stopFlushUs.p50, p99: epochs.stopFlushUs.p99 },
    commitUs: { p50: epochs.commitUs.p50, p99: epochs.commitUs.p99 },
    tracker: status.tracker,
    codec: status.codec,
    accel: status.accel,
    supervisorBytes: status.supervisor?.ownBytes ?? 0,
  }
  const share = json.ownUs.p50 / json.pauseUs.p50
  return {
    json,
    text: [
      `epoch ${epochMs} ms, ${json.checkpoints} checkpoints, ${json.dirtyPages} dirty pages each on average`,
      `pause  p50 ${json.pauseUs.p50} µs, p99 ${json.pauseUs.p99} µs`,
      `ours   p50 ${json.ownUs.p50} µs, p99 ${json.ownUs.p99} µs (${(share * 100).toFixed(0)} % of the pause)`,
      `commit p50 ${json.commitUs.p50} µs, p99 ${json.commitUs.p99} µs`,
      `supervisor ${(json.supervisorBytes / 2 ** 20).toFixed(0)} MiB besides shadow and image`,
    ].join('\n'),
  }
}
