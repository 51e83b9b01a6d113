/** The shim in a real QEMU: the tracker names what the guest writes, and the guard resumes a guest whose agent is gone. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { makeOwnedDirectory } from '../../src/agent/owned-directory.ts'
import { packageRoot } from '../../src/memory/native.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { qemuBinary } from '../../src/qemu/launch.ts'
import { PauseLease } from '../../src/qemu/pause-lease.ts'
import { Qmp } from '../../src/qemu/qmp.ts'
import { readShimStatus, shimEnvironment } from '../../src/tracking/shim.ts'
import { openTracker, probeUserfault, type TrackerTarget } from '../../src/tracking/tracker.ts'

const ramBytes = 64 * 2 ** 20
const directory = mkdtempSync(join(tmpdir(), 'subpage-shim-'))
const memory = makeOwnedDirectory('subpage-test-', '/dev/shm')
const ram = join(memory, 'ram')
const file = (leaf: string) => join(directory, leaf)
const until = (holds: () => boolean | Promise<boolean>) =>
  vi.waitUntil(holds, { timeout: 20_000, interval: 5 })

let qemu: ChildProcess
let qmp: Qmp
let lease: PauseLease
let target: TrackerTarget

beforeAll(async () => {
  PauseLease.create(file('lease'))
  const qmpOption = (name: string) => ['-qmp', `unix:${file(name)},server=on,wait=off`]
  qemu = spawn(
    qemuBinary,
    [
      ...['-M', 'q35,memory-backend=ram', '-accel', 'tcg', '-m', `${ramBytes / 2 ** 20}M`, '-S'],
      ...['-object', `memory-backend-file,id=ram,size=${ramBytes},mem-path=${ram},share=on`],
      ...['-nodefaults', '-display', 'none'],
      ...[...qmpOption('qmp.sock'), ...qmpOption('agent.sock'), ...qmpOption('guard.sock')],
    ],
    {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: {
        ...process.env,
        ...shimEnvironment({
          ram,
          status: file('status'),
          lease: file('lease'),
          guardQmp: file('guard.sock'),
        }),
      },
    },
  )
  qmp = await vi.waitFor(() => Qmp.connect(file('qmp.sock')), { timeout: 20_000, interval: 5 })
  lease = PauseLease.open(file('lease'))
  target = { pid: qemu.pid ?? 0, ramPath: ram, ramPages: ramBytes / 4096, shimStatusPath: file('status') }
})

afterAll(async () => {
  lease?.close()
  qmp?.close()
  if (qemu.exitCode === null && qemu.signalCode === null) {
    qemu.kill('SIGKILL')
    await once(qemu, 'exit')
  }
  rmSync(memory, { recursive: true, force: true })
  rmSync(directory, { recursive: true, force: true })
})

const running = async () => (await qmp.run<{ running: boolean }>('query-status')).running

test('stock QEMU starts with the shim, which reports what it watches', () => {
  const status = readShimStatus(file('status'))
  expect(status).toMatchObject({ pid: qemu.pid, guard: 'on', bytes: ramBytes, mappings: 1 })
  expect(status?.tracking).toBe(probeUserfault().available ? 'ok' : 'failed')
})

test('a command is read with few system calls, however long it is', async () => {
  const writes = () => Number(/^syscw: (\d+)$/m.exec(readFileSync(`/proc/${qemu.pid}/io`, 'utf8'))![1])
  const [before, commands, bytes] = [writes(), 50, 400]
  for (let n = 0; n < commands; n++)
    await qmp.run('human-monitor-command', { 'command-line': 'info name'.padEnd(bytes) })
  // Of itself QEMU writes three or four wake-ups for each byte.
  expect((writes() - before) / commands).toBeLessThan(bytes / 10)
})

test('every page that the firmware changes is named, none while the guest stands still', async () => {
  const tracker = openTracker(target, 'auto')
  tracker.harvest()
  const idle = tracker.harvest()
  const before = readFileSync(ram)
  await qmp.run('cont')
  let named = PageRanges.empty
  await until(() => {
    named = named.union(tracker.harvest())
    return named.pageCount > 100
  })
  await qmp.run('stop')
  named = named.union(tracker.harvest())
  const after = readFileSync(ram)
  const changed: [number, number][] = []
  for (let page = 0; page < target.ramPages; page++) {
    const at = page * 4096
    if (!before.subarray(at, at + 4096).equals(after.subarray(at, at + 4096))) changed.push([page, 1])
  }
  expect(changed.length).toBeGreaterThan(0)
  expect([...PageRanges.of(changed).subtract(named)]).toEqual([])
  if (tracker.name === 'userfault') {
    expect(idle.pageCount).toBe(0)
    expect(named.pageCount).toBeLessThan(target.ramPages)
  }
  tracker.close()
})

test('a pause that ends in time is left alone', async () => {
  await qmp.run('cont')
  const before = lease.expiryCount
  lease.acquire(20_000)
  await qmp.run('stop')
  expect(lease.release()).toBe(true)
  expect(await running()).toBe(false)
  await qmp.run('cont')
  lease.resumed()
  expect({ running: await running(), expiries: lease.expiryCount - before }).toEqual({
    running: true,
    expiries: 0,
  })
})

test('a pause that outlives its lease is ended, and the agent learns that its checkpoint is void', async () => {
  const before = lease.expiryCount
  lease.acquire(20)
  await qmp.run('stop')
  await until(() => lease.expiryCount === before + 1)
  expect(await running()).toBe(true)
  expect(lease.release()).toBe(false)
  lease.resumed()
  // The next pause is an ordinary one.
  lease.acquire(20_000)
  await qmp.run('stop')
  expect(lease.release()).toBe(true)
  await qmp.run('cont')
  lease.resumed()
})

/** An agent in a process of its own, that pauses the guest and then waits for what we do to it. */
const pausingAgent = `
  const addon = require(process.argv[1])
  const lease = addon.leaseOpen(process.argv[2])
  const socket = require('node:net').createConnection(process.argv[3])
  socket.write('{"execute":"qmp_capabilities"}')
  const held = addon.leaseTake(lease, 1500)
  if (process.argv[4] === 'released') addon.leaseRenew(lease, held, 1500)
  socket.write('{"execute":"stop","id":1}')
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk
    if (/"return".*"id": 1|"id": 1.*"return"/.test(text)) console.log('paused')
  })
`

let agent: ChildProcess | undefined
beforeEach(() => {
  agent = undefined
})
afterEach(async () => {
  if (!agent || agent.exitCode !== null || agent.signalCode !== null) return
  agent.kill('SIGKILL')
  await once(agent, 'exit')
})

test.each([
  ['killed in the pause', 'SIGKILL', 'captured'],
  ['killed between release and cont', 'SIGKILL', 'released'],
  ['stopped in the pause', 'SIGSTOP', 'captured'],
] as const)('the guest runs again when its agent is %s', async (_, signal, state) => {
  const before = lease.expiryCount
  const addonPath = join(packageRoot, 'build/native/subpage.node')
  const args = ['-e', pausingAgent, addonPath, file('lease'), file('agent.sock'), state]
  agent = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(agent.stdout!, 'data')
  expect(await running()).toBe(false)
  agent.kill(signal)
  await until(() => lease.expiryCount === before + 1)
  expect(await running()).toBe(true)
})

test('a tracker of a QEMU that was killed says so', async () => {
  const tracker = openTracker(target, 'auto')
  tracker.harvest()
  qemu.kill('SIGKILL')
  await once(qemu, 'exit')
  expect(() => tracker.harvest()).toThrow(expect.objectContaining({ code: 'GUEST_DIED' }))
  tracker.close()
})
