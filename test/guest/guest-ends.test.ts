/**
 * Ends of real QEMUs: which is a death, and which was meant. Each guest does one thing (tiny-guest.ts), and then its QEMU
 * ends, or is killed.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, onTestFinished, test } from 'vitest'
import { consoleAt, typeLine } from '../../src/qemu/demo-guest.ts'
import { runStates, silentEvents, tellingEvents } from '../../src/qemu/guest-ends.ts'
import { QemuGuest } from '../../src/qemu/qemu-guest.ts'
import type { QemuProcess } from '../../src/qemu/qemu-process.ts'
import { firmwareOptions, out, startTiny } from '../support/tiny-guest.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-ends-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const panic = out(0x505, 1)
const reset = out(0x64, 0xfe)
/** The shortest time of the watchdog: none. */
const watchdog = out(0x443, 0x0f)
const pvpanic = ['-device', 'pvpanic']
const ib700 = ['-device', 'ib700']

async function start(then: number[], options: string[]): Promise<QemuProcess> {
  const qemu = await startTiny(directory, 'tiny', [...firmwareOptions(directory, 'tiny', then), ...options])
  onTestFinished(() => qemu.end())
  return qemu
}

const heard = (qemu: QemuProcess, name: string) =>
  new Promise<void>((resolve) => qemu.qmp.on('event', ({ event }) => event === name && resolve()))

const act = (qemu: QemuProcess) => typeLine(consoleAt(qemu.files.consoleLog), 'x')

test.each<[string, number[], string[], string]>([
  ['panics', panic, pvpanic, 'panicked'],
  ['panics, by -action panic=exit-failure', panic, [...pvpanic, '-action', 'panic=exit-failure'], 'panicked'],
  ['reboots, by -no-reboot', reset, ['-no-reboot'], 'powered-off'],
  ['reboots, by -action reboot=shutdown', reset, ['-action', 'reboot=shutdown'], 'powered-off'],
  [
    'lets its watchdog bite, which powers it off',
    watchdog,
    [...ib700, '-watchdog-action', 'poweroff'],
    'powered-off',
  ],
  ['ends QEMU without a word', out(0xf4, 3), ['-device', 'isa-debug-exit,iobase=0xf4'], 'died'],
])('a guest that %s', async (_, then, options, how) => {
  const qemu = await start(then, options)
  await act(qemu)
  expect(await qemu.ended).toMatchObject({ how })
})

test.each<[string, number[], string[], string]>([
  ['panicked and ran on', panic, [...pvpanic, '-action', 'panic=none'], 'GUEST_PANICKED'],
  ['rebooted', reset, [], 'RESET'],
  ['let its watchdog bite, for nothing', watchdog, [...ib700, '-watchdog-action', 'none'], 'WATCHDOG'],
  ['let its watchdog reset it', watchdog, [...ib700, '-watchdog-action', 'reset'], 'RESET'],
])('a guest that %s, and whose QEMU is killed later, has died', async (_, then, options, event) => {
  const qemu = await start(then, options)
  const said = heard(qemu, event)
  await act(qemu)
  await said
  qemu.kill()
  expect(await qemu.ended).toMatchObject({ how: 'died' })
})

test('a shutdown that did not end QEMU, and was followed by running on, is forgotten', async () => {
  const qemu = await start(reset, ['-no-reboot'])
  // As the option policy would not allow it; somebody at a monitor may.
  await qemu.qmp.run('set-action', { shutdown: 'pause' })
  const said = heard(qemu, 'SHUTDOWN')
  const guest = new QemuGuest(qemu)
  expect(guest.alive).toBe(true)
  await act(qemu)
  await said
  // What a checkpoint asks of it is refused: that is no fault of the connection to the standby.
  await expect(qemu.qmp.run('cont')).rejects.toThrow()
  expect(guest.alive).toBe(false)
  await qemu.qmp.run('set-action', { reboot: 'reset' })
  const resumed = heard(qemu, 'RESUME')
  await qemu.qmp.run('system_reset')
  await qemu.qmp.run('cont')
  await resumed
  expect(guest.alive).toBe(true)
  qemu.kill()
  expect(await qemu.ended).toMatchObject({ how: 'died' })
})

test.each<[string, (qemu: QemuProcess) => unknown, string]>([
  // It may end before it answers.
  ['is told to quit', ({ qmp }) => qmp.run('quit').catch(() => undefined), 'stopped'],
  // A service manager or a host that shuts down ends processes, not guests.
  ['gets SIGTERM', ({ record }) => process.kill(record.process.pid, 'SIGTERM'), 'died'],
  ['gets SIGKILL', (qemu) => qemu.kill(), 'died'],
  ['is ended by the agent', (qemu) => qemu.end(), 'stopped'],
])('a QEMU that %s', async (_, end, how) => {
  const qemu = await start([], [])
  const ended = end(qemu)
  expect(await qemu.ended).toMatchObject({ how })
  await ended
})

test('every event and every run state of this QEMU has been decided on', async () => {
  const qemu = await start([], [])
  const schema =
    await qemu.qmp.run<{ name: string; 'meta-type': string; values?: string[] }[]>('query-qmp-schema')
  const events = schema.filter((entry) => entry['meta-type'] === 'event').map(({ name }) => name)
  expect(events.filter((name) => ![...tellingEvents, ...silentEvents].includes(name))).toEqual([])
  const states = schema.find(({ values }) => values?.includes('inmigrate'))?.values ?? []
  expect(states.length).toBeGreaterThan(10)
  expect(states.filter((state) => !Object.hasOwn(runStates, state))).toEqual([])
})
