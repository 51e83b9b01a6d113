/**
 * Guests of real sizes: what a checkpoint and seeding cost by RAM, by how much of it was ever touched, and by how many pages are dirty.
 * Memory that was never written must cost nothing. Both hosts are this machine: a size that it cannot hold twice is left out, and said.
 *
 *   {rows: [{ramGib, cpus, touchedGib, dirtyPages, harvestUs: {p50, p99}, pauseUs: {p50, p99}, seedMibPerS}], leftOut}
 */
import { readFileSync, statfsSync } from 'node:fs'
import type { EphemeralAgent } from '../src/agent/ephemeral-agent.ts'
import {
  type Console,
  consoleAt,
  demoGuestOptions,
  untilConsole,
  victimLines,
} from '../src/qemu/demo-guest.ts'
import { beginProtect, Hosts, until } from '../test/support/hosts.ts'
import { inGuest } from '../test/support/in-guest.ts'
import { type BenchOptions, say } from './bench.ts'

const gib = 2 ** 30
const mib = 2 ** 20
const epochMs = 100
/** What the demo guest is told is for 25 ms (guest/README.md, `scattered`). */
const perEpoch = (pages: number) => Math.round((pages * 25) / epochMs)
/** What the two hosts need beside the guest's memory, of which each reserves all. */
const spareBytes = 2 * gib
const seedMsMax = 600_000
const fillMsMax = 900_000

interface Size {
  ramGib: number
  cpus: number
  /** Beside what a guest touches that boots. */
  filledGib: number
  scattered: number
}

interface Row extends Omit<Size, 'filledGib' | 'scattered'> {
  touchedGib: number
  /** Of a checkpoint, on average. */
  dirtyPages: number
  harvestUs: { p50: number; p99: number }
  pauseUs: { p50: number; p99: number }
  /** Of touched memory, from the command until the first checkpoint. */
  seedMibPerS: number
}

const tinySizes: Size[] = [
  { ramGib: 0.25, cpus: 1, filledGib: 0, scattered: 300 },
  { ramGib: 1, cpus: 2, filledGib: 0.25, scattered: 300 },
]
const sizes: Size[] = [
  { ramGib: 2, cpus: 4, filledGib: 0, scattered: perEpoch(1000) },
  ...[0, 2, 6].map((filledGib) => ({ ramGib: 8, cpus: 4, filledGib, scattered: perEpoch(1000) })),
  { ramGib: 8, cpus: 4, filledGib: 0, scattered: perEpoch(5000) },
  { ramGib: 8, cpus: 8, filledGib: 0, scattered: perEpoch(1000) },
  ...[0, 2, 6].map((filledGib) => ({ ramGib: 16, cpus: 8, filledGib, scattered: perEpoch(1000) })),
]

export async function run({ tiny }: BenchOptions) {
  const rows: Row[] = []
  const leftOut: Size[] = []
  await using hosts = new Hosts()
  const a = await hosts.add('a')
  const b = await hosts.add('b')
  for (const size of tiny ? tinySizes : sizes) {
    if (2 * size.ramGib * gib + spareBytes > roomBytes()) leftOut.push(size)
    else {
      const row = await measure(a, b, size, tiny ? 20 : 300)
      say(textOf(row))
      rows.push(row)
    }
  }
  const json = { epochMs, rows, leftOut: leftOut.map(({ ramGib, filledGib }) => ({ ramGib, filledGib })) }
  const left = leftOut.map(
    ({ ramGib, filledGib }) => `no room for ${ramGib} GiB, of which ${filledGib} are filled, on both hosts`,
  )
  return { json, text: [...rows.map(textOf), ...left].join('\n') }
}

async function measure(a: EphemeralAgent, b: EphemeralAgent, size: Size, checkpoints: number): Promise<Row> {
  const { ramGib, cpus, filledGib, scattered } = size
  const options = [...demoGuestOptions([`victim_pattern=scattered:${scattered}`]), '-smp', String(cpus)]
  const started = await a.client.run({ name: 'sized', ramBytes: ramGib * gib, accel: 'tcg', options })
  const console = consoleAt(started.console)
  await untilConsole(console, 0, (text) => victimLines(text)[0], 120_000)
  await fill(console, filledGib)
  const touchedBytes = touchedBy(started.pid!)
  const startedAt = performance.now()
  await beginProtect(a, 'sized', b, { epochMs, shadow: 'hash' })
  await until(a, 'sized', ({ state }) => state === 'Protected', seedMsMax)
  const seconds = (performance.now() - startedAt) / 1000
  const done = await until(a, 'sized', ({ epochs }) => (epochs?.checkpoints ?? 0) >= checkpoints, 600_000)
  const epochs = done.epochs!
  await a.client.remove('sized')
  return {
    ...{ ramGib, cpus, touchedGib: touchedBytes / gib },
    dirtyPages: Math.round(epochs.dirtyPages / epochs.checkpoints),
    harvestUs: { p50: epochs.harvestUs.p50, p99: epochs.harvestUs.p99 },
    pauseUs: { p50: epochs.pauseUs.p50, p99: epochs.pauseUs.p99 },
    seedMibPerS: touchedBytes / mib / seconds,
  }
}

/** Bytes that are like no others. */
async function fill(console: Console, filledGib: number): Promise<void> {
  const mibs = filledGib * 1024
  if (mibs === 0) return
  // As it comes, a tmpfs takes half of the RAM.
  await inGuest(console, 'mkdir -p /fill && mount -t tmpfs -o size=100% fill /fill')
  await inGuest(console, `dd if=/dev/urandom of=/fill/bytes bs=1M count=${mibs} 2>/dev/null`, fillMsMax)
}

/** What of a guest's RAM, a file that QEMU has mapped, takes memory (proc(5), status). */
function touchedBy(pid: number): number {
  const kib = /^RssShmem:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
  return Number(kib) * 1024
}

/** Of memory and of shared memory, the lesser. */
function roomBytes(): number {
  const { bavail, bsize } = statfsSync('/dev/shm')
  const available = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'latin1'))?.[1]
  return Math.min(bavail * bsize, Number(available) * 1024)
}

const textOf = ({ ramGib, cpus, touchedGib, dirtyPages, harvestUs, pauseUs, seedMibPerS }: Row) =>
  `${ramGib} GiB, ${cpus} CPUs, ${touchedGib.toFixed(1)} GiB touched: ${dirtyPages} dirty pages; harvest p50 ${harvestUs.p50} µs, p99 ${harvestUs.p99} µs; pause p50 ${pauseUs.p50} µs, p99 ${pauseUs.p99} µs; seeded at ${seedMibPerS.toFixed(0)} MiB/s`
