/** Guests with UEFI: the variables of their firmware are on the other host after a failover, in memory and in its file. */
import { readFileSync, statSync } from 'node:fs'
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
import type { FirmwareRequest } from '../../src/qemu/firmware.ts'
import { Hosts, protect, ramBytes, until } from '../support/hosts.ts'
import { inGuest } from '../support/in-guest.ts'

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent

beforeAll(async () => {
  hosts = new Hosts()
  ;[a, b] = [await hosts.add('a'), await hosts.add('b')]
})

afterAll(async () => hosts[Symbol.asyncDispose]())

async function start(
  name: string,
  firmware: FirmwareRequest,
  // The firmware has left its colours on the line.
  ready = /subpage-guest: ready$/m,
): Promise<Console> {
  const options = demoGuestOptions(['workload=idle'])
  const { console: path } = await a.client.run({ name, firmware, ramBytes, accel: 'tcg', options })
  const console = consoleAt(path)
  await untilConsole(console, 0, (said) => ready.exec(said) ?? undefined, 120_000)
  return console
}

const variables = '/sys/firmware/efi/efivars'
const ours = 'a6a1b0a4-7b0e-4d5e-9d2c-7f0f3c1d2e4b'

/** Non-volatile, for the firmware and the running system: attributes 7, then the value. */
const write = (console: Console, name: string, value: string) =>
  inGuest(console, `printf '\\007\\000\\000\\000${value}' >${variables}/${name}-${ours}`)

const read = (console: Console, name: string) => inGuest(console, `tail -c +5 ${variables}/${name}-${ours}`)

/** A variable's name and value, as the firmware keeps them. */
function isIn(file: string, name: string, value: string): boolean {
  return readFileSync(file).includes(Buffer.concat([Buffer.from(`${name}\0`, 'utf16le'), Buffer.from(value)]))
}

async function killed(name: string): Promise<Console> {
  process.kill((await a.client.guest(name)).pid!, 'SIGKILL')
  return consoleAt((await until(b, name, ({ role }) => role === 'Alone')).console)
}

test('variables that the guest wrote before and while protected are there after a failover, and last', async () => {
  const console = await start('uefi', { kind: 'uefi' })
  await write(console, 'Before', 'one')
  const { firmware, auxBytes } = await a.client.guest('uefi')
  expect(firmware?.kind).toBe('uefi')
  expect(statSync(firmware!.nvram).mode & 0o777).toBe(0o600)
  expect(isIn(firmware!.nvram, 'Before', 'one')).toBe(true)
  // Code and variables.
  expect(auxBytes).toBeGreaterThanOrEqual(4 * 2 ** 20)
  await protect(a, 'uefi', b)
  const { checkpoints } = (await a.client.guest('uefi')).epochs!
  await write(console, 'While', 'two')
  await until(a, 'uefi', ({ epochs }) => epochs!.checkpoints > checkpoints + 2)
  expect(await a.client.verify('uefi')).toMatchObject({ equal: true })
  const there = await killed('uefi')
  expect(await read(there, 'Before')).toBe('one')
  expect(await read(there, 'While')).toBe('two')
  await write(there, 'After', 'three')
  const taken = (await b.client.guest('uefi')).firmware!
  for (const [name, value] of Object.entries({ Before: 'one', While: 'two', After: 'three' }))
    expect(isIn(taken.nvram, name, value), name).toBe(true)
})

test('firmware with Secure Boot runs nothing that is not signed, and goes on on the other host', async () => {
  const console = await start('secure', { kind: 'secure-boot' }, /Press any key/)
  const said = await untilConsole(console, 0, (text) => text, 1000)
  expect(said).toMatch(/Security Violation/)
  expect(said).not.toMatch(/subpage-guest/)
  await protect(a, 'secure', b)
  const there = await killed('secure')
  const from = await consoleLength(there)
  await typeLine(there, '')
  await untilConsole(there, from, (text) => /Boot Manager/.exec(text) ?? undefined, 60_000)
})
