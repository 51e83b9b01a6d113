/**
 * Bad input and bad luck at the start of agents, guests and protections, on real QEMU with real agents: each ends in a clear error, and
 * nothing of a failed start is left behind.
 */
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { createTransport } from '../../src/agent/transport.ts'
import { RawDisk } from '../../src/disk/raw-disk.ts'
import { exitStatus } from '../../src/errors.ts'
import { memoryBytes } from '../../src/qemu/aux-ram.ts'
import { readRecord } from '../../src/qemu/guest-record.ts'
import { launch, qemuBinary } from '../../src/qemu/launch.ts'
import { identify } from '../../src/qemu/process.ts'
import { openArbiter } from '../../src/replication/arbiters/open.ts'
import { Connection } from '../../src/replication/connection.ts'
import { DeviceStateWriter } from '../../src/replication/device-state.ts'
import { type Frame, frameType } from '../../src/replication/frame.ts'
import { encodeCommit, type Hello, protocolVersion } from '../../src/replication/messages.ts'
import { TestCa } from '../support/certificates.ts'
import { Hosts, idle, protect, runState, until } from '../support/hosts.ts'
import { processesWith } from '../support/processes.ts'
import { subpage } from '../support/subpage.ts'
import { traces } from '../support/traces.ts'

const mib = 2 ** 20

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent

beforeAll(async () => {
  hosts = new Hosts()
  a = await hosts.add('a')
  b = await hosts.add('b')
})

afterAll(async () => hosts[Symbol.asyncDispose]())

const { stateOf, filesOf, expectNothingOf } = traces(() => hosts)

describe('wrong names, and what is taken', () => {
  test('every command says that it does not know the guest', async () => {
    const { client } = a
    for (const call of [
      () => client.guest('nobody'),
      () => client.remove('nobody'),
      () => client.protect('nobody', { to: b.address }),
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
      'a disk that both hosts would share',
      { options: ['-drive', 'file=nbd:192.0.2.1:10809'] },
      'GUEST_UNPROTECTABLE',
      /on the network/,
    ],
    [
      'user-mode networking',
      { options: ['-netdev', 'user,id=n'] },
      'GUEST_UNPROTECTABLE',
      /user-mode networking/,
    ],
    ['a display card', { options: ['-device', 'ramfb'] }, 'GUEST_UNPROTECTABLE', /does not save its state/],
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

  test('a device whose memory is not in the RAM file is found in QEMU', async () => {
    const files = filesOf('direct', 'shown')
    const machine = { type: 'q35', ramBytes: 32 * mib, accel: 'tcg' as const, nics: [], disks: [] }
    const identity = { id: '22222222-2222-4222-8222-222222222222', name: 'shown', generation: 1 }
    // As a standby of a primary that has none there.
    const start = (options: string[]) => launch(identity, { ...machine, options, aux: [] }, files, true)
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

test('a standby whose copy of a disk cannot be had leaves no QEMU behind, and no other copy', async () => {
  const [path, other] = ['disk', 'other'].map((leaf) => join(hosts.directory, `${leaf}.raw`)) as [
    string,
    string,
  ]
  for (const file of [path, other]) writeFileSync(file, Buffer.alloc(mib))
  const disks = [
    { path, name: 'one' },
    { path: other, name: 'two' },
  ]
  await a.client.run({ ...idle, name: 'copied', disks })
  await protect(a, 'copied', b)
  const { copies } = await a.client.unprotect('copied')
  await expect.poll(async () => (await b.client.status()).guests).toEqual([])
  const [one, two] = copies as [string, string]
  rmSync(one)
  // As another standby has it.
  const held = new RawDisk(two, mib, true)
  await expect(protect(a, 'copied', b)).rejects.toMatchObject({
    code: 'DISK_UNUSABLE',
    message: expect.stringContaining(`${two} is in use`),
  })
  await held.close()
  expect(existsSync(one)).toBe(false)
  await expect.poll(() => processesWith(filesOf('b', 'copied').ram)).toEqual([])
  expectNothingOf('b', 'copied')
  await protect(a, 'copied', b)
  await a.client.remove('copied', true)
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
      message: expect.stringMatching(/^the other host: \/dev\/shm has \d+ MiB free, the guest needs 34 MiB$/),
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
    const { disks: _, aux = [], ...machine } = record.machine
    const mark = randomUUID()
    await openArbiter(`file:${join(hosts.directory, 'arbiter')}`).leaveMark(mark)
    return {
      protocol: protocolVersion,
      release: 'any',
      guest: {
        ...{ id: name === record.name ? record.id : randomUUID(), name, diskBytes: [] },
        memoryBytes: memoryBytes(record.machine),
        hypervisor: { qemu: record.qemuVersion, ...machine, aux, disks: [], ...change },
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
    ['options that `run` refuses', { options: ['-device', 'ramfb'] }, 'GUEST_UNPROTECTABLE', /ramfb/],
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
    const nothing = { deltas: 0, deltaBytes: 0, consoleBytes: 0, digest: 0n, diskFrames: 0, suspended: false }
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
