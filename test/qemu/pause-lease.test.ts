/**
 * The pause lease without QEMU: the agent's steps, the guard's steps, and that both mean the same file. The guard here
 * is the real one, in a victim process, talking to a QMP server of this test.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { addon } from '../../src/memory/native.ts'
import { holdLocked, PauseLease } from '../../src/qemu/pause-lease.ts'
import { readShimStatus } from '../../src/tracking/shim.ts'
import { Victims } from '../tracking/victim.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-lease-'))
let victims: Victims
let path: string
let lease: PauseLease
beforeAll(() => {
  victims = new Victims()
})
beforeEach(() => {
  path = join(directory, randomBytes(4).toString('hex'))
  PauseLease.create(path)
  lease = PauseLease.open(path)
})
afterEach(async () => {
  lease.close()
  await victims.clear()
})
afterAll(async () => {
  await victims.close()
  rmSync(directory, { recursive: true })
})

/** The state word as another program reads it. */
function word(): bigint {
  const handle = addon.leaseOpen(path)
  const value = addon.leaseWord(handle)
  addon.leaseClose(handle)
  return value
}

/** In place: a guard that looks at a file which is cut short for a moment dies of SIGBUS. */
function writeAt(at: number, bytes: Uint8Array): void {
  const file = openSync(path, 'r+')
  writeSync(file, bytes, 0, bytes.length, at)
  closeSync(file)
}

function writeWord(value: bigint, at = 0): void {
  const word = Buffer.alloc(8)
  word.writeBigUInt64LE(value)
  writeAt(at, word)
}

test('a fresh lease is free', () => {
  expect([word(), addon.leaseFree, addon.leaseExpired]).toEqual([0n, 0n, 2n ** 64n - 1n])
})

test('a pause in time: held from acquire until resumed', () => {
  const leaseMs = 60_000
  const before = process.hrtime.bigint()
  lease.acquire(leaseMs)
  const after = process.hrtime.bigint()
  const deadline = word()
  expect(deadline).toBeGreaterThanOrEqual(before + BigInt(leaseMs) * 1_000_000n)
  expect(deadline).toBeLessThanOrEqual(after + BigInt(leaseMs) * 1_000_000n)
  expect(lease.release()).toBe(true)
  expect(word()).toBeGreaterThan(deadline)
  lease.resumed()
  expect(word()).toBe(0n)
})

test('release says false when the guard took the lease, also when it is done already', () => {
  for (const state of [2n ** 64n - 1n, 0n]) {
    lease.acquire(1000)
    writeWord(state)
    expect(lease.release()).toBe(false)
    lease.resumed()
    expect(word()).toBe(state)
    writeWord(0n)
  }
})

test('release says false without an acquire', () => {
  expect(lease.release()).toBe(false)
})

test('no pause begins while the guard ends an earlier one', () => {
  writeWord(2n ** 64n - 1n)
  expect(lease.expired).toBe(true)
  expect(() => lease.acquire(1000)).toThrow(expect.objectContaining({ code: 'PAUSE_BROKEN' }))
  expect(lease.inherit(1000)).toBe(false)
  writeWord(0n)
  lease.acquire(1000)
})

test('a pause that comes once waits for the end of one of another program, and no longer than that can last', async () => {
  for (const state of [2n ** 64n - 1n, 2n ** 64n - 2n, 123_456n]) {
    writeWord(state)
    const settled = vi.fn()
    const waiting = lease.settled().then(settled)
    await lease.settled(1)
    expect(settled).not.toHaveBeenCalled()
    writeWord(0n)
    await waiting
  }
  lease.acquire(1000)
  lease.release()
  await lease.settled()
  lease.resumed()
})

test('a pause whose `cont` was never confirmed does not block the next one', () => {
  lease.acquire(1000)
  lease.release()
  lease.acquire(1000)
  expect(lease.release()).toBe(true)
})

test('the pause of a dead agent is inherited once, and is lost to that agent', () => {
  lease.acquire(1000)
  const successor = PauseLease.open(path)
  expect(successor.inherit(1000)).toBe(true)
  expect(lease.release()).toBe(false)
  successor.resumed()
  expect(successor.inherit(1000)).toBe(false)
  successor.close()
})

test('misuse is a TypeError', () => {
  for (const holdMs of [0, -1, Number.NaN, 60_001]) expect(() => lease.acquire(holdMs)).toThrow(TypeError)
  const closed = PauseLease.open(path)
  closed.close()
  expect(() => closed.acquire(10)).toThrow(TypeError)
  expect(() => addon.leaseTake({} as never, 10)).toThrow(TypeError)
  writeFileSync(path, '')
  expect(() => PauseLease.open(path)).toThrow(expect.objectContaining({ code: 'EINVAL' }))
})

interface Asked {
  execute?: string
  'exec-oob'?: string
  id?: string
  arguments?: { instances?: { 'node-name': string }[] }
}

/** What the guard says to QEMU, answered as this test likes. */
class FakeQmp {
  readonly path = `${path}.sock`
  readonly server: Server
  connections = 0
  conts = 0
  /** Nodes whose connections are to be cut. */
  readonly yanked: string[] = []
  onYank: () => void = () => undefined
  onCont: (socket: Socket) => void = (socket) => socket.write('{"return":{},"id":"subpage-guard"}\n')

  constructor() {
    this.server = createServer((socket) => {
      this.connections++
      socket.on('error', () => undefined)
      socket.write('{"QMP":{"version":{},"capabilities":[]}}\n')
      let text = ''
      socket.on('data', (some) => {
        const lines = (text + some).split('\n')
        text = lines.pop() ?? ''
        for (const line of lines) this.#asked(socket, JSON.parse(line))
      })
    })
  }

  #asked(socket: Socket, { id, arguments: given, ...request }: Asked): void {
    if (request.execute === 'cont') {
      this.conts++
      socket.write('{"event":"RESUME"}\n')
      this.onCont(socket)
      return
    }
    if (request['exec-oob'] === 'yank') {
      this.yanked.push(given?.instances?.[0]?.['node-name'] ?? '')
      this.onYank()
    }
    socket.write(`{"return":{},"id":"${id}"}\n`)
  }

  async listen(): Promise<this> {
    this.server.listen(this.path)
    await once(this.server, 'listening')
    return this
  }

  [Symbol.dispose](): void {
    this.server.close()
  }
}

async function guarded(qmp: FakeQmp) {
  const environment = { SUBPAGE_LEASE: path, SUBPAGE_GUARD_QMP: qmp.path }
  const victim = await victims.start({ pages: 1, environment })
  expect(readShimStatus(victim.statusPath)?.guard).toBe('on')
  return victim
}

const until = (holds: () => boolean) => expect.poll(holds, { timeout: 10_000, interval: 5 }).toBe(true)

test('the guard resumes an overdue pause once, and frees the lease after the answer', async () => {
  using qmp = await new FakeQmp().listen()
  let answer = () => {}
  qmp.onCont = (socket) => {
    answer = () => socket.write('{"return":{},"id":"subpage-guard"}\n')
  }
  await guarded(qmp)
  lease.acquire(30)
  await until(() => qmp.connections === 1 && lease.expired)
  expect(lease.release()).toBe(false)
  expect(() => lease.acquire(30)).toThrow(expect.objectContaining({ code: 'PAUSE_BROKEN' }))
  await until(() => {
    answer()
    return !lease.expired
  })
  expect({ word: word(), count: lease.expiryCount, connections: qmp.connections }).toEqual({
    word: 0n,
    count: 1,
    connections: 1,
  })
})

test('an agent that dies between release and `cont` is covered too', async () => {
  using qmp = await new FakeQmp().listen()
  await guarded(qmp)
  lease.acquire(300)
  expect(lease.release()).toBe(true)
  await until(() => lease.expiryCount === 1)
  expect(word()).toBe(0n)
})

test('the guard leaves pauses in time alone', async () => {
  using qmp = await new FakeQmp().listen()
  await guarded(qmp)
  for (let pause = 0; pause < 50; pause++) {
    lease.acquire(5000)
    expect(lease.release()).toBe(true)
    lease.resumed()
  }
  // One overdue pause proves that the guard was watching all along.
  lease.acquire(1)
  await until(() => lease.expiryCount === 1)
  expect(qmp.connections).toBe(1)
})

test('the guard tries again until QEMU listens and answers', async () => {
  using qmp = new FakeQmp()
  let hungUp = 0
  qmp.onCont = (socket) => {
    if (++hungUp < 3) socket.destroy()
    else socket.write('{"return":{},"id":"subpage-guard"}\n')
  }
  await guarded(qmp)
  lease.acquire(1)
  await until(() => lease.expired)
  await qmp.listen()
  await until(() => !lease.expired)
  expect({ hungUp, count: lease.expiryCount }).toEqual({ hungUp: 3, count: 1 })
})

test('the guard gives up when QEMU refuses, and takes a deadline that nobody sane wrote for overdue', async () => {
  using qmp = await new FakeQmp().listen()
  qmp.onCont = (socket) => socket.write('{"id":"subpage-guard","error":{"class":"GenericError"}}\n')
  await guarded(qmp)
  writeWord(2n ** 63n)
  await until(() => lease.expiryCount === 1)
  expect({ word: word(), conts: qmp.conts }).toEqual({ word: 0n, conts: 5 })
})

test('mirrors are cut over a link that was there before, while QEMU does not answer the `cont` of the guard', async () => {
  using qmp = await new FakeQmp().listen()
  const supervisor = PauseLease.open(path)
  supervisor.mirrors(['one', 'two'])
  let answer = () => {}
  qmp.onCont = (socket) => {
    answer = () => socket.write('{"return":{},"id":"subpage-guard"}\n')
    // Its last sign of life is long ago.
    supervisor.close()
    writeAt(1024, Buffer.from('one\0two\0'))
    writeWord(1n, 32)
  }
  // As a `stop` that waits for a write which waits for a mirror.
  qmp.onYank = () => {
    if (qmp.yanked.length === 2) answer()
  }
  await guarded(qmp)
  await until(() => qmp.connections === 1)
  expect(qmp.conts).toBe(0)
  lease.acquire(1)
  await until(() => lease.expiryCount === 1)
  expect({ ...qmp, server: 0 }).toMatchObject({ connections: 1, conts: 1, yanked: ['one', 'two'] })
  expect(lease.mirrorsCut).toBe(1)
})

test('a guard that starts with an expired lease finishes it', async () => {
  using qmp = await new FakeQmp().listen()
  writeWord(2n ** 64n - 1n)
  await guarded(qmp)
  await until(() => lease.expiryCount === 1)
  expect(word()).toBe(0n)
})

test('a pause that is held by the lock outlives its deadline, and is handed back', async () => {
  using qmp = await new FakeQmp().listen()
  await guarded(qmp)
  lease.acquire(500)
  await lease.lend(async (held) => {
    const done = await holdLocked(path, held, 5000, async () => {
      await until(() => process.hrtime.bigint() > held + 100_000_000n)
      expect([word(), qmp.connections]).toEqual([addon.leaseLocked, 0])
      expect(() => PauseLease.open(path).acquire(1000)).toThrow(
        expect.objectContaining({ code: 'PAUSE_BROKEN' }),
      )
    })
    return done.held
  })
  expect(lease.release()).toBe(true)
  lease.resumed()
  expect([word(), qmp.connections]).toEqual([0n, 0])
})

test('when the holder of the lock is gone the guard ends the pause, and not before', async () => {
  using qmp = await new FakeQmp().listen()
  await guarded(qmp)
  lease.acquire(5000)
  const lock = openSync(path, 'r')
  const other = addon.leaseOpen(path)
  expect(addon.lockFile(lock)).toBe(true)
  expect(addon.leaseEnter(other, addon.leaseWord(other))).toBe(true)
  expect([lease.release(), lease.inherit(1000), word()]).toEqual([false, false, addon.leaseLocked])
  // As the kernel does when a process dies.
  closeSync(lock)
  await lease.unlocked()
  await until(() => lease.expiryCount === 1)
  expect([word(), qmp.connections]).toEqual([0n, 1])
  await expect(holdLocked(path, 77n, 1000, async () => undefined)).rejects.toMatchObject({
    code: 'PAUSE_BROKEN',
  })
  addon.leaseClose(other)
})

test('flushes are measured within pauses, and only there', async () => {
  const victim = await victims.start({ pages: 1, environment: { SUBPAGE_LEASE: path } })
  await victim.run('flush')
  expect(lease.flushedUs).toBe(0)
  lease.acquire(60_000)
  await victim.run('flush')
  const within = lease.flushedUs
  expect(within).toBeGreaterThan(0)
  lease.release()
  lease.resumed()
  await victim.run('flush')
  expect(lease.flushedUs).toBe(within)
})
