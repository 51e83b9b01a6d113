/** The pause lease without QEMU: the steps of a supervisor. Those of the guard: guard.test.ts. */
import { writeFileSync } from 'node:fs'
import { expect, test, vi } from 'vitest'
import { addon } from '../../src/memory/native.ts'
import { PauseLease } from '../../src/qemu/pause-lease.ts'
import { leaseInEach, writeWord } from './lease-file.ts'

const its = leaseInEach()

test('a fresh lease is free', () => {
  expect([its.word(), addon.leaseFree, addon.leaseExpired]).toEqual([0n, 0n, 2n ** 64n - 1n])
})

test('a pause in time: held from acquire until resumed', () => {
  const leaseMs = 60_000
  const before = process.hrtime.bigint()
  its.lease.acquire(leaseMs)
  const after = process.hrtime.bigint()
  const deadline = its.word()
  expect(deadline).toBeGreaterThanOrEqual(before + BigInt(leaseMs) * 1_000_000n)
  expect(deadline).toBeLessThanOrEqual(after + BigInt(leaseMs) * 1_000_000n)
  expect(its.lease.release()).toBe(true)
  expect(its.word()).toBeGreaterThan(deadline)
  its.lease.resumed()
  expect(its.word()).toBe(0n)
})

test('release says false when the guard took the lease, also when it is done already', () => {
  for (const state of [2n ** 64n - 1n, 0n]) {
    its.lease.acquire(1000)
    writeWord(its.path, state)
    expect(its.lease.release()).toBe(false)
    its.lease.resumed()
    expect(its.word()).toBe(state)
    writeWord(its.path, 0n)
  }
})

test('release says false without an acquire', () => {
  expect(its.lease.release()).toBe(false)
})

test('no pause begins while the guard ends an earlier one', () => {
  writeWord(its.path, 2n ** 64n - 1n)
  expect(its.lease.expired).toBe(true)
  expect(() => its.lease.acquire(1000)).toThrow(expect.objectContaining({ code: 'PAUSE_BROKEN' }))
  expect(its.lease.inherit(1000)).toBe(false)
  writeWord(its.path, 0n)
  its.lease.acquire(1000)
})

test('a pause that comes once waits for the end of one of another program, and no longer than that can last', async () => {
  for (const state of [2n ** 64n - 1n, 2n ** 64n - 2n, 123_456n]) {
    writeWord(its.path, state)
    const settled = vi.fn()
    const waiting = its.lease.settled().then(settled)
    await its.lease.settled(1)
    expect(settled).not.toHaveBeenCalled()
    writeWord(its.path, 0n)
    await waiting
  }
  its.lease.acquire(1000)
  its.lease.release()
  await its.lease.settled()
  its.lease.resumed()
})

test('a pause whose `cont` was never confirmed does not block the next one', () => {
  its.lease.acquire(1000)
  its.lease.release()
  its.lease.acquire(1000)
  expect(its.lease.release()).toBe(true)
})

test('the pause of a dead agent is inherited once, and is lost to that agent', () => {
  its.lease.acquire(1000)
  const successor = PauseLease.open(its.path)
  expect(successor.inherit(1000)).toBe(true)
  expect(its.lease.release()).toBe(false)
  successor.resumed()
  expect(successor.inherit(1000)).toBe(false)
  successor.close()
})

test('misuse is a TypeError', () => {
  for (const holdMs of [0, -1, Number.NaN, 60_001]) expect(() => its.lease.acquire(holdMs)).toThrow(TypeError)
  const closed = PauseLease.open(its.path)
  closed.close()
  expect(() => closed.acquire(10)).toThrow(TypeError)
  expect(() => addon.leaseTake({} as never, 10)).toThrow(TypeError)
  writeFileSync(its.path, '')
  expect(() => PauseLease.open(its.path)).toThrow(expect.objectContaining({ code: 'EINVAL' }))
})

test('flushes are measured within pauses, and only there', async () => {
  const victim = await its.victims.start({ pages: 1, environment: { SUBPAGE_LEASE: its.path } })
  await victim.run('flush')
  expect(its.lease.flushedUs).toBe(0)
  its.lease.acquire(60_000)
  await victim.run('flush')
  const within = its.lease.flushedUs
  expect(within).toBeGreaterThan(0)
  its.lease.release()
  its.lease.resumed()
  await victim.run('flush')
  expect(its.lease.flushedUs).toBe(within)
})
