/**
 * Who sees whose processes: agents and guests in PID namespaces of their own, with a /proc that hides, or none for them. What
 * cannot be seen is never taken for gone.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { sweepOwnedDirectories } from '../../src/agent/owned-directory.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { readRecord, writeRecord } from '../../src/qemu/guest-record.ts'
import { fateOf, identify, isRunning } from '../../src/qemu/process.ts'
import type { ProtectBody } from '../../src/replication/protection-settings.ts'
import { Hosts, idle, killHost, protect, signalHost, until } from '../support/hosts.ts'
import { mainFile } from '../support/subpage.ts'

/** Commands that run an agent's, each in another view of the machine. */
const ownNamespace = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc']
const shell = (script: string) => ['unshare', '--mount', 'sh', '-c', script, 'sh']
/** Root that may do less than the others, so that it may not look at them. */
const blind =
  'setpriv --regid 65534 --clear-groups --bounding-set -sys_ptrace,-mknod --inh-caps -sys_ptrace,-mknod "$@"'
const hiding = shell(`mount -t proc -o hidepid=2 proc /proc && exec ${blind}`)
const ownNetwork = ['unshare', '--net', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh']

let hosts: Hosts
let a: EphemeralAgent

const stateOf = (host: string) => join(hosts.directory, host)

beforeAll(async () => {
  hosts = new Hosts()
  a = await hosts.add('a')
})

afterAll(async () => hosts[Symbol.asyncDispose]())

async function protectAnew(name: string, to: EphemeralAgent, options: Partial<ProtectBody> = {}) {
  const { pid } = await a.client.run({ ...idle, name })
  await protect(a, name, to, { outputs: 'free', ...options })
  return { guest: identify(pid ?? 0)! }
}

describe('a standby on the same machine', () => {
  test.each([
    ['in a PID namespace of its own', ownNamespace],
    ['with a /proc that hides processes', hiding],
  ])('%s does not take over while the guest runs', async (kind, prefix) => {
    const name = `seen-${prefix.length}`
    const b = await hosts.add(`b-${prefix.length}`, {}, undefined, prefix)
    const { guest } = await protectAnew(name, b)
    signalHost(a, 'SIGSTOP')
    onTestFinished(() => signalHost(a, 'SIGCONT'))
    // Said once it has looked for the guest, and before it would ask the arbiter.
    const { reason } = await until(b, name, ({ state }) => state === 'Connecting')
    expect(reason, kind).toMatch(/with outputs free two copies could serve/)
    expect(isRunning(guest)).toBe(true)
    signalHost(a, 'SIGCONT')
    await until(a, name, ({ state }) => state === 'Protected')
    expect((await b.client.recentEvents()).filter((event) => event.kind === 'failover')).toEqual([])
    await a.client.remove(name)
    await b.end()
  })

  test('that sees the guest takes over at once when it is gone, and only then', async () => {
    const b = await hosts.add('b')
    const { guest } = await protectAnew('open', b)
    signalHost(a, 'SIGSTOP')
    onTestFinished(() => signalHost(a, 'SIGCONT'))
    const { reason } = await until(b, 'open', ({ state }) => state === 'Connecting')
    expect(reason).toMatch(/the guest still runs there/)
    process.kill(guest.pid, 'SIGKILL')
    const { takeover } = await until(b, 'open', (status) => status.takeover !== null)
    expect(takeover?.reason).toBe('the primary and its guest are gone')
    signalHost(a, 'SIGCONT')
    await until(a, 'open', ({ role }) => role === 'Standby')
    await b.client.remove('open')
    await b.end()
  })
})

describe('an agent that does not see the guests of its state directory', () => {
  test('keeps what may still run, and ends it by command', async () => {
    const c = await hosts.add('c')
    const { pid } = await c.client.run({ ...idle, name: 'walled' })
    const guest = identify(pid ?? 0)!
    await killHost(c)
    const apart = await hosts.add('c', {}, undefined, ownNamespace)
    expect(await apart.client.guest('walled')).toMatchObject({
      state: 'Failed',
      reason: expect.stringMatching(/runs in another PID namespace/),
    })
    await expect(apart.client.run({ ...idle, name: 'walled' })).rejects.toMatchObject({
      code: 'GUEST_EXISTS',
    })
    expect(isRunning(guest)).toBe(true)
    await apart.client.remove('walled')
    await expect.poll(() => fateOf(guest)).toBe('gone')
    expect(existsSync(guestFiles(stateOf('c'), 'walled').directory)).toBe(false)
    await apart.end()
  })

  test('finds out by its socket that it has ended with its namespace', async () => {
    const d = await hosts.add('d', {}, undefined, ownNamespace)
    await d.client.run({ ...idle, name: 'lost' })
    const record = readRecord(guestFiles(stateOf('d'), 'lost'))!
    expect(fateOf(record.process)).toBe('unseen')
    await killHost(d)
    const next = await hosts.add('d')
    expect(await next.client.guest('lost')).toMatchObject({
      state: 'Failed',
      reason: 'it ended while nobody watched it',
    })
    await next.client.remove('lost')
    // The same pid and start time, of another boot.
    const { client } = next
    const { pid } = await client.run({ ...idle, name: 'old' })
    const files = guestFiles(stateOf('d'), 'old')
    const now = readRecord(files)!
    const within = { ...now.process.within!, bootId: 'another' }
    writeRecord(files, { ...now, process: { ...now.process, within } })
    expect(fateOf(readRecord(files)!.process)).toBe('gone')
    writeRecord(files, now)
    expect(fateOf(identify(pid ?? 0)!)).toBe('runs')
    await client.remove('old')
  })

  test('keeps its directory from an agent in another network namespace', async () => {
    const [command, ...args] = [...ownNetwork, process.execPath, mainFile]
    const second = ['agent', '--state', stateOf('a')]
    const child = spawn(command!, [...args, ...second], { stdio: ['ignore', 'ignore', 'pipe'] })
    const said = await ended(child)
    expect(said).toMatch(/AGENT_RUNNING/)
    expect((await a.client.status()).host).toBe('a')
  })

  test('is refused where /proc shows another namespace', async () => {
    const [command, ...args] = ['unshare', '--pid', '--fork', '--kill-child', process.execPath, mainFile]
    for (const what of [
      ['agent', '--state', stateOf('e')],
      ['record', `pid:${process.pid}`, '-o', join(hosts.directory, 'none')],
    ]) {
      const child = spawn(command!, [...args, ...what], { stdio: ['ignore', 'ignore', 'pipe'] })
      expect(await ended(child)).toMatch(/\/proc shows the processes of another PID namespace/)
    }
  })
})

test('what belongs to a process that cannot be seen is not swept', async () => {
  const lost = new Hosts()
  onTestFinished(() => lost[Symbol.asyncDispose]())
  const file = join(lost.directory, 'owner')
  const owner = JSON.parse(readFileSync(file, 'utf8'))
  const within = { ...owner.within, pidNamespace: 'another' }
  writeFileSync(file, JSON.stringify({ ...owner, pid: 1, startTime: '1', within }))
  const swept = await sweepOwnedDirectories(['subpage-test-'])
  expect(swept.some((name) => lost.directory.endsWith(name))).toBe(false)
  writeFileSync(file, JSON.stringify(owner))
})

describe('the fate of a process', () => {
  const print = (pid: number, of: unknown) =>
    `import { fateOf, identify } from ${JSON.stringify(join(import.meta.dirname, '../../dist/src/qemu/process.js'))}
     console.log(fateOf(${JSON.stringify(of)}), identify(${pid}) !== undefined)`
  const run = (prefix: string[], script: string) => {
    const [command, ...args] = [...prefix, process.execPath, '--input-type=module', '-e', script]
    return execFileSync(command!, args, { encoding: 'utf8' }).trim()
  }

  test('as it looks from elsewhere', async () => {
    await a.client.run({ ...idle, name: 'sight' })
    onTestFinished(async () => void (await a.client.remove('sight')))
    const own = identify(process.pid)!
    const { process: hidden } = readRecord(guestFiles(stateOf('a'), 'sight'))!
    const { within: _, ...bare } = own
    expect(run(['env'], print(process.pid, own))).toBe('runs true')
    expect(run(['env'], print(process.pid, { ...own, startTime: '1' }))).toBe('gone true')
    expect(run(ownNamespace, print(process.pid, own))).toBe('unseen false')
    expect(run(hiding, print(hidden.pid, hidden))).toBe('unseen false')
    // A pid that nobody has is gone, even where /proc would hide it.
    expect(run(hiding, print(2 ** 22, { ...bare, pid: 2 ** 22 }))).toBe('gone false')
    expect(run(['unshare', '--pid', '--fork'], print(process.pid, own))).toBe('unseen false')
  })

  test('it runs while any of its threads does', async () => {
    const script =
      'import ctypes, threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\nprint("on", flush=True)\nctypes.CDLL(None).pthread_exit(None)'
    const child = spawn('python3', ['-c', script], { stdio: ['ignore', 'pipe', 'ignore'] })
    onTestFinished(() => void child.kill('SIGKILL'))
    await once(child.stdout, 'data')
    const identity = identify(child.pid!)!
    await expect.poll(() => readFileSync(`/proc/${child.pid}/stat`, 'latin1').includes(') Z ')).toBe(true)
    expect(fateOf(identity)).toBe('runs')
    child.kill('SIGKILL')
    await expect.poll(() => fateOf(identity)).toBe('gone')
  })
})

async function ended(child: ChildProcess): Promise<string> {
  let said = ''
  child.stderr!.setEncoding('utf8').on('data', (text) => {
    said += text
  })
  await once(child, 'close')
  return said
}
