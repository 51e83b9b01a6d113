/**
 * The guard, which ends pauses that take too long: the real one, in a victim process, talking to a QMP server of this test. It and a
 * supervisor mean the same file.
 */
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { expect, test } from 'vitest'
import { addon } from '../../src/memory/native.ts'
import { holdLocked, PauseLease } from '../../src/qemu/pause-lease.ts'
import { readShimStatus } from '../../src/tracking/shim.ts'
import { leaseInEach, writeAt, writeWord } from './lease-file.ts'

const its = leaseInEach()

interface Asked {
  execute?: string
  'exec-oob'?: string
  id?: string
  arguments?: { instances?: { 'node-name': string }[] }
}

/** What the guard says to QEMU, answered as this test likes. */
class FakeQmp {
  readonly path = `${its.path}.sock`
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
  const environment = { SUBPAGE_LEASE: its.path, SUBPAGE_GUARD_QMP: qmp.path }
  const victim = await its.victims.start({ pages: 1, environment })
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
  its.lease.acquire(30)
  await until(() => qmp.connections === 1 && its.lease.expired)
  expect(its.lease.release()).toBe(false)
  expect(() => its.lease.acquire(30)).toThrow(expect.objectContaining({ code: 'PAUSE_BROKEN' }))
  await until(() => {
    answer()
    return !its.lease.expired
  })
  expect({ word: its.word(), count: its.lease.expiryCount, connections: qmp.connections }).toEqual({
    word: 0n,
    count: 1,
    connections: 1,
  })
})

test('an agent that dies between release and `cont` is covered too', async () => {
  using qmp = await new FakeQmp().listen()
  await guarded(qmp)
  its.lease.acquire(300)
  expect(its.lease.release()).toBe(true)
  await until(() => its.lease.expiryCount === 1)
  expect(its.word()).toBe(0n)
})

test('the guard leaves pauses in time alone', async () => {
  using qmp = await new FakeQmp().listen()
  await guarded(qmp)
  for (let pause = 0; pause < 50; pause++) {
    its.lease.acquire(5000)
    expect(its.lease.release()).toBe(true)
    its.lease.resumed()
  }
  // One overdue pause proves that the guard was watching all along.
  its.lease.acquire(1)
  await until(() => its.lease.expiryCount === 1)
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
  its.lease.acquire(1)
  await until(() => its.lease.expired)
  await qmp.listen()
  await until(() => !its.lease.expired)
  expect({ hungUp, count: its.lease.expiryCount }).toEqual({ hungUp: 3, count: 1 })
})

test('the guard gives up when QEMU refuses, and takes a deadline that nobody sane wrote for overdue', async () => {
  using qmp = await new FakeQmp().listen()
  qmp.onCont = (socket) => socket.write('{"id":"subpage-guard","error":{"class":"GenericError"}}\n')
  await guarded(qmp)
  writeWord(its.path, 2n ** 63n)
  await until(() => its.lease.expiryCount === 1)
  expect({ word: its.word(), conts: qmp.conts }).toEqual({ word: 0n, conts: 5 })
})

test('mirrors are cut over a link that was there before, while QEMU does not answer the `cont` of the guard', async () => {
  using qmp = await new FakeQmp().listen()
  const supervisor = PauseLease.open(its.path)
  supervisor.mirrors(['one', 'two'])
  let answer = () => {}
  qmp.onCont = (socket) => {
    answer = () => socket.write('{"return":{},"id":"subpage-guard"}\n')
    // Its last sign of life is long ago.
    supervisor.close()
    writeAt(its.path, 1024, Buffer.from('one\0two\0'))
    writeWord(its.path, 1n, 32)
  }
  // As a `stop` that waits for a write which waits for a mirror.
  qmp.onYank = () => {
    if (qmp.yanked.length === 2) answer()
  }
  await guarded(qmp)
  await until(() => qmp.connections === 1)
  expect(qmp.conts).toBe(0)
  its.lease.acquire(1)
  await until(() => its.lease.expiryCount === 1)
  expect({ ...qmp, server: 0 }).toMatchObject({ connections: 1, conts: 1, yanked: ['one', 'two'] })
  expect(its.lease.mirrorsCut).toBe(1)
})

test('a guard that starts with an expired lease finishes it', async () => {
  using qmp = await new FakeQmp().listen()
  writeWord(its.path, 2n ** 64n - 1n)
  await guarded(qmp)
  await until(() => its.lease.expiryCount === 1)
  expect(its.word()).toBe(0n)
})

test('a pause that is held by the lock outlives its deadline, and is handed back', async () => {
  using qmp = await new FakeQmp().listen()
  await guarded(qmp)
  its.lease.acquire(500)
  await its.lease.lend(async (held) => {
    const done = await holdLocked(its.path, held, 5000, async () => {
      await until(() => process.hrtime.bigint() > held + 100_000_000n)
      expect([its.word(), qmp.connections]).toEqual([addon.leaseLocked, 0])
      expect(() => PauseLease.open(its.path).acquire(1000)).toThrow(
        expect.objectContaining({ code: 'PAUSE_BROKEN' }),
      )
    })
    return done.held
  })
  expect(its.lease.release()).toBe(true)
  its.lease.resumed()
  expect([its.word(), qmp.connections]).toEqual([0n, 0])
})

test('when the holder of the lock is gone the guard ends the pause, and not before', async () => {
  using qmp = await new FakeQmp().listen()
  await guarded(qmp)
  its.lease.acquire(5000)
  const lock = openSync(its.path, 'r')
  const other = addon.leaseOpen(its.path)
  expect(addon.lockFile(lock)).toBe(true)
  expect(addon.leaseEnter(other, addon.leaseWord(other))).toBe(true)
  expect([its.lease.release(), its.lease.inherit(1000), its.word()]).toEqual([
    false,
    false,
    addon.leaseLocked,
  ])
  // As the kernel does when a process dies.
  closeSync(lock)
  await its.lease.unlocked()
  await until(() => its.lease.expiryCount === 1)
  expect([its.word(), qmp.connections]).toEqual([0n, 1])
  await expect(holdLocked(its.path, 77n, 1000, async () => undefined)).rejects.toMatchObject({
    code: 'PAUSE_BROKEN',
  })
  addon.leaseClose(other)
})
