/**
 * A guest with two NUMA nodes and a memory device: its memory is in one file, watched, sent, and whole after a takeover; what it gives back
 * is given back.
 */
import { readFileSync, statSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { judge } from '../../src/agent/demo.ts'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { askVictim, consoleAt } from '../../src/qemu/demo-guest.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { Qmp } from '../../src/qemu/qmp.ts'
import { readShimStatus } from '../../src/tracking/shim.ts'
import { Hosts, protect, startVictim, until } from '../support/hosts.ts'
import { inGuest } from '../support/in-guest.ts'

const mib = 2 ** 20
/** 128 MiB is the least that Linux takes as a memory device. */
const ramBytes = (96 + 64 + 128) * mib
const memory = [
  ...['-smp', '2', '-device', 'virtio-balloon-pci'],
  ...['near,size=96M', 'far,size=64M', 'more,size=128M'].flatMap((of) => [
    '-object',
    `memory-backend-ram,id=${of}`,
  ]),
  ...['-device', 'pc-dimm,id=dimm0,memdev=more,node=1'],
  ...[
    '-numa',
    'node,cpus=0,memdev=near',
    '-numa',
    'node,cpus=1,memdev=far',
    '-numa',
    'dist,src=0,dst=1,val=20',
  ],
]
/** Where memory may lie above 4 GiB, Linux takes 64 MiB of what is below for its bounce buffers: less will do. */
const append = ['swiotlb=2048', 'memhp_default_state=online_movable']
const hosts = new Hosts()
let [a, b]: EphemeralAgent[] = []

beforeAll(async () => {
  ;[a, b] = await Promise.all([hosts.add('a'), hosts.add('b')])
})
afterAll(() => hosts[Symbol.asyncDispose]())

function zeroPages(ram: string, from = 0, to = ramBytes): number {
  const memory = readFileSync(ram)
  const zero = Buffer.alloc(4096)
  let count = 0
  for (let at = from; at < to; at += 4096) if (memory.subarray(at, at + 4096).equals(zero)) count++
  return count
}

test('its nodes and its memory device are one piece of memory, which is protected, gives back what a balloon takes, and is taken over', async () => {
  const { console, status } = await startVictim(a!, 'web', append, memory, ramBytes)
  expect(status).toMatchObject({ ramBytes, state: 'Running' })
  expect(await inGuest(console, 'cat /sys/devices/system/node/online')).toMatch(/^0-1$/m)
  // The device's memory is in use, all of it, beside what the nodes have.
  expect(await inGuest(console, 'grep -c online /sys/devices/system/memory/memory32/state')).toMatch(/^1$/m)
  const total = /MemTotal: +(\d+) kB/.exec(await inGuest(console, 'cat /proc/meminfo'))
  expect(Number(total![1]) * 1024).toBeGreaterThan((96 + 128) * mib)
  const { ram, shimStatus, observerQmp } = guestFiles(a!.stateDirectory, 'web')
  expect(readShimStatus(shimStatus)).toMatchObject({ backends: 3, tracking: 'ok' })
  expect(statSync(ram).size).toBe(ramBytes + status.auxBytes)

  await protect(a!, 'web', b!, { suspicionMs: 5_000 })
  await inGuest(console, 'dd if=/dev/urandom of=/tmp/fill bs=1M count=128 2>/dev/null; rm /tmp/fill', 60_000)
  // Nearly all of its memory, so that the balloon takes some of that.
  expect(zeroPages(ram, (96 + 64) * mib, ramBytes)).toBeLessThan((64 * mib) / 4096)
  expect(await a!.client.verify('web')).toMatchObject({
    equal: true,
    pages: (ramBytes + status.auxBytes) / 4096,
  })
  const before = zeroPages(ram)
  const qmp = await Qmp.connect(observerQmp)
  try {
    await qmp.run('balloon', { value: ramBytes - 64 * mib })
    await expect.poll(() => zeroPages(ram), { timeout: 60_000 }).toBeGreaterThan(before + (8 * mib) / 4096)
    // It is needed again when the memory device goes.
    await qmp.run('balloon', { value: ramBytes })
  } finally {
    qmp.close()
  }
  await until(a!, 'web', ({ state }) => state === 'Protected')
  expect(await a!.client.verify('web')).toMatchObject({ equal: true })

  process.kill((await a!.client.guest('web')).pid!, 'SIGKILL')
  const { takeover, console: log } = await until(b!, 'web', ({ takeover }) => takeover !== null)
  expect(await judge(console, consoleAt(log), takeover!.consoleBytes)).toMatchObject({
    continued: true,
    lost: 0,
    verified: true,
  })
  await until(b!, 'web', ({ state }) => state === 'Protected')
  expect(await b!.client.verify('web')).toMatchObject({ equal: true })
  expect(await askVictim(consoleAt(log))).toBe(true)
  await replug()
})

/** The guest has the same devices as before, and one of them is other memory, which no standby has. */
async function replug(): Promise<void> {
  const qmp = await Qmp.connect(guestFiles(b!.stateDirectory, 'web').observerQmp)
  try {
    const unplugged = new Promise<void>((resolve) => {
      qmp.on('event', ({ event, data }) => {
        if (event === 'DEVICE_DELETED' && (data as { device?: string }).device === 'dimm0') resolve()
      })
    })
    await qmp.run('device_del', { id: 'dimm0' })
    await unplugged
    await qmp.run('object-del', { id: 'more' })
    await qmp.run('object-add', { 'qom-type': 'memory-backend-ram', id: 'more', size: 128 * mib })
    await qmp.run('device_add', { driver: 'pc-dimm', id: 'dimm0', memdev: 'more', node: 1 })
    const { reason } = await until(
      b!,
      'web',
      ({ state, reason }) => state === 'Failed' && /memory that/.test(reason),
    )
    expect(reason).toMatch(/memory .*was unplugged.*: shut the guest down and start it/)
  } finally {
    qmp.close()
  }
  // It stays so, for a new protection, too.
  await b!.client.unprotect('web')
  await expect(protect(b!, 'web', a!)).rejects.toMatchObject({ code: 'GUEST_UNPROTECTABLE' })
  expect(await b!.client.guest('web')).toMatchObject({ state: 'Running' })
}

test("what is not all of its memory, or is nobody's, is refused before anything is started", async () => {
  const run = (options: string[]) => a!.client.run({ name: 'other', ramBytes, accel: 'tcg', options })
  await expect(run(['-numa', 'node,cpus=0'])).rejects.toThrow('each node needs its memory')
  await expect(run([...memory, '-m', '4G'])).rejects.toThrow('--ram')
  await expect(
    a!.client.run({ name: 'other', ramBytes: 300 * mib, accel: 'tcg', options: memory }),
  ).rejects.toThrow('the guest has 300 MiB (--ram), and its memory backends have 288 MiB together')
  expect((await a!.client.status()).guests.map(({ name }) => name)).not.toContain('other')
})
