/**
 * Bad input and bad luck, on real QEMU with real agents: each ends in a clear error or in a clean recovery. No guest is
 * left paused, nothing of a failed start is left behind, and nothing of a killed agent is in the way of the next one.
 */
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { basename, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { sweepOwnedDirectories } from '../../src/agent/owned-directory.ts'
import { createTransport } from '../../src/agent/transport.ts'
import { errorTable, exitStatus } from '../../src/errors.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { askVictim, type Console } from '../../src/qemu/demo-guest.ts'
import { type GuestFiles, guestFiles, readRecord } from '../../src/qemu/guest-files.ts'
import { launch, qemuBinary } from '../../src/qemu/launch.ts'
import { identify, isRunning } from '../../src/qemu/process.ts'
import { openArbiter } from '../../src/replication/arbiters/open.ts'
import { Connection } from '../../src/replication/connection.ts'
import { DeviceStateWriter } from '../../src/replication/device-state.ts'
import { type Frame, frameType } from '../../src/replication/frame.ts'
import { encodeCommit, type Hello, protocolVersion } from '../../src/replication/messages.ts'
import { TestCa } from '../support/certificates.ts'
import {
  endHost,
  Hosts,
  killHost,
  protect,
  runState,
  signalHost,
  startVictim,
  supervisorPid,
  until,
} from '../support/hosts.ts'
import { seededRandom } from '../support/random.ts'
import { standStill, untilStill } from '../support/stand-still.ts'
import { subpage } from '../support/subpage.ts'

const random = seededRandom()
const mib = 2 ** 20
/** A guest without a kernel: its firmware looks for a disk for ever. Boots at once and costs nothing. */
const idle = { ramBytes: 32 * mib, accel: 'tcg' as const, options: [] as string[] }

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent

const stateOf = (host: string) => join(hosts.directory, host)
const filesOf = (host: string, name: string): GuestFiles => guestFiles(stateOf(host), name)

beforeAll(async () => {
  hosts = new Hosts()
  a = await hosts.add('a')
  b = await hosts.add('b')
})

afterAll(async () => hosts[Symbol.asyncDispose]())

/**
 * Nothing of a guest is on a host: no file, no memory, no process that has the memory's name in its arguments. A supervisor may
 * still wait for a primary that was refused.
 */
function expectNothingOf(host: string, name: string): void {
  const files = filesOf(host, name)
  const left = existsSync(files.directory) ? readdirSync(files.directory) : []
  expect(left.filter((leaf) => !leaf.startsWith('supervisor.'))).toEqual([])
  expect(existsSync(files.ram)).toBe(false)
  expect(processesWith(files.ram)).toEqual([])
}

function processesWith(argument: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      if (!Number.isInteger(pid)) return false
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(argument)
      } catch {
        // It has ended meanwhile.
        return false
      }
    })
}

/** Starts an agent again where one was. */
const restart = (host: string, env: Record<string, string> = {}) => hosts.add(host, env)

describe('wrong names, and what is taken', () => {
  test('every command says that it does not know the guest', async () => {
    const { client } = a
    const settings = {
      ...{ to: b.address, epochMs: 25, suspicionMs: 500, outputs: 'held' as const },
      ...{ tracker: 'auto' as const, codec: 'masked' as const },
    }
    for (const call of [
      () => client.guest('nobody'),
      () => client.remove('nobody'),
      () => client.protect('nobody', settings),
      () => client.unprotect('nobody'),
      () => client.verify('nobody'),
      () => client.failover('nobody', false),
      () => client.switchover('nobody'),
    ])
      await expect(call()).rejects.toMatchObject({
        code: 'GUEST_UNKNOWN',
        message: expect.stringMatching(/"nobody" on host a/),
      })
    for (const name of ['', '.', '..', '../x', 'a/b', 'ä', '-x', 'x'.repeat(64)])
      await expect(client.run({ ...idle, name })).rejects.toMatchObject({ code: 'BAD_ARGUMENT' })
  })

  test('the replication port is in use', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    onTestFinished(() => void server.close())
    await once(server, 'listening')
    const taken = `127.0.0.1:${(server.address() as AddressInfo).port}`
    const files = await (await TestCa.make(join(hosts.directory, 'ca'))).files('c')
    const tls = ['--tls-ca', files.ca, '--tls-cert', files.cert, '--tls-key', files.key]
    const { status, said } = await subpage(['agent', '--state', stateOf('c'), '--listen', taken, ...tls])
    expect({ status, said }).toEqual({
      status: 1,
      said: expect.stringContaining(`${taken} is taken by another program (ADDRESS_IN_USE)`),
    })
  })

  test('the state directory has an agent', async () => {
    const { status, said } = await subpage(['agent', '--state', stateOf('a')])
    expect(status).toBe(11)
    expect(said).toContain(`agent a (process ${a.process.pid}) serves ${stateOf('a')}`)
    expect((await a.client.status()).host).toBe('a')
  })

  test('of many agents that start at once on one directory, one stays', async () => {
    const starts = await Promise.allSettled([1, 2, 3, 4].map((n) => hosts.add('many').then(() => n)))
    expect(starts.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    for (const start of starts)
      if (start.status === 'rejected') expect(start.reason.message).toMatch(/AGENT_RUNNING/)
  })
})

describe('a start that fails leaves nothing behind', () => {
  test.each<[string, Partial<typeof idle>, string, RegExp]>([
    ['more memory than there is', { ramBytes: 2 ** 40 }, 'NO_SPACE', /needs 1048576 MiB/],
    [
      'a processor that QEMU does not know',
      { options: ['-cpu', 'z80'] },
      'QEMU_FAILED',
      /unable to find CPU model 'z80'/,
    ],
    [
      'a property that a device does not have',
      { options: ['-device', 'e1000,wings=2'] },
      'QEMU_FAILED',
      /wings/,
    ],
    [
      'a machine that this QEMU does not have',
      { options: ['-M', 'pc-q35-99.9'] },
      'QEMU_FAILED',
      /unsupported machine type/,
    ],
    ['no kernel', { options: ['-kernel', '/boot/none'] }, 'GUEST_UNPROTECTABLE', /\/boot\/none/],
    [
      'a writable disk',
      { options: ['-drive', 'file=/tmp/x.img'] },
      'GUEST_UNPROTECTABLE',
      /-drive file=\/tmp\/x.img/,
    ],
    [
      'user-mode networking',
      { options: ['-netdev', 'user,id=n'] },
      'GUEST_UNPROTECTABLE',
      /user-mode networking/,
    ],
    ['a display card', { options: ['-device', 'VGA'] }, 'GUEST_UNPROTECTABLE', /writable memory of its own/],
  ])('%s', async (_, change, code, message) => {
    await expect(a.client.run({ ...idle, ...change, name: 'unlucky' })).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    })
    expectNothingOf('a', 'unlucky')
    await expect(a.client.guest('unlucky')).rejects.toMatchObject({ code: 'GUEST_UNKNOWN' })
  })

  test('QEMU itself is not there', async () => {
    const without = await hosts.add('without', { SUBPAGE_QEMU: '/nowhere/qemu' })
    await expect(without.client.run({ ...idle, name: 'unlucky' })).rejects.toMatchObject({
      code: 'QEMU_MISSING',
      message: expect.stringMatching(/\/nowhere\/qemu/),
    })
    expectNothingOf('without', 'unlucky')
  })

  test('a script in place of QEMU: what it keeps from being loaded is said, and one that hands it on is as good as QEMU', async () => {
    const script = (name: string, line: string) => {
      writeFileSync(join(hosts.directory, name), `#!/bin/sh\n${line}\n`, { mode: 0o755 })
      return join(hosts.directory, name)
    }
    for (const [host, line, missing] of [
      ['clears', `exec env -i PATH="$PATH" ${qemuBinary} "$@"`, /has not loaded .*shim\.so/],
      ['hands-on', `exec ${qemuBinary} "$@"`, null],
    ] as const) {
      const { client } = await hosts.add(host, { SUBPAGE_QEMU: script(`${host}.sh`, line) })
      const { shimMissing } = await client.run({ ...idle, name: 'scripted' })
      expect(shimMissing).toEqual(missing === null ? null : expect.stringMatching(missing))
      await client.remove('scripted')
    }
  })

  test('a device with memory of its own that no list names is found in QEMU', async () => {
    const files = filesOf('direct', 'shown')
    const machine = { type: 'q35', ramBytes: 32 * mib, accel: 'tcg' as const, nics: [], disks: [] }
    const identity = { id: '22222222-2222-4222-8222-222222222222', name: 'shown', generation: 1 }
    const start = (options: string[]) => launch(identity, { ...machine, options }, files, false)
    await expect(start(['-device', 'VGA'])).rejects.toMatchObject({
      code: 'GUEST_UNPROTECTABLE',
      message: expect.stringContaining('vga.vram'),
    })
    await expect.poll(() => processesWith(files.ram)).toEqual([])
    expectNothingOf('direct', 'shown')
  })

  test('the same name twice', async () => {
    const requests = await Promise.allSettled([1, 2].map(() => a.client.run({ ...idle, name: 'twin' })))
    const [refused] = requests.filter(({ status }) => status === 'rejected')
    expect(refused).toMatchObject({ reason: { code: 'GUEST_EXISTS' } })
    await expect(a.client.run({ ...idle, name: 'twin' })).rejects.toMatchObject({ code: 'GUEST_EXISTS' })
    expect(processesWith(filesOf('a', 'twin').ram)).toHaveLength(1)
    await a.client.remove('twin')
    expectNothingOf('a', 'twin')
  })
})

describe('a standby that cannot be', () => {
  beforeAll(async () => {
    await a.client.run({ ...idle, name: 'lonely' })
  })
  afterAll(async () => {
    await a.client.remove('lonely')
  })

  test('no room on the other host', async () => {
    // A host whose /dev/shm is small, by a mount namespace of its own.
    const prefix = [
      'unshare',
      '--mount',
      'sh',
      '-c',
      'mount -t tmpfs -o size=16m none /dev/shm && exec "$@"',
      'sh',
    ]
    const small = await hosts.add('small', {}, undefined, prefix)
    await expect(protect(a, 'lonely', small)).rejects.toMatchObject({
      code: 'NO_SPACE',
      message: expect.stringMatching(/^the other host: \/dev\/shm has \d+ MiB free, the guest needs 32 MiB$/),
    })
    expect(readdirSync(`/proc/${small.process.pid}/root/dev/shm`)).toEqual([])
    expectNothingOf('small', 'lonely')
    expect(await a.client.guest('lonely')).toMatchObject({ role: 'Alone', state: 'Running', tracker: null })
    expect((await subpage(['status', 'lonely', '--state', stateOf('a')])).status).toBe(
      exitStatus.notProtected,
    )
    expect(await runState(filesOf('a', 'lonely'))).toBe('running')
  })

  test('nobody at the address, or somebody else', async () => {
    const to = (address: string) => ({ ...b, address })
    await expect(protect(a, 'lonely', to(stateOf('nobody')))).rejects.toMatchObject({
      code: 'PEER_UNREACHABLE',
    })
    await expect(protect(a, 'lonely', to('127.0.0.1:1'))).rejects.toMatchObject({ code: 'TLS_REQUIRED' })
    await expect(protect(a, 'lonely', to('no colon here'))).rejects.toMatchObject({ code: 'BAD_ARGUMENT' })
    // To itself.
    await expect(protect(a, 'lonely', a)).rejects.toMatchObject({
      code: 'PEER_MISMATCH',
      message: expect.stringMatching(/the address leads to this host/),
    })
    expect(await a.client.guest('lonely')).toMatchObject({ role: 'Alone', state: 'Running' })
  })

  /** What host a would say of its guest, changed as the test likes. */
  async function hello(change: Record<string, unknown>, name = 'lonely'): Promise<Hello> {
    const record = readRecord(filesOf('a', 'lonely'))!
    const { ramBytes, disks: _, ...machine } = record.machine
    const mark = randomUUID()
    await openArbiter(`file:${join(hosts.directory, 'arbiter')}`).leaveMark(mark)
    return {
      protocol: protocolVersion,
      release: 'any',
      guest: {
        ...{ id: name === record.name ? record.id : randomUUID(), name, ramBytes, diskBytes: [] },
        hypervisor: { qemu: record.qemuVersion, ...machine, disks: [], ...change },
      },
      source: {
        ...{ host: 'a', claimant: 'a', address: a.address, bootId: 'another boot' },
        process: identify(process.pid)!,
      },
      generation: 1,
      mark,
      settings: { epochMs: 25, suspicionMs: 500, outputs: 'held', tracker: 'auto', codec: 'masked' },
    }
  }

  /** Says hello to b; what it answers. */
  async function greet(words: Hello): Promise<{
    connection: Connection
    frames: AsyncIterator<Frame>
    answer: unknown
  }> {
    const connection = new Connection(await createTransport().connect(b.address, words.guest.id))
    onTestFinished(() => connection.close())
    await connection.sendJson(frameType.hello, words)
    const frames = connection[Symbol.asyncIterator]()
    const { value } = await frames.next()
    // Nobody has asked for the guest before.
    if (value?.type === frameType.again) return await greet(words)
    const answer = JSON.parse(Buffer.from(value?.payload ?? []).toString() || 'null')
    return { connection, frames, answer }
  }

  test.each<[string, Record<string, unknown>, string, RegExp]>([
    ['another QEMU', { qemu: '1.2.3' }, 'PEER_MISMATCH', /the primary runs QEMU 1.2.3, this host has /],
    ['a machine that it lacks', { type: 'pc-q35-99.9' }, 'QEMU_FAILED', /unsupported machine type/],
    ['an accelerator of no kind', { accel: 'magic' }, 'PEER_MISMATCH', /does not know/],
    ['options that are no list', { options: 'x' }, 'PEER_MISMATCH', /does not know/],
    ['options that `run` refuses', { options: ['-device', 'VGA'] }, 'GUEST_UNPROTECTABLE', /VGA/],
    ['a file of this host', { options: ['-D', '/tmp/written'] }, 'GUEST_UNPROTECTABLE', /-D/],
    ['a machine with more in it', { type: 'q35,memory-backend=x' }, 'GUEST_UNPROTECTABLE', /memory-backend/],
  ])('refuses %s', async (_, change, code, message) => {
    const { answer } = await greet(await hello(change))
    expect(answer).toEqual({ code, message: expect.stringMatching(message) })
    expectNothingOf('b', 'lonely')
    await expect(b.client.guest('lonely')).rejects.toMatchObject({ code: 'GUEST_UNKNOWN' })
  })

  test.each(['../../etc', '', 'x'.repeat(200)])('refuses the name "%s"', async (name) => {
    expect((await greet(await hello({}, name))).answer).toMatchObject({ code: 'BAD_ARGUMENT' })
  })

  test('a device state that QEMU cannot load: Failed, said, and removable', async () => {
    const { connection, frames, answer } = await greet(await hello({}, 'broken'))
    expect(answer).toMatchObject({ image: 'fresh' })
    const devices = new DeviceStateWriter()
    await connection.send(frameType.device, 1, devices.encode(Buffer.from('no state of any QEMU')))
    devices.close()
    const nothing = { deltas: 0, deltaBytes: 0, consoleBytes: 0, digest: 0n, diskFrames: 0 }
    await connection.send(frameType.commit, 1, encodeCommit(nothing))
    let next = await frames.next()
    while (next.value?.type === frameType.heartbeat) next = await frames.next()
    expect(next.value).toMatchObject({ type: frameType.ack })
    await connection.sendJson(frameType.guestEnded, { how: 'died', detail: 'as we say' })
    const failed = await until(b, 'broken', ({ state }) => state === 'Failed')
    expect(failed.reason).toMatch(/QEMU could not load the device state/)
    await b.client.remove('broken')
    expectNothingOf('b', 'broken')
  })
})

describe('what a killed agent leaves behind', () => {
  let c: EphemeralAgent

  test('sockets, memory and half a directory are not in the way', async () => {
    c = await hosts.add('c')
    await c.client.run({ ...idle, name: 'kept' })
    await c.client.run({ ...idle, name: 'garbled' })
    const [kept, garbled, ghost] = ['kept', 'garbled', 'ghost'].map((name) => filesOf('c', name)) as [
      GuestFiles,
      GuestFiles,
      GuestFiles,
    ]
    const before = await c.client.guest('kept')
    await killHost(c)
    expect(existsSync(join(stateOf('c'), 'api.sock'))).toBe(true)
    mkdirSync(ghost.directory)
    writeFileSync(ghost.ram, 'old')
    writeFileSync(ghost.qmp, 'not even a socket')
    mkdirSync(join(stateOf('c'), 'guests', 'lost+found'))
    writeFileSync(garbled.record, '{"format":1,"na')

    c = await restart('c')
    expect(await c.client.guest('kept')).toMatchObject({ state: 'Running', pid: before.pid })
    expect(await runState(kept)).toBe('running')
    await expect(c.client.guest('ghost')).rejects.toMatchObject({ code: 'GUEST_UNKNOWN' })
    expectNothingOf('c', 'ghost')
    expect(await c.client.guest('garbled')).toMatchObject({
      state: 'Failed',
      reason: expect.stringMatching(/its record .*guest\.json is damaged/),
    })
    // Its QEMU may still run, and does.
    await expect(c.client.run({ ...idle, name: 'garbled' })).rejects.toMatchObject({
      code: 'GUEST_EXISTS',
      message: expect.stringMatching(/subpage remove garbled/),
    })
    expect(processesWith(garbled.ram)).toHaveLength(1)
    await c.client.remove('garbled')
    await expect.poll(() => processesWith(garbled.ram)).toEqual([])
    expectNothingOf('c', 'garbled')
  })

  test('a guest that was just being started is there whole, or not at all', async () => {
    const files = filesOf('c', 'hasty')
    for (let n = 0; n < 4; n++) {
      const asked = c.client.run({ ...idle, name: 'hasty' }).catch(({ code }) => code)
      await new Promise((resolve) => setTimeout(resolve, random.integer(0, 250)))
      await killHost(c)
      await asked
      c = await restart('c')
      // Not there, as if nobody had asked.
      const found = await c.client.guest('hasty').catch(() => undefined)
      if (found) {
        expect(found, `seed ${random.seed}`).toMatchObject({ state: 'Running' })
        expect(await runState(files)).toBe('running')
        await c.client.remove('hasty')
      }
      await expect.poll(() => processesWith(files.ram), { message: `seed ${random.seed}` }).toEqual([])
      expectNothingOf('c', 'hasty')
    }
  })

  test('a QEMU that hangs does not keep the others waiting, and can be removed', {
    timeout: 90_000,
  }, async () => {
    await c.client.run({ ...idle, name: 'hung' })
    const { pid } = await c.client.guest('hung')
    await killHost(c)
    await standStill(pid ?? Number.NaN)
    c = await restart('c')
    expect(await c.client.guest('hung')).toMatchObject({
      state: 'Hung',
      reason: expect.stringMatching(/gives no answer/),
    })
    expect(await c.client.guest('kept')).toMatchObject({ state: 'Running' })
    await c.client.remove('hung')
    expectNothingOf('c', 'hung')
  })

  test('what a killed test run or demo leaves is swept', async () => {
    const lost = new Hosts()
    const agent = await lost.add('x')
    await agent.client.run({ ...idle, name: 'orphan' })
    await killHost(agent)
    const { ram } = guestFiles(join(lost.directory, 'x'), 'orphan')
    expect(await sweepOwnedDirectories(['subpage-test-'])).not.toContain(basename(lost.directory))
    expect(processesWith(ram)).toHaveLength(1)
    // As if another process had owned it, and were gone.
    writeFileSync(join(lost.directory, 'owner'), JSON.stringify({ pid: process.pid, startTime: '1' }))
    expect(await sweepOwnedDirectories(['subpage-test-'])).toContain(basename(lost.directory))
    expect([existsSync(lost.directory), existsSync(ram), processesWith(ram)]).toEqual([false, false, []])
  })

  test('SIGTERM: guests run on', async () => {
    const { pid } = await c.client.guest('kept')
    await endHost(c, 'SIGTERM')
    expect(c.process.exitCode).toBe(0)
    expect(existsSync(join(stateOf('c'), 'api.sock'))).toBe(false)
    expect(await runState(filesOf('c', 'kept'))).toBe('running')
    c = await restart('c')
    expect(await c.client.guest('kept')).toMatchObject({ state: 'Running', pid })
    await c.client.remove('kept')
  })
})

describe('a protected guest', () => {
  const name = 'wanted'
  let console: Console

  beforeAll(async () => {
    ;({ console } = await startVictim(a, name))
    await protect(a, name, b)
  })

  /** Protected again, by itself, with an image that is equal, and a guest that found nothing wrong. */
  async function expectProtected(): Promise<void> {
    const status = await until(a, name, ({ role, state }) => role === 'Primary' && state === 'Protected')
    expect(status.pid).not.toBeNull()
    expect(await a.client.verify(name), `seed ${random.seed}`).toMatchObject({ equal: true })
    expect(processesWith(filesOf('b', name).ram)).toHaveLength(1)
  }

  /** When the lease of a pause is over, after 2 s, the guard lets the guest run. */
  const untilRunning = () =>
    expect.poll(() => runState(filesOf('a', name)), { timeout: 10_000, interval: 50 }).toBe('running')

  test('is not protected twice', async () => {
    for (const to of [b, a])
      await expect(protect(a, name, to)).rejects.toMatchObject({
        code: 'ALREADY_PROTECTED',
        message: expect.stringContaining(b.address),
      })
    await expect(b.client.run({ ...idle, name })).rejects.toMatchObject({ code: 'GUEST_EXISTS' })
    await expectProtected()
    for (const host of ['a', 'b'])
      expect((await subpage(['status', name, '--state', stateOf(host)])).status).toBe(exitStatus.ok)
  })

  test('verify finds a single byte', async () => {
    // Kernel text, which nobody writes: page and line are chosen within it.
    const [page, line] = [(16 * mib) / pageBytes + random.integer(16, 256), random.integer(0, 63)]
    const at = page * pageBytes + line * 64 + random.integer(0, 63)
    const image = openSync(filesOf('b', name).ram, 'r+')
    const byte = Buffer.alloc(1)
    readSync(image, byte, 0, 1, at)
    writeSync(image, Buffer.from([byte[0]! ^ 1]), 0, 1, at)
    const { status, out } = await subpage(['verify', name, '--state', stateOf('a')])
    writeSync(image, byte, 0, 1, at)
    closeSync(image)
    expect({ status, out }).toEqual({
      status: errorTable.IMAGE_DIFFERS.exit,
      out: expect.stringContaining(`DIFFERENT: page ${page}, line ${line} of the image`),
    })
    await expectProtected()
  })

  test('whose agent and supervisor are killed at any moment goes on', async () => {
    for (let n = 0; n < 3; n++) {
      await killHost(a)
      // Also without waiting for the guard.
      if (n > 0) await untilRunning()
      a = await restart('a')
      await expectProtected()
      await new Promise((resolve) => setTimeout(resolve, random.integer(0, 100)))
    }
  })

  test('whose supervisor stands still within a pause does not stand still with it', async () => {
    await killHost(a)
    a = await restart('a', { SUBPAGE_FAULT: `after-harvest:${random.integer(5, 60)}=stop` })
    const pid = await supervisorPid(a, name)
    await untilStill(pid)
    await untilRunning()
    process.kill(pid, 'SIGCONT')
    await expectProtected()
  })

  test('whose standby stands still for a while goes on, and is not taken over by it', async () => {
    signalHost(b, 'SIGSTOP')
    await until(a, name, ({ state }) => state === 'Connecting')
    const { status, out } = await subpage(['status', name, '--json'], { SUBPAGE_STATE: stateOf('a') })
    expect(JSON.parse(out)).toMatchObject({ name, state: 'Connecting' })
    expect([exitStatus.degraded, exitStatus.notProtected]).toContain(status)
    await untilRunning()
    signalHost(b, 'SIGCONT')
    await expectProtected()
    expect((await b.client.recentEvents()).filter(({ kind }) => kind === 'failover')).toEqual([])
  })

  test('whose standby loses all but its QEMU goes on, and gets another', async () => {
    const { pid } = await b.client.guest(name)
    await killHost(b)
    await until(a, name, ({ state }) => state === 'Connecting')
    await untilRunning()
    b = await restart('b')
    await expectProtected()
    expect((await b.client.guest(name)).pid).not.toBe(pid)
  })

  test('whose standby is killed says so, goes on, and gets another', async () => {
    const { pid } = await b.client.guest(name)
    process.kill(pid ?? Number.NaN, 'SIGKILL')
    await until(a, name, ({ state }) => state === 'Connecting')
    await expectProtected()
    const events = await b.client.recentEvents()
    expect(events.map(({ text }) => text).join('\n')).toMatch(/the waiting QEMU ended/)
  })

  test('whose hosts both lose all but the guest goes on', async () => {
    await Promise.all([killHost(a), killHost(b)])
    await untilRunning()
    b = await restart('b')
    a = await restart('a')
    await expectProtected()
    expect(await askVictim(console)).toBe(true)
  })

  test('that is killed while nobody watches it continues on the other host', async () => {
    const record = readRecord(filesOf('a', name))!
    await killHost(a)
    process.kill(record.process.pid, 'SIGKILL')
    const taken = await until(b, name, ({ takeover }) => takeover !== null)
    expect(isRunning(record.process)).toBe(false)
    expect(await askVictim({ log: taken.console, socket: filesOf('b', name).console })).toBe(true)
    // Its former host becomes the standby.
    a = await restart('a')
    await until(b, name, ({ role, state }) => role === 'Primary' && state === 'Protected')
    expect(await a.client.guest(name)).toMatchObject({ role: 'Standby' })
    expect(await b.client.verify(name)).toMatchObject({ equal: true })
    await b.client.remove(name)
    await expect.poll(() => a.client.guest(name).catch(({ code }) => code)).toBe('GUEST_UNKNOWN')
    expectNothingOf('b', name)
    expectNothingOf('a', name)
  })
})
