/** The health of the arbiter is looked at before it is needed, and retries cost it next to nothing. */
import { mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { ArbiterHealth } from '../../src/agent/arbiter-health.ts'
import { ArbiterMark } from '../../src/agent/arbiter-mark.ts'
import { apiSocket } from '../../src/agent/state-directory.ts'
import type { Arbiter } from '../../src/replication/arbiter.ts'
import { openArbiter } from '../../src/replication/arbiters/open.ts'
import { type Clock, realClock } from '../../src/replication/clock.ts'
import { EtcdCluster } from '../support/etcd.ts'
import { Hosts, protect, until } from '../support/hosts.ts'
import { subpage } from '../support/subpage.ts'

/** Waits are short; time is the machine's, and what a test lets pass. */
class HurriedClock implements Clock {
  #passedMs = 0
  readonly after = realClock.after
  readonly afterInput = realClock.afterInput
  readonly sleep = (_ms: number, signal?: AbortSignal) => realClock.sleep(20, signal)
  now = () => realClock.now() + this.#passedMs
  pass(ms: number): void {
    this.#passedMs += ms
  }
}

function watched(arbiter: Arbiter) {
  const said: string[] = []
  const health = new ArbiterHealth(
    arbiter,
    { add: (_guest, _kind, text) => void said.push(text) },
    new HurriedClock(),
  )
  onTestFinished(() => {
    health.close()
    arbiter.close()
  })
  return { health, said }
}

test('a directory that is not there at the start, and then is', async () => {
  const root = mkdtempSync(join(tmpdir(), 'subpage-health-'))
  onTestFinished(() => rmSync(root, { recursive: true, force: true }))
  const directory = join(root, 'decisions')
  const { health, said } = watched(openArbiter(`file:${directory}`))
  await health.looked
  expect(health.trouble).toMatch(/does not exist/)
  mkdirSync(directory, { mode: 0o700 })
  await expect.poll(() => health.trouble).toBe(undefined)
  // Said once each, however often it was looked at.
  expect(said).toEqual([expect.stringMatching(/does not exist/), expect.stringMatching(/answers again/)])
})

test('etcd that stops while it is in use, and starts again; looking costs it no write', async () => {
  const cluster = await EtcdCluster.start()
  onTestFinished(() => cluster[Symbol.asyncDispose]())
  const revision = async () => {
    const { header } = await cluster.call('/v3/kv/range', { key: 'YQ==' })
    return Number((header as { revision: string }).revision)
  }
  const arbiter = openArbiter(cluster.spec(), { limitMs: 1_000 })
  const { health } = watched(arbiter)
  await health.looked
  const before = await revision()
  let looks = 0
  const { holder } = arbiter
  arbiter.holder = (...asked) => {
    looks++
    return holder.apply(arbiter, asked)
  }
  await expect.poll(() => looks).toBeGreaterThan(20)
  expect(await revision()).toBe(before)
  // Nor do connections: one mark serves those of a while.
  const clock = new HurriedClock()
  const mark = new ArbiterMark(arbiter, clock)
  const first = await mark.fresh()
  for (let attempt = 0; attempt < 20; attempt++) {
    expect(await mark.fresh()).toBe(first)
    clock.pass(500)
  }
  expect(await revision()).toBe(before + 1)
  clock.pass(20_000)
  expect(await mark.fresh()).not.toBe(first)
  expect(await arbiter.seesMark(first)).toBe(true)

  await cluster.kill(0)
  await expect.poll(() => health.trouble).toMatch(/etcd gave no answer/)
  await cluster.restart(0)
  await expect.poll(() => health.trouble).toBe(undefined)
})

test('status says so, of the host and of each guest that needs it, until it is well again', async () => {
  const hosts = new Hosts()
  onTestFinished(() => hosts[Symbol.asyncDispose]())
  const [directory, aside] = [join(hosts.directory, 'decisions'), join(hosts.directory, 'aside')]
  const env = { SUBPAGE_ARBITER: `file:${directory}` }
  const a = await hosts.add('a', env)
  await expect.poll(async () => (await a.client.status()).arbiter.trouble).toMatch(/does not exist/)
  expect((await a.client.recentEvents()).filter(({ kind }) => kind === 'arbiter')).toHaveLength(1)
  mkdirSync(directory, { mode: 0o700 })
  await expect.poll(async () => (await a.client.status()).arbiter.trouble).toBe(null)
  const b = await hosts.add('b', env)
  await a.client.run({ name: 'kept', ramBytes: 32 * 2 ** 20, accel: 'tcg', options: [] })
  await protect(a, 'kept', b)
  const status = async (host: string) => {
    return await subpage(['status', 'kept', '--api', apiSocket(join(hosts.directory, host))])
  }
  expect(await status('a')).toMatchObject({ status: 0, out: expect.stringMatching(/decided by +file \//) })
  const texts = (await a.client.recentEvents()).map(({ text }) => text)
  expect(texts).toContainEqual('has a standby that can take over')

  renameSync(directory, aside)
  for (const [agent, name] of [
    [a, 'a'],
    [b, 'b'],
  ] as const) {
    await until(agent, 'kept', ({ arbiterTrouble }) => arbiterTrouble !== null)
    expect(await agent.client.guest('kept')).toMatchObject({
      state: 'Protected',
      reasonCode: 'ARBITER_UNREACHABLE',
      reason: expect.stringMatching(/the arbiter cannot decide.*does not exist/),
    })
    expect((await status(name)).status).toBe(3)
  }
  renameSync(aside, directory)
  for (const agent of [a, b]) await until(agent, 'kept', ({ arbiterTrouble }) => arbiterTrouble === null)
  expect((await status('a')).status).toBe(0)

  // Right after a takeover there is one copy, and nothing to decide; it is not for people either.
  const { pid } = await a.client.guest('kept')
  process.kill(pid ?? Number.NaN, 'SIGKILL')
  await until(b, 'kept', ({ takeover, role }) => takeover !== null && role === 'Alone')
  expect((await status('b')).out).toMatch(/decided by +(nobody yet|file \/)/)
  await b.client.remove('kept')
})
