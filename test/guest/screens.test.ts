/** Guests with a screen, and a sound card: video memory lies in the RAM file, and is on the other host with the rest. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { type Console, consoleAt, demoGuestOptions, untilConsole } from '../../src/qemu/demo-guest.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { Qmp } from '../../src/qemu/qmp.ts'
import { Hosts, protect, ramBytes, until } from '../support/hosts.ts'
import { inGuest } from '../support/in-guest.ts'
import { mainFile, subpage } from '../support/subpage.ts'

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent

beforeAll(async () => {
  hosts = new Hosts()
  ;[a, b] = [await hosts.add('a'), await hosts.add('b')]
})

afterAll(async () => hosts[Symbol.asyncDispose]())

const password = 'sesame'

async function start(name: string, devices: string[]): Promise<Console> {
  const status = await a.client.run({
    name,
    vnc: { address: '127.0.0.1', password },
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

/** As virt-manager gives a machine. */
const sound = [
  '-audiodev',
  'none,id=quiet',
  '-device',
  'ich9-intel-hda',
  '-device',
  'hda-duplex,audiodev=quiet',
]
/** Of the first stream: where the list of its buffers is (High Definition Audio 1.0a, 3.3.42). */
const bufferList = 0x98

/** Where the registers of the device of this class are. */
async function registersOf(console: Console, pciClass: string): Promise<number> {
  const resource = await inGuest(
    console,
    `head -n 1 $(dirname $(grep -l ${pciClass} /sys/bus/pci/devices/*/class | head -n 1))/resource`,
  )
  const at = Number(/0x[0-9a-f]+/.exec(resource)?.[0])
  expect(at, resource).toBeGreaterThan(0)
  return at
}

/** What a VNC server says first, and the kinds of authentication that it has (RFC 6143, 7.1). */
async function greetingOf(host: EphemeralAgent, name: string): Promise<{ version: string; kinds: number[] }> {
  const { vnc } = await host.client.guest(name)
  const socket = createConnection(vnc!)
  try {
    const [version] = (await once(socket, 'data')) as [Buffer]
    socket.write(version)
    const [[, ...kinds]] = (await once(socket, 'data')) as [[number, ...number[]]]
    return { version: version.toString(), kinds }
  } finally {
    socket.destroy()
  }
}

test('a screen, all its memory, and a sound card are on the other host after a failover', async () => {
  const console = await start('std', ['-vga', 'std', ...others, ...sound])
  const { auxBytes } = await a.client.guest('std')
  expect(auxBytes).toBeGreaterThan((3 * 16 + 64) * 2 ** 20)
  const bar = await registersOf(console, '0x030000')
  const list = `0x${((await registersOf(console, '0x040300')) + bufferList).toString(16)}`
  const place = (n: number) => `0x${(bar + (n * 2 ** 20) / 2 + 64 * n).toString(16)}`
  const write = (n: number) => inGuest(console, `devmem ${place(n)} 32 ${1000 + n}`)
  for (let n = 20; n < 24; n++) await write(n)
  await protect(a, 'std', b)
  // While it is protected, in pages that nobody has touched before.
  for (let n = 24; n < 32; n++) await write(n)
  await inGuest(console, `devmem ${list} 32 0x1234580`)
  await inGuest(console, 'echo "what people see" >/dev/tty1')
  const { checkpoints } = (await a.client.guest('std')).epochs!
  await until(a, 'std', ({ epochs }) => epochs!.checkpoints > checkpoints + 2)
  expect(await a.client.verify('std')).toMatchObject({ equal: true })
  const before = await picture(a, 'std')
  const shown = (await a.client.guest('std')).vnc
  expect(await greetingOf(a, 'std')).toEqual({ version: 'RFB 003.008\n', kinds: [2] })
  process.kill((await a.client.guest('std')).pid!, 'SIGKILL')
  await until(b, 'std', ({ role }) => role === 'Alone')
  const after = await picture(b, 'std')
  expect(before.equals(after)).toBe(true)
  expect(new Set(before.subarray(20)).size).toBeGreaterThan(1)
  const moved = (await b.client.guest('std')).vnc
  expect(moved?.host).toBe(shown?.host)
  expect(moved?.port).not.toBe(shown?.port)
  expect(await greetingOf(b, 'std')).toMatchObject({ kinds: [2] })
  const there = consoleAt((await b.client.guest('std')).console)
  expect(Number(await inGuest(there, `devmem ${list} 32`))).toBe(0x1234580)
  for (let n = 20; n < 32; n++)
    expect(Number(await inGuest(there, `devmem ${place(n)} 32`)), `at ${n}`).toBe(1000 + n)
}, 120_000)

describe('for people, on the host where the guest runs', () => {
  const on = ({ stateDirectory }: EphemeralAgent, ...args: string[]) =>
    subpage([...args, '--state', stateDirectory])

  test('a picture of the screen is a file', async () => {
    const path = join(hosts.directory, 'std.png')
    expect(await on(b, 'screenshot', 'std', '-o', path)).toMatchObject({ status: 0 })
    const png = readFileSync(path)
    expect(png.subarray(1, 4).toString()).toBe('PNG')
    // Text mode, as the firmware leaves it: 80 columns of 9 pixels, 25 lines of 16.
    expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([720, 400])
    writeFileSync(path, 'kept')
    expect(await on(b, 'screenshot', 'std', '-o', path)).toMatchObject({
      status: 1,
      said: expect.stringMatching(/exists/),
    })
    expect(readFileSync(path, 'utf8')).toBe('kept')
    expect(existsSync(`${path}.part`)).toBe(false)
  })

  test('a console takes what is typed, until it is left; one at a time has it', async () => {
    const terminal = spawn(process.execPath, [mainFile, 'console', 'std', '--state', b.stateDirectory])
    let seen = ''
    for (const stream of [terminal.stdout, terminal.stderr])
      stream.setEncoding('utf8').on('data', (text) => {
        seen += text
      })
    const seeing = (what: RegExp) => expect.poll(() => seen, { timeout: 20_000 }).toMatch(what)
    await seeing(/detaches/)
    terminal.stdin.write('ping\n')
    await seeing(/subpage-guest: pong/)
    expect(await on(b, 'console', 'std')).toMatchObject({
      status: 1,
      said: expect.stringMatching(/somebody has the console/),
    })
    const ended = once(terminal, 'close')
    terminal.stdin.write('\x1d')
    expect(await ended).toEqual([0, null])
    expect(seen).toMatch(/detached; std runs on/)
    expect((await b.client.guest('std')).pid).not.toBeNull()
  })

  test('the password is in no status, and in files of its owner only', async () => {
    for (const host of [a, b]) {
      expect(JSON.stringify(await host.client.status())).not.toContain(password)
      const log = readFileSync(guestFiles(host.stateDirectory, 'std').supervisor.log, 'utf8')
      expect(log).toMatch(/"program":"supervisor"/)
      expect(log).not.toContain(password)
    }
    const { record, vncSecret } = guestFiles(b.stateDirectory, 'std')
    for (const file of [record, vncSecret]) expect(statSync(file).mode & 0o777).toBe(0o600)
  })
})
