/**
 * An arbiter that was restored from a backup, lost its memory, or was set up anew must not decide before the two hosts have met
 * again: what it grants, somebody may hold already. Both real arbiters, a directory and an etcd process.
 */
import { randomUUID } from 'node:crypto'
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Arbiter } from '../../src/replication/arbiter.ts'
import { openArbiter } from '../../src/replication/arbiters/open.ts'
import { Succession } from '../../src/replication/succession.ts'
import { EtcdCluster } from '../support/etcd.ts'
import { ScriptedArbiter } from './scripted-host.ts'

interface Subject {
  /** As an agent opens it. */
  open(): Arbiter
  backUp(): Promise<void>
  restore(): Promise<void>
  /** Another one in its place, which knows nothing. */
  wipe(): Promise<void>
}

async function directory(): Promise<Subject> {
  const root = mkdtempSync(join(tmpdir(), 'subpage-arbiter-'))
  onTestFinished(() => rmSync(root, { recursive: true, force: true }))
  const [live, backup] = [join(root, 'live'), join(root, 'backup')]
  mkdirSync(live, { mode: 0o700 })
  const clear = () => rmSync(join(live, id), { recursive: true, force: true })
  return {
    open: () => opened(`file:${live}`),
    backUp: async () => cpSync(live, backup, { recursive: true }),
    restore: async () => {
      clear()
      cpSync(backup, live, { recursive: true, preserveTimestamps: true })
    },
    wipe: async () => clear(),
  }
}

async function etcd(): Promise<Subject> {
  const cluster = await EtcdCluster.start()
  onTestFinished(() => cluster[Symbol.asyncDispose]())
  return {
    open: () => opened(cluster.spec()),
    backUp: () => cluster.backUp(),
    restore: () => cluster.restore(),
    wipe: () => cluster.wipe(),
  }
}

function opened(spec: string): Arbiter {
  const arbiter = openArbiter(spec)
  onTestFinished(() => arbiter.close())
  return arbiter
}

const id = randomUUID()
const successionOf = (claimant: string, arbiter: Arbiter, generation = 1) =>
  new Succession({ guest: id, claimant, generation, arbiter, arbitrated: true, save: async () => undefined })

/** A pair that has met. */
async function pairOn(subject: Subject) {
  const arbiter = subject.open()
  const [a, b] = [successionOf('a', arbiter), successionOf('b', subject.open())]
  const meet = async () => {
    await b.successor()
    await b.agree('a', true)
    await a.agree('b', true)
    await a.anchor()
  }
  await meet()
  return { a, b, meet, look: () => arbiter.leaveMark(randomUUID()) }
}

const mustNotDecide = {
  code: 'ARBITER_UNREACHABLE',
  message: expect.stringMatching(/restored or set up anew|does not remember|another directory/),
}

describe.each([
  ['a directory', directory],
  ['etcd', etcd],
])('%s', (_, make) => {
  test('restored from a backup, it does not grant once more what was granted since', {
    timeout: 60_000,
  }, async () => {
    const subject = await make()
    const { a, b, look } = await pairOn(subject)
    await subject.backUp()
    // As an agent does now and then.
    await look()
    expect(await b.claim()).toBe(undefined)
    await subject.restore()
    // The former primary comes back.
    await expect(a.claim()).rejects.toMatchObject(mustNotDecide)
    expect(a.undecided).toBe(false)
    // The one that goes on reminds it, and then the other learns the truth.
    expect(await b.recall()).toBe('forgotten')
    await b.remind()
    expect(await b.recall()).toBe('known')
    expect(await a.successor()).toMatchObject({ claimant: 'b', generation: 2 })
    await expect(a.anchor()).rejects.toMatchObject({ code: 'HELD_ELSEWHERE' })
  })

  test('without its memory, it decides nothing before the hosts have met again', {
    timeout: 60_000,
  }, async () => {
    const subject = await make()
    const { a, b, meet } = await pairOn(subject)
    await subject.wipe()
    await expect(a.claim()).rejects.toMatchObject(mustNotDecide)
    await expect(b.claim()).rejects.toMatchObject(mustNotDecide)
    expect(await a.recall()).toBe('forgotten')
    await meet()
    expect(await a.recall()).toBe('known')
    expect(await b.claim()).toBe(undefined)
    expect(await a.claim()).toMatchObject({ claimant: 'b', generation: 2 })
  })
})

test('one that was swapped for another decides nothing, after a restart of the agents too', async () => {
  const [one, other] = [await directory(), await directory()]
  const { a } = await pairOn(one)
  expect(await a.claim()).toBe(undefined)
  await expect(successionOf('a', other.open(), a.generation).claim()).rejects.toMatchObject(mustNotDecide)
  await expect(successionOf('b', other.open(), a.generation).claim()).rejects.toMatchObject(mustNotDecide)
})

test('a next generation that is ours already, for its answer was lost, is adopted', async () => {
  const subject = await directory()
  const { a, b } = await pairOn(subject)
  expect(await a.claim()).toBe(undefined)
  // Its agent was killed before it wrote that down.
  const again = successionOf('a', subject.open())
  await again.anchor()
  expect(again.generation).toBe(2)
  expect(await b.claim()).toMatchObject({ claimant: 'a', generation: 2 })
  // But not one that was given back.
  const returned = successionOf('a', subject.open(), 2)
  expect(await returned.claim()).toBe(undefined)
  await returned.giveBack()
  const late = successionOf('a', subject.open(), 2)
  await late.anchor()
  expect(late.generation).toBe(2)
})

test('a host that was renamed is still the same', async () => {
  const subject = await directory()
  const before = successionOf('north-1234abcd', subject.open())
  await before.anchor()
  expect(await before.claim()).toBe(undefined)
  const after = successionOf('south-1234abcd', subject.open())
  await after.anchor()
  expect(after.generation).toBe(2)
})

test('restored between the question and the claim, what it grants is not used, and given back', async () => {
  const arbiter = new ScriptedArbiter()
  const standby = successionOf('b', arbiter)
  await standby.agree('a', true)
  await standby.anchor()
  const { claim } = arbiter
  arbiter.claim = (...asked) => {
    arbiter.memory++
    return claim.apply(arbiter, asked)
  }
  await expect(standby.claim()).rejects.toMatchObject(mustNotDecide)
  expect(standby).toMatchObject({ generation: 1, undecided: false })
  // Void for both: the next one is claimed in its place.
  const other = successionOf('a', arbiter, 1)
  expect(await other.claim()).toBe(undefined)
  expect(other.generation).toBe(3)
})
