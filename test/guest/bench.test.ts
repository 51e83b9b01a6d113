/**
 * A tiny size of each benchmark that needs guests (of `failover`: failover.test.ts, of `torture`: torture.test.ts). How fast is not
 * tested; what must be so on any machine is: a part is smaller than the whole, less work sends more bytes, and what is switched on
 * happens.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { run as checkpoint } from '../../bench/checkpoint.ts'
import { run as dashboard } from '../../bench/dashboard.ts'
import { run as disk } from '../../bench/disk.ts'
import { run as outside } from '../../bench/outside.ts'
import { measure as overhead } from '../../bench/overhead.ts'
import { RedisGuest } from '../../bench/redis-guest.ts'
import { run as scale } from '../../bench/scale.ts'
import { type SendingBench, measure as sending } from '../../bench/sending.ts'
import { run as size } from '../../bench/size.ts'

const between = (low: number, high: number) =>
  expect.toSatisfy((value: number) => value > low && value <= high, `above ${low}, at most ${high}`)

test('checkpoint', async () => {
  const { json, text } = await checkpoint({ tiny: true })
  const { pauseUs, ownUs, commitUs, dirtyPages, changedLines, checkpoints, supervisorBytes } = json
  expect(json).toMatchObject({ epochMs: 25, codec: 'masked', accel: 'tcg' })
  expect(checkpoints).toBeGreaterThanOrEqual(20)
  // The victim scatters its writes over 1,000 pages: an epoch dirties many of them, and few lines of each.
  expect(dirtyPages).toEqual(between(50, 3_000))
  expect(changedLines).toEqual(between(dirtyPages / 2, dirtyPages * 16))
  // Harvest and capture are a part of the pause.
  expect(ownUs.p50).toEqual(between(0, pauseUs.p50))
  for (const { p50, p99 } of [pauseUs, ownUs, commitUs]) expect(p50).toEqual(between(0, p99))
  expect(supervisorBytes).toEqual(between(16 * 2 ** 20, 1024 * 2 ** 20))
  expect(text).toContain(`${dirtyPages} dirty pages`)
})

test('disk', async () => {
  const { json, text } = await disk({ tiny: true })
  expect(json.rows.map(({ job, mode }) => `${job} ${mode}`).sort()).toEqual(
    ['sync1', 'sync16', 'seq', 'mixed']
      .flatMap((job) => ['unprotected', 'mirrored', 'protected', 'durable'].map((mode) => `${job} ${mode}`))
      .sort(),
  )
  for (const { iops, mibPerS, latencyUs } of json.rows) {
    expect([iops, mibPerS].every((value) => value > 0)).toBe(true)
    expect(latencyUs.p50).toEqual(between(0, latencyUs.p99))
  }
  // The flush is a part of the pause.
  expect(json.stopFlushUs.p50).toEqual(between(0, json.pauseUs.p99))
  // What sealing and the mirror add, which may be less than what pauses vary by.
  expect(json.barrierUs.p50).toEqual(between(-1, json.pauseUs.p99))
  // Most of what is written lies in the guest's memory.
  expect(json.wireShare).toEqual(between(0, 0.5))
  // Of a disk that the standby has, only what changed is sent.
  expect(json.resync.sentBytes).toEqual(between(json.resync.changedBytes / 2, json.diskBytes / 2))
  expect(json.takeoverMs.p50).toEqual(between(0, 10_000))
  expect(text).toMatch(/takeover p50/)
})

test('dashboard', async () => {
  const { json, text } = await dashboard({ tiny: true })
  expect(json).toMatchObject({ guests: 5, viewers: 3 })
  expect(json.picturesPerSecond).toEqual(between(0.2, 2))
  expect(json.bytesPerSecond).toBeGreaterThan(1000)
  expect(json.cpuShare).toEqual(between(0, 1))
  expect(text).toMatch(/% of a processor/)
})

test('scale', async () => {
  const { json, text } = await scale({ tiny: true })
  expect(json.rows.map(({ guests }) => guests)).toEqual([1, 2])
  for (const row of json.rows) {
    expect(row.pauseUs.p50).toEqual(between(0, row.pauseUs.p99))
    expect(row.commitUs.p50).toEqual(between(0, row.commitUs.p99))
    expect(row.cpuPerGuest).toEqual(between(0, 2))
    // A supervisor, and not what its guest or the shadow takes.
    for (const bytes of [row.privateBytesPerGuest, row.privateBytesPerStandby])
      expect(bytes).toEqual(between(8 * 2 ** 20, 40 * 2 ** 20))
    expect(row.privateBytesOfAgent).toEqual(between(8 * 2 ** 20, 80 * 2 ** 20))
    expect(row.longestGapMs).toBeGreaterThanOrEqual(json.epochMs / 2)
  }
  // Without agents for ten epochs, no checkpoint is missed.
  expect(json.agentsKilled.missedCheckpoints).toBe(0)
  expect(text).toMatch(/agents killed/)
})

test('outside', async () => {
  const { json, text } = await outside({ tiny: true })
  for (const { ramMib, pauseUs, stopUs, saveUs, compareUs, contUs, changedPages } of json.rows) {
    // Without anything that watches its pages, all of them are read.
    const parts = [stopUs, saveUs, compareUs, contUs].map(({ median }) => median)
    expect(Math.max(...parts)).toEqual(between(0, pauseUs.high))
    expect(changedPages.median).toEqual(between(0, ramMib * 256))
    expect(text).toContain(`${ramMib} MiB: pause`)
  }
})

test('size', async () => {
  const { json, text } = await size({ tiny: true })
  expect(json.rows.map(({ ramGib, cpus }) => [ramGib, cpus])).toEqual([
    [0.25, 1],
    [1, 2],
  ])
  for (const row of json.rows) {
    // The victim's memory and the kernel's; what was filled; and not all that it could touch.
    expect(row.touchedGib).toEqual(between(0.03, row.ramGib))
    expect(row.dirtyPages).toEqual(between(100, 20_000))
    expect(row.harvestUs.p50).toEqual(between(0, row.pauseUs.p50))
    expect(row.seedMibPerS).toBeGreaterThan(0)
  }
  expect(json.rows[1]!.touchedGib - json.rows[0]!.touchedGib).toEqual(between(0.2, 0.5))
  expect(text).toMatch(/1 GiB, 2 CPUs, 0\.\d GiB touched/)
})

let redis: RedisGuest
beforeAll(async () => {
  redis = await RedisGuest.start()
})
afterAll(async () => redis?.[Symbol.asyncDispose]())

test('sending', async () => {
  const { json, text } = await sending(redis, { tiny: true })
  const { ways, rounds } = json as SendingBench
  expect(rounds).toBe(1)
  const of = (name: string) => {
    const { spread } = ways.find((way) => way.name === name)!
    return Object.fromEntries(Object.entries(spread).map(([metric, { median }]) => [metric, median]))
  }
  const [alone, plain, early] = [of('unprotected'), of('deltas only'), of('+ sent early')]
  const [zstd, always] = [of('+ zstd'), of('all, always')]
  expect(alone).toMatchObject({ sentBytes: 0, dirtyPages: 0, pauseUs: 0 })
  for (const way of [plain, early, zstd, always]) {
    // Both agents work for it; a pause is shorter than the epoch.
    for (const cpu of [way.primaryCpu, way.standbyCpu]) expect(cpu).toEqual(between(0, 2))
    expect(way.pauseUs).toEqual(between(0, 25_000))
    expect(way.finalBytes).toEqual(between(0, way.sentBytes!))
    // Deltas are smaller than the pages.
    expect(way.sentBytes).toEqual(between(0, way.dirtyPages! * 4096))
  }
  for (const way of [plain, zstd]) {
    expect(way).toMatchObject({ earlyPages: 0, earlyPagesAgain: 0 })
    expect(way.finalBytes).toBe(way.sentBytes)
  }
  for (const way of [early, always]) {
    expect(way.earlyPages).toEqual(between(0, way.dirtyPages!))
    expect(way.earlyPagesAgain).toBeLessThan(way.earlyPages!)
    expect(way.finalBytes).toBeLessThan(way.sentBytes!)
  }
  expect(zstd.sentBytes! / zstd.dirtyPages!).toBeLessThan((plain.sentBytes! / plain.dirtyPages!) * 0.7)
  expect(always.sentBytes! / always.dirtyPages!).toBeLessThan((plain.sentBytes! / plain.dirtyPages!) * 0.7)
  for (const { name } of ways) expect(text).toContain(name)
})

test('overhead', async () => {
  const { json, text } = await overhead(redis, { tiny: true })
  const { latencyUs, throughput, steps, epochMs } = json
  for (const mode of ['unprotected', 'protected', 'auto', 'goal'] as const) {
    expect(latencyUs[mode].p50).toEqual(between(0, latencyUs[mode].p99))
    for (const measure of [throughput, steps]) expect(measure[mode]).toBeGreaterThan(0)
    expect(text).toContain(`${throughput[mode]} requests/s`)
  }
  // An answer waits for its checkpoint: half an epoch on average, and less when checkpoints follow the output.
  expect(latencyUs.protected.p50 - latencyUs.unprotected.p50).toBeGreaterThan((epochMs * 1000) / 4)
  expect(latencyUs.auto.p50).toBeLessThan(latencyUs.protected.p50)
  expect(json.cost.auto.addedP50Ms.median).toBeLessThan(json.cost.protected.addedP50Ms.median)
})
