/**
 * PostgreSQL and SQLite of Debian on a protected disk: a client outside, who reads the console, is told of each row when it is
 * committed. The QEMU is killed; on the other host no row is missing that the client was told of, and both databases and the file
 * system are whole.
 */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import {
  type Console,
  consoleAt,
  consoleLength,
  demoGuestOptions,
  readConsole,
  typeLine,
  untilConsole,
} from '../../src/qemu/demo-guest.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { readRecord } from '../../src/qemu/guest-record.ts'
import { assertClean } from '../support/guest-disk.ts'
import { Hosts, protect, until } from '../support/hosts.ts'

const name = 'databases'
const kinds = ['postgres', 'sqlite'] as const
const atLeast = 20

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent

beforeAll(async () => {
  // Nothing to do where set-up has been there.
  execFileSync('bash', ['scripts/build-debian.sh'], { stdio: ['ignore', 'ignore', 'inherit'] })
  hosts = new Hosts()
  ;[a, b] = [await hosts.add('a'), await hosts.add('b')]
}, 300_000)

afterAll(async () => hosts[Symbol.asyncDispose]())

/** The newest row that the console tells of; a line cut at the end is left out. */
const newest = (said: string, kind: string): number =>
  Number([...said.matchAll(new RegExp(`^${kind} (\\d+)\\r?\\n`, 'gm'))].at(-1)?.[1] ?? 0)

const inGuest = (console: Console, command: string) =>
  typeLine(console, `run chroot /mnt /opt/databases ${command}`)

function untilSaid(console: Console, from: number, what: RegExp) {
  const look = (said: string) => {
    const failed = /^subpage-guest: exit [1-9]/m.test(said)
    if (failed) throw new Error(`a command failed in the guest: ${said.slice(-2000)}`)
    return what.exec(said) ?? undefined
  }
  return untilConsole(console, from, look, 120_000)
}

const untilRows = (console: Console, rows: (kind: string) => number) =>
  untilConsole(
    console,
    0,
    (said) => kinds.every((kind) => newest(said, kind) >= rows(kind)) || undefined,
    120_000,
  )

test('no row that was told of is lost, and both are whole', { timeout: 300_000 }, async () => {
  const path = join(hosts.directory, 'databases.raw')
  execFileSync('cp', ['--sparse=always', 'build/debian/databases.raw', path])
  const status = await a.client.run({
    ...{ name, ramBytes: 256 * 2 ** 20, accel: 'tcg', options: demoGuestOptions(['workload=idle']) },
    disks: [{ path, name: 'data' }],
  })
  const before = consoleAt(status.console)
  await untilSaid(before, 0, /^subpage-guest: ready/m)
  await typeLine(before, 'run mkdir -p /mnt && mount -t ext4 /dev/vda /mnt')
  await inGuest(before, 'start')
  await untilSaid(before, 0, /^started/m)
  await protect(a, name, b)
  await until(a, name, ({ state }) => state === 'Protected')
  for (const kind of kinds) await inGuest(before, `write ${kind} &`)
  // The client has been told: what it sees is what the standby has.
  await until(a, name, ({ committed }) => {
    const told = readConsole(before, 0, committed?.consoleBytes ?? 0)
    return kinds.every((kind) => newest(told, kind) >= atLeast)
  })
  process.kill(status.pid!, 'SIGKILL')

  const { takeover, console: log } = await until(b, name, (taken) => taken.takeover !== null)
  // What had left before the last checkpoint: nobody has seen more.
  const told = readConsole(before, 0, takeover!.consoleBytes)
  const after = consoleAt(log)
  // It goes on, in the same transaction or the next.
  await untilRows(after, (kind) => newest(told, kind) + 5)
  await inGuest(after, 'stop')
  for (const kind of kinds) await untilSaid(after, 0, new RegExp(`^ended ${kind}`, 'm'))
  const all = told + readConsole(after)
  const from = consoleLength(after)
  await inGuest(after, 'check')
  await untilSaid(after, from, /^checked/m)
  const found = readConsole(after, from)
  for (const kind of kinds) {
    const [, count, last] = new RegExp(`^${kind}: (\\d+) (\\d+)`, 'm').exec(found)!
    expect([kind, Number(count)]).toEqual([kind, Number(last)])
    expect(Number(last)).toBeGreaterThanOrEqual(newest(all, kind))
    expect(newest(told, kind)).toBeGreaterThanOrEqual(atLeast)
  }

  // The databases still run: its disk is that of a machine that was switched off.
  await typeLine(after, 'poweroff')
  await until(b, name, ({ state }) => state === 'Ended')
  assertClean(readRecord(guestFiles(b.stateDirectory, name))!.machine.disks[0]!.path)
})
