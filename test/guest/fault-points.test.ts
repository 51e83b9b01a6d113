/**
 * The supervisor that passes a fault point dies there, at a passing drawn at random, and the next one finds what it left: the
 * guest runs on exactly one host, is protected again, its image is equal to it, and its victim program whole.
 */
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import {
  askVictim,
  consoleAt,
  consoleLength,
  readConsole,
  untilConsole,
  victimDamage,
  victimDigest,
  victimLines,
} from '../../src/qemu/demo-guest.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { type FaultPoint, faultPoints } from '../../src/replication/fault.ts'
import { Hosts, killHost, protect, runState, startVictim, until } from '../support/hosts.ts'
import { seededRandom } from '../support/random.ts'

const name = 'pointed'
const random = seededRandom()
const standbyPoint = (point: FaultPoint) => /ack|apply/.test(point)
const loadPoint = (point: FaultPoint) => /load/.test(point)

let hosts: Hosts
let from: EphemeralAgent
let to: EphemeralAgent
const names = new Map<EphemeralAgent, string>()

async function start(host: string, fault = ''): Promise<EphemeralAgent> {
  const agent = await hosts.add(host, { SUBPAGE_FAULT: fault })
  names.set(agent, host)
  return agent
}

/** Kills agent and supervisor, and starts them with a fault in it. */
async function withFault(agent: EphemeralAgent, fault: string): Promise<EphemeralAgent> {
  await killHost(agent)
  return await start(names.get(agent) ?? '', fault)
}

/** Waits until the supervisor has died of its fault. */
async function died({ client }: EphemeralAgent, limitMs = 20_000): Promise<void> {
  const texts = async () => (await client.recentEvents()).map(({ text }) => text)
  await expect
    .poll(texts, { timeout: limitMs })
    .toContainEqual(expect.stringMatching(/^its supervisor ended/))
}

async function expectWhole(): Promise<void> {
  const status = await until(from, name, ({ role, state }) => role === 'Primary' && state === 'Protected')
  await until(to, name, ({ role, state }) => role === 'Standby' && state === 'Protected')
  expect(await from.client.verify(name)).toMatchObject({ equal: true })
  const console = consoleAt(status.console)
  expect(await askVictim(console)).toBe(true)
  const length = consoleLength(console)
  const [line] = await untilConsole(
    console,
    length,
    (text) => (victimLines(text).length > 0 ? victimLines(text) : undefined),
    20_000,
  )
  expect(victimDamage(readConsole(console))).toBe(undefined)
  expect(line?.digest).toBe(victimDigest(line?.step ?? 0))
}

beforeAll(async () => {
  hosts = new Hosts()
  from = await start('a')
  to = await start('b')
  await startVictim(from, name)
  await protect(from, name, to)
})
afterAll(async () => hosts[Symbol.asyncDispose]())

const info = (fault: string) => `${fault}, seed ${random.seed}`

test.each(faultPoints.filter((point) => !standbyPoint(point) && !loadPoint(point)))(
  "the primary's supervisor dies at %s",
  async (point) => {
    const fault = `${point}:${random.integer(1, 20)}=kill`
    const failing = await withFault(from, fault)
    await died(failing)
    // The next one finds it, or the guard lets it run when the lease of a pause is over, after 2 s.
    const files = guestFiles(join(hosts.directory, names.get(from) ?? ''), name)
    await expect.poll(() => runState(files), { timeout: 10_000, interval: 50 }).toBe('running')
    from = failing
    await expectWhole()
    expect((await from.client.guest(name)).takeover, info(fault)).toBe(null)
  },
)

test.each(faultPoints.filter(standbyPoint))("the standby's supervisor dies at %s", async (point) => {
  const fault = `${point}:${random.integer(1, 20)}=kill`
  const failing = await withFault(to, fault)
  await died(failing)
  // Its image has gone with it; a new one follows.
  to = failing
  await expectWhole()
})

test('the supervisor that takes over dies at after-load: its guest runs on there', async () => {
  const failing = await withFault(to, 'after-load=kill')
  const { pid } = await until(from, name, ({ role, state }) => role === 'Primary' && state === 'Protected')
  process.kill(pid ?? Number.NaN, 'SIGKILL')
  await died(failing)
  ;[from, to] = [failing, from]
  await until(from, name, ({ role }) => role !== 'Standby')
  // Its record came from the standby: nobody has written down yet whom to protect it to.
  const { state } = await from.client.guest(name)
  if (state === 'Running') {
    // It may have nothing left of it.
    await to.client.remove(name).catch(() => undefined)
    await protect(from, name, to)
  }
  await expectWhole()
})

test('the supervisor that takes over in a switchover dies at before-load: the guest goes on where it was', async () => {
  const failing = await withFault(to, 'before-load=kill')
  const { pid } = await until(from, name, ({ role, state }) => role === 'Primary' && state === 'Protected')
  // What it says depends on when it hears that the generation went back.
  await Promise.all([from.client.switchover(name).catch(() => undefined), died(failing)])
  // The next one gives back what its predecessor had been granted.
  to = failing
  await expectWhole()
  expect((await from.client.guest(name)).pid).toBe(pid)
})
