/** A guest with two NUMA nodes: its memory is in one file, watched, sent, and whole after a takeover; what it gives back is given back. */
import { readFileSync, statSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { judge } from '../../src/agent/demo.ts'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { askVictim, consoleAt } from '../../src/qemu/demo-guest.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { Qmp } from '../../src/qemu/qmp.ts'
import { readShimStatus } from '../../src/tracking/shim.ts'
import { Hosts, protect, ramBytes, startVictim, until } from '../support/hosts.ts'
import { inGuest } from '../support/in-guest.ts'

const mib = 2 ** 20
const nodes = [
  ...['-smp', '2', '-device', 'virtio-balloon-pci'],
  ...['-object', 'memory-backend-ram,id=near,size=96M', '-object', 'memory-backend-ram,id=far,size=64M'],
  ...[
    '-numa',
    'node,cpus=0,memdev=near',
    '-numa',
    'node,cpus=1,memdev=far',
    '-numa',
    'dist,src=0,dst=1,val=20',
  ],
]
const hosts = new Hosts()
let [a, b]: EphemeralAgent[] = []

beforeAll(async () => {
  ;[a, b] = await Promise.all([hosts.add('a'), hosts.add('b')])
})
afterAll(() => hosts[Symbol.asyncDispose]())

function zeroPages(ram: string): number {
  const memory = readFileSync(ram)
  const zero = Buffer.alloc(4096)
  let count = 0
  for (let at = 0; at < memory.length; at += 4096) if (memory.subarray(at, at + 4096).equals(zero)) count++
  return count
}

test('its nodes are one piece of memory, which is protected, gives back what a balloon takes, and is taken over', async () => {
  const { console, status } = await startVictim(a!, 'web', [], nodes)
  expect(status).toMatchObject({ ramBytes, state: 'Running' })
  expect(await inGuest(console, 'cat /sys/devices/system/node/online')).toMatch(/^0-1$/m)
  const { ram, shimStatus, observerQmp } = guestFiles(a!.stateDirectory, 'web')
  expect(readShimStatus(shimStatus)).toMatchObject({ nodes: 2, tracking: 'ok' })
  expect(statSync(ram).size).toBe(ramBytes + status.auxBytes)

  await protect(a!, 'web', b!, { suspicionMs: 5_000 })
  await inGuest(console, 'dd if=/dev/urandom of=/tmp/fill bs=1M count=24 2>/dev/null; rm /tmp/fill', 60_000)
  expect(await a!.client.verify('web')).toMatchObject({
    equal: true,
    pages: (ramBytes + status.auxBytes) / 4096,
  })
  const before = zeroPages(ram)
  const qmp = await Qmp.connect(observerQmp)
  try {
    await qmp.run('balloon', { value: ramBytes - 32 * mib })
    await expect.poll(() => zeroPages(ram), { timeout: 60_000 }).toBeGreaterThan(before + (16 * mib) / 4096)
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
})

test("what is not all of its memory, or is nobody's, is refused before anything is started", async () => {
  const run = (options: string[]) => a!.client.run({ name: 'other', ramBytes, accel: 'tcg', options })
  await expect(run(nodes.slice(0, -6))).rejects.toThrow('each node needs its memory')
  await expect(run([...nodes, '-m', '4G'])).rejects.toThrow('--ram')
  await expect(
    a!.client.run({ name: 'other', ramBytes: 256 * mib, accel: 'tcg', options: nodes }),
  ).rejects.toThrow('the guest has 256 MiB (--ram), and its nodes 160 MiB together')
  expect((await a!.client.status()).guests.map(({ name }) => name)).not.toContain('other')
})
