/** Guests with a screen: video memory lies in the RAM file, and is on the other host with the rest. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import {
  type Console,
  consoleAt,
  consoleLength,
  demoGuestOptions,
  typeLine,
  untilConsole,
} from '../../src/qemu/demo-guest.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { Qmp } from '../../src/qemu/qmp.ts'
import { Hosts, protect, ramBytes, until } from '../support/hosts.ts'

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent

beforeAll(async () => {
  hosts = new Hosts()
  ;[a, b] = [await hosts.add('a'), await hosts.add('b')]
})

afterAll(async () => hosts[Symbol.asyncDispose]())

async function start(name: string, devices: string[]): Promise<Console> {
  const status = await a.client.run({
    name,
    ramBytes,
    accel: 'tcg',
    // The cursor would blink in pictures that are to be equal.
    options: [
      ...demoGuestOptions(['workload=idle', 'console=tty0', 'vt.global_cursor_default=0']),
      ...devices,
    ],
  })
  const console = consoleAt(status.console)
  await untilConsole(console, 0, (said) => /^subpage-guest: ready/m.exec(said) ?? undefined, 120_000)
  return console
}

/** What a command in the guest prints. */
async function inGuest(console: Console, command: string): Promise<string> {
  const from = await consoleLength(console)
  await typeLine(console, `run ${command}`)
  const said = await untilConsole(
    console,
    from,
    (text) => /^([^]*)subpage-guest: exit (\d+)$/m.exec(text) ?? undefined,
    20_000,
  )
  expect(said[2], said[1]).toBe('0')
  return said[1]!.trim()
}

async function picture(host: EphemeralAgent, name: string): Promise<Buffer> {
  const qmp = await Qmp.connect(guestFiles(host.stateDirectory, name).observerQmp)
  const path = join(hosts.directory, `${name}.ppm`)
  await qmp.run('screendump', { filename: path })
  qmp.close()
  return readFileSync(path)
}

/** With memory of their own, beside that of the first screen. */
const others = ['bochs-display', 'secondary-vga', 'virtio-gpu-pci', 'qxl'].flatMap((device) => [
  '-device',
  device,
])

test('a screen, and all its memory, are on the other host after a failover', async () => {
  const console = await start('std', ['-vga', 'std', ...others])
  const { auxBytes } = await a.client.guest('std')
  expect(auxBytes).toBeGreaterThan((3 * 16 + 64) * 2 ** 20)
  const resource = await inGuest(console, 'head -n 1 /sys/bus/pci/devices/0000:00:01.0/resource')
  const bar = Number(/0x[0-9a-f]+/.exec(resource)?.[0])
  expect(bar, resource).toBeGreaterThan(0)
  const place = (n: number) => `0x${(bar + (n * 2 ** 20) / 2 + 64 * n).toString(16)}`
  const write = (n: number) => inGuest(console, `devmem ${place(n)} 32 ${1000 + n}`)
  for (let n = 20; n < 24; n++) await write(n)
  await protect(a, 'std', b)
  // While it is protected, in pages that nobody has touched before.
  for (let n = 24; n < 32; n++) await write(n)
  await inGuest(console, 'echo "what people see" >/dev/tty1')
  const { checkpoints } = (await a.client.guest('std')).epochs!
  await until(a, 'std', ({ epochs }) => epochs!.checkpoints > checkpoints + 2)
  expect(await a.client.verify('std')).toMatchObject({ equal: true })
  const before = await picture(a, 'std')
  process.kill((await a.client.guest('std')).pid!, 'SIGKILL')
  await until(b, 'std', ({ role }) => role === 'Alone')
  const after = await picture(b, 'std')
  expect(before.equals(after)).toBe(true)
  expect(new Set(before.subarray(20)).size).toBeGreaterThan(1)
  const there = consoleAt((await b.client.guest('std')).console)
  for (let n = 20; n < 32; n++)
    expect(Number(await inGuest(there, `devmem ${place(n)} 32`)), `at ${n}`).toBe(1000 + n)
}, 120_000)
