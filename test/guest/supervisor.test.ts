/**
 * Each guest has a process of its own: killing, stopping or restarting the agent interrupts no protection; what happens to the
 * supervisor of one guest is that guest's alone, and the agent starts the next one.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { createServer, request } from 'node:http'
import { createConnection, createServer as createListener, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { pairSocket } from '../../src/agent/address.ts'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { withoutLog } from '../../src/agent/log.ts'
import { encodePreamble } from '../../src/agent/preamble.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import {
  endAgent,
  Hosts,
  idle,
  killHost,
  protect,
  supervisorPid,
  supervisorsOf,
  until,
  untilExited,
} from '../support/hosts.ts'
import { standStill, untilStill } from '../support/stand-still.ts'
import { finished, mainFile } from '../support/subpage.ts'

const names = ['one', 'other']
const hosts = new Hosts()
const stateOf = (host: string) => join(hosts.directory, host)
let a: EphemeralAgent
let b: EphemeralAgent

beforeAll(async () => {
  ;[a, b] = [await hosts.add('a'), await hosts.add('b')]
  for (const name of names) {
    await a.client.run({ ...idle, name })
    await protect(a, name, b)
  }
})
afterAll(() => hosts[Symbol.asyncDispose]())

const checkpoints = async (agent: EphemeralAgent, name: string) => {
  const { epochs, committed, supervisor } = await agent.client.guest(name)
  return {
    count: epochs!.checkpoints,
    failed: epochs!.failed,
    epoch: committed!.epoch,
    pid: supervisor!.process,
  }
}

/** Checkpoints of the guest went on since, over the same connection and without a failure. */
async function wentOn(name: string, since: Awaited<ReturnType<typeof checkpoints>>): Promise<void> {
  const { epochs, supervisor, state, generation } = await until(
    a,
    name,
    ({ committed }) => (committed?.epoch ?? 0) > since.epoch + 20,
  )
  expect(state).toBe('Protected')
  expect(supervisor?.process).toBe(since.pid)
  expect(epochs!.failed).toBe(since.failed)
  // A connection that is made anew begins to count anew.
  expect(epochs!.checkpoints).toBeGreaterThan(since.count + 20)
  expect(generation).toBe(1)
}

test.each(['SIGKILL', 'SIGTERM'] as const)(
  'both agents end by %s and come back: no checkpoint fails, no image is made anew',
  async (signal) => {
    const before = await Promise.all(names.map((name) => checkpoints(a, name)))
    const images = await Promise.all(names.map((name) => b.client.guest(name)))
    await Promise.all([endAgent(a, signal), endAgent(b, signal)])
    expect(supervisorsOf(stateOf('a'))).toHaveLength(2)
    expect(supervisorsOf(stateOf('b'))).toHaveLength(2)
    ;[a, b] = await Promise.all([hosts.add('a'), hosts.add('b')])
    for (const [index, name] of names.entries()) {
      await wentOn(name, before[index]!)
      const { role, state, pid, supervisor } = await b.client.guest(name)
      expect({ role, state, pid, supervisor: supervisor?.process }).toEqual({
        ...{ role: 'Standby', state: 'Protected' },
        ...{ pid: images[index]!.pid, supervisor: images[index]!.supervisor?.process },
      })
      expect(await a.client.verify(name)).toMatchObject({ equal: true })
    }
  },
)

test('an agent with other settings: supervisors that can make way do, those of standbys are named', async () => {
  const [primary, standby] = [await supervisorPid(a, 'one'), await supervisorPid(b, 'one')]
  await Promise.all([endAgent(a, 'SIGTERM'), endAgent(b, 'SIGTERM')])
  const settings = { SUBPAGE_IMAGES: hosts.directory }
  ;[a, b] = await Promise.all([hosts.add('a', settings), hosts.add('b', settings)])
  for (const name of names) {
    await until(a, name, ({ role, state }) => role === 'Primary' && state === 'Protected')
    await until(b, name, ({ role, state }) => role === 'Standby' && state === 'Protected')
  }
  expect(await supervisorPid(a, 'one')).not.toBe(primary)
  expect(await supervisorPid(b, 'one')).toBe(standby)
  expect((await b.client.recentEvents()).map(({ text }) => text)).toContainEqual(
    expect.stringMatching(/keeps the settings of the agent that started it/),
  )
  for (const agent of [a, b]) await killHost(agent)
  ;[a, b] = await Promise.all([hosts.add('a'), hosts.add('b')])
  for (const name of names) await until(a, name, ({ state }) => state === 'Protected')
})

test('a failover needs no agent', async () => {
  const { pid } = await a.client.run({ ...idle, name: 'third' })
  await protect(a, 'third', b)
  await Promise.all([endAgent(a, 'SIGKILL'), endAgent(b, 'SIGKILL')])
  process.kill(pid ?? Number.NaN, 'SIGKILL')
  b = await hosts.add('b')
  await until(b, 'third', ({ takeover }) => takeover !== null)
  a = await hosts.add('a')
  // The host that lost it has its standby.
  await until(b, 'third', ({ state }) => state === 'Protected')
  await b.client.remove('third')
  await expect.poll(() => existsSync(guestFiles(stateOf('a'), 'third').directory)).toBe(false)
})

test.each([
  ['primary', 'is killed', () => a, 'SIGKILL'],
  ['standby', 'is killed', () => b, 'SIGKILL'],
  ['primary', 'aborts, as by a failed assertion', () => a, 'SIGABRT'],
] as const)(
  'the supervisor of a %s %s: another one follows, and nobody else notices',
  async (_, __, host, signal) => {
    const before = await checkpoints(a, 'other')
    const former = await supervisorPid(host(), 'one')
    process.kill(former, signal)
    await until(host(), 'one', ({ supervisor }) => supervisor !== null && supervisor.process !== former)
    await until(a, 'one', ({ role, state }) => role === 'Primary' && state === 'Protected')
    await until(b, 'one', ({ role, state }) => role === 'Standby' && state === 'Protected')
    expect(await a.client.verify('one')).toMatchObject({ equal: true })
    expect((await host().client.recentEvents()).map(({ guest, text }) => `${guest} ${text}`)).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^one its supervisor ended/),
        'one has a new supervisor',
      ]),
    )
    await wentOn('other', before)
  },
)

test('a supervisor that gives no answer keeps nobody waiting but those who ask for its guest', async () => {
  const before = await checkpoints(a, 'other')
  const pid = await supervisorPid(a, 'one')
  await standStill(pid)
  onTestFinished(() => void process.kill(pid, 'SIGCONT'))
  expect(await a.client.guest('one')).toMatchObject({
    state: 'Hung',
    reason: expect.stringMatching(new RegExp(`its supervisor \\(process ${pid}\\) gives no answer`)),
    supervisor: null,
  })
  expect((await a.client.status()).guests.map(({ state }) => state)).toEqual(['Hung', 'Protected'])
  await wentOn('other', before)
  process.kill(pid, 'SIGCONT')
  await until(a, 'one', ({ state }) => state === 'Protected')
})

test('who names a guest and proves nothing starts no process', async () => {
  const before = supervisorsOf(stateOf('b'))
  const stranger = createConnection(b.address)
  stranger.write(encodePreamble('99999999-9999-4999-8999-999999999999'))
  stranger.write('no hello')
  await new Promise((resolve) =>
    stranger
      .on('close', resolve)
      .on('error', () => undefined)
      .resume(),
  )
  expect(supervisorsOf(stateOf('b'))).toEqual(before)
  expect((await b.client.status()).guests).toHaveLength(2)
})

test('a supervisor of another release is left to its work, and named', async () => {
  const { socket } = guestFiles(stateOf('a'), 'one').supervisor
  const former = await supervisorPid(a, 'one')
  await killHost(a)
  rmSync(socket, { force: true })
  const other = createServer((_, response) => {
    response.write(`data: ${JSON.stringify({ protocol: 99, release: '9.9.9', pid: process.pid })}\n\n`)
  }).listen(socket)
  onTestFinished(() => void other.close())
  a = await hosts.add('a')
  expect((await a.client.recentEvents()).map(({ text }) => text)).toContainEqual(
    expect.stringMatching(
      /process \d+, release 9\.9\.9\) speaks protocol 99, this agent 1: end it with SIGTERM/,
    ),
  )
  await expect(a.client.verify('one')).rejects.toMatchObject({ code: 'SUPERVISOR_FAILED' })
  await until(a, 'other', ({ state }) => state === 'Protected')
  other.closeAllConnections()
  other.close()
  await untilExited([former])
  // It is not protected again at once; that somebody asks starts its supervisor.
  await a.client.verify('one').catch(() => undefined)
  await until(a, 'one', ({ state }) => state === 'Protected')
})

test('what a removed guest leaves: no process, no file', async () => {
  const [pid, standby] = [await supervisorPid(a, 'one'), await supervisorPid(b, 'one')]
  await a.client.remove('one')
  await untilExited([pid])
  expect(existsSync(guestFiles(stateOf('a'), 'one').directory)).toBe(false)
  await untilExited([standby])
  await expect.poll(() => existsSync(guestFiles(stateOf('b'), 'one').directory)).toBe(false)
  // Of the one that is there nothing but its log: lines with its events.
  const log = readFileSync(guestFiles(stateOf('a'), 'other').supervisor.log, 'utf8')
  expect(withoutLog(log)).toBe('')
  const lines = log
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(lines).toContainEqual(
    expect.objectContaining({ level: 'info', program: 'supervisor', guest: 'other', kind: 'protection' }),
  )
})

test('who asks for a change and hangs up keeps no supervisor that has nothing left to do', async () => {
  await a.client.run({ ...idle, name: 'hung-up' })
  const pid = await supervisorPid(a, 'hung-up')
  // A host that takes the connection, and says nothing until it is told to go.
  const to = stateOf('silent')
  mkdirSync(to)
  let peer: Socket | undefined
  const silent = createListener((socket) => {
    peer = socket
  }).listen(pairSocket(to))
  onTestFinished(() => void silent.close())
  const asked = request({
    ...{
      method: 'POST',
      path: '/v1/guests/hung-up/protect',
      headers: { 'content-type': 'application/json' },
    },
    socketPath: guestFiles(stateOf('a'), 'hung-up').supervisor.socket,
  })
  asked.on('error', () => undefined)
  asked.end(JSON.stringify({ to }))
  await expect.poll(() => peer).toBeDefined()
  asked.destroy()
  const gone = once(peer!, 'close')
  peer!.destroy()
  await gone
  await a.client.remove('hung-up')
  await untilExited([pid])
})

test('what takes long says how far it is, and is cancelled where that is safe', async () => {
  const [begun, small] = ['begun', 'small']
  // The standby stands still when it is about to acknowledge the first checkpoint.
  const c = await hosts.add('c', { SUBPAGE_FAULT: 'before-ack=stop' })
  await a.client.run({ ...idle, name: begun })
  // As somebody does who has changed their mind.
  const to = ['--to', c.address, '--suspicion', '60s']
  const command = spawn(process.execPath, [mainFile, 'protect', begun, ...to, '--state', a.stateDirectory], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = finished(command)
  const still = await supervisorPid(c, begun)
  await untilStill(still)
  const { operation } = await until(a, begun, (guest) => (guest.operation?.progress?.doneBytes ?? 0) > 0)
  expect(operation).toMatchObject({ kind: 'protect', cancellable: true })
  expect(operation!.progress!.totalBytes).toBeGreaterThanOrEqual(operation!.progress!.doneBytes)
  command.kill('SIGINT')
  const { status, said } = await ended
  process.kill(still, 'SIGCONT')
  expect(said).toMatch(/the protect of begun was cancelled: it runs on without a standby/)
  expect(status).toBe(130)
  expect(await a.client.guest(begun)).toMatchObject({ reasonCode: 'NOT_PROTECTED', operation: null })
  await expect(a.client.cancel(begun)).rejects.toMatchObject({ code: 'NOT_CANCELLABLE' })
  await a.client.remove(begun)

  await a.client.run({ ...idle, name: small, disks: [{ name: 'data', bytes: 2 ** 26 }] })
  await protect(a, small, b, { suspicionMs: 60_000 })
  const standby = await supervisorPid(b, small)
  const stopped = async (kind: 'verify' | 'switchover', work: () => Promise<unknown>) => {
    try {
      await standStill(standby)
      // A checkpoint waits for its acknowledgement, and what was asked for waits for the next one.
      await until(a, small, ({ epochs }) => (epochs?.lagMs ?? 0) > 1_000)
      const refused = expect(work()).rejects.toMatchObject({ code: 'CANCELLED' })
      const { operation } = await until(a, small, (guest) => guest.operation?.kind === kind)
      expect(operation!.cancellable).toBe(true)
      expect(await a.client.cancel(small)).toEqual({ cancelled: kind, copies: [] })
      await refused
      return operation!.progress?.totalBytes
    } finally {
      process.kill(standby, 'SIGCONT')
    }
  }
  const { auxBytes } = await a.client.guest(small)
  expect(await stopped('verify', () => a.client.verify(small))).toBe(idle.ramBytes + auxBytes + 2 ** 26)
  await stopped('switchover', () => a.client.switchover(small))
  await until(a, small, (guest) => guest.state === 'Protected')
  expect(await a.client.verify(small)).toMatchObject({ equal: true })
  expect(await a.client.guest(small)).toMatchObject({ role: 'Primary', operation: null, generation: 1 })
  await a.client.remove(small)
})
