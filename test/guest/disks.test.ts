/** Guests with writable disks: a disk is of one moment with the memory, whoever dies. */
import { closeSync, existsSync, linkSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import type { GuestStatus } from '../../src/agent/status.ts'
import {
  type Console,
  consoleAt,
  consoleLength,
  demoGuestOptions,
  readConsole,
  recordsIn,
  typeLine,
  untilConsole,
} from '../../src/qemu/demo-guest.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { readRecord } from '../../src/qemu/guest-record.ts'
import { expectLittleRead, whole } from '../support/disk-status.ts'
import { beginRecords, lastRecord, makeDisk, recordsOn, untilRecord } from '../support/guest-disk.ts'
import { Hosts, protect, ramBytes, supervisorPid, until } from '../support/hosts.ts'
import { standStill } from '../support/stand-still.ts'

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent

beforeAll(async () => {
  hosts = new Hosts()
  mkdirSync(copies())
  ;[a, b] = [await hosts.add('a'), await hosts.add('b', { SUBPAGE_DISKS: copies() })]
})

/** In which b lets a name files. */
const copies = () => join(hosts.directory, 'copies')

afterAll(async () => hosts[Symbol.asyncDispose]())

/** Made by subpage; the guest does not use them, but their devices' state goes along. */
const others = [
  { bytes: 2 ** 20, name: 'second', bus: 'scsi' as const },
  { bytes: 2 ** 20, name: 'third', bus: 'sata' as const },
]

/** Both hosts have them alike. */
const odd = { cache: 'writethrough' as const, iothread: true, bootindex: 7 }

async function start(name: string, format: 'raw' | 'qcow2'): Promise<{ console: Console; path: string }> {
  const path = join(hosts.directory, `${name}.${format}`)
  makeDisk(path, format)
  const threaded = `${path}.threaded.${format}`
  if (format === 'qcow2') makeDisk(threaded, 'qcow2')
  const status = await a.client.run({
    name,
    ramBytes,
    accel: 'tcg',
    options: demoGuestOptions(['workload=idle']),
    disks:
      format === 'raw'
        ? [{ path, name: 'data', ...odd }]
        : [{ path, name: 'data' }, ...others, { path: threaded, name: 'threaded', iothread: true }],
  })
  const console = consoleAt(status.console)
  await untilConsole(console, 0, (said) => /^subpage-guest: ready/m.exec(said) ?? undefined, 120_000)
  return { console, path }
}

const diskOf = (host: EphemeralAgent, name: string): string =>
  readRecord(guestFiles(host.stateDirectory, name))!.machine.disks[0]!.path

/** Ends the guest and looks at its disk: every record up to the last that was said, and no gap. */
async function judgeDisk(
  [host, other]: [EphemeralAgent, EphemeralAgent],
  name: string,
  console: Console,
): Promise<void> {
  const path = diskOf(host, name)
  await until(host, name, whole)
  // It is not taken over, though its mirrors end with it.
  await typeLine(console, 'poweroff')
  await until(host, name, ({ state }) => state === 'Ended')
  await expect
    .poll(() => other.client.guest(name).catch(({ code }) => code), { timeout: 10_000 })
    .toBe('GUEST_UNKNOWN')
  const said = lastRecord(console, consoleLength(console))
  const records = recordsOn(path)
  expect(records.slice(0, said)).toEqual(Array.from({ length: said }, (_, i) => i + 1))
  expect(records.length).toBeLessThanOrEqual(said + 1)
}

/** After a takeover: no record is missing and none comes twice, though a line may be cut by it. Returns the console that goes on. */
async function goesOn(before: Console, { takeover, console: log }: GuestStatus): Promise<Console> {
  const console = consoleAt(log)
  const until = readConsole(before, 0, takeover!.consoleBytes)
  await untilRecord(console, 0, (recordsIn(until).at(-1) ?? 0) + 10)
  const said = recordsIn(until + readConsole(console))
  expect(said).toEqual(Array.from({ length: said.length }, (_, i) => said[0]! + i))
  return console
}

/** Where no record is. */
const lastChunk = 64 * 2 ** 20 - 65_536

function damage(path: string): void {
  const file = openSync(path, 'r+')
  writeSync(file, 'damage', lastChunk + 100)
  closeSync(file)
}

describe.each(['raw', 'qcow2'] as const)('a disk of format %s', (format) => {
  const name = `disk-${format}`
  let console: Console
  let path: string

  test('is mirrored, and costs reading where the standby has it', { timeout: 240_000 }, async () => {
    ;({ console, path } = await start(name, format))
    await beginRecords(console)
    const named = join(copies(), 'data.raw')
    if (format === 'raw') {
      makeDisk(named, 'raw')
      await expect(protect(a, name, b, { diskTo: { data: diskOf(a, name) } })).rejects.toThrow(
        /--disks DIRECTORY/,
      )
      // As where both hosts have the same storage.
      const shared = join(copies(), 'shared.raw')
      linkSync(path, shared)
      await expect(protect(a, name, b, { diskTo: { data: shared } })).rejects.toThrow(/another QEMU has it/)
    }
    await protect(a, name, b, format === 'raw' ? { diskTo: { data: named }, verifyEveryMs: 2000 } : {})
    const { disks } = await until(a, name, ({ disks: [disk] }) => disk?.state === 'Protected')
    const texts = (await a.client.recentEvents()).flatMap(({ guest, text }) => (guest === name ? [text] : []))
    expect(texts).toContainEqual(expect.stringMatching(/^seeded: \d.* compared or sent, .*\/s$/))
    // Most of it is zeros, as the standby's new file is.
    expect(disks[0]!.equalBytes).toBeGreaterThan(disks[0]!.bytes / 2)
    expect(disks[0]!.seeded).toMatchObject({ by: 'hashes', readBytes: disks[0]!.bytes })
    expect((await b.client.guest(name)).disks[0]).toMatchObject({ name: 'data', state: 'Standby' })
    if (format === 'raw')
      await expect
        .poll(() => a.client.recentEvents().then((events) => events.map(({ text }) => text)), {
          timeout: 30_000,
        })
        .toContain('verified: equal')
    // Other formats are read through QEMU as well.
    const { equal, disks: verified } = await a.client.verify(name)
    expect([equal, verified[0]]).toEqual([true, { name: 'data', bytes: disks[0]!.bytes }])
    if (format === 'qcow2') expect(verified[3]?.missing).toMatch(/a thread of its own/)
    if (format === 'raw') expect([disks[0]!.copy, diskOf(b, name)]).toEqual([named, named])
  })

  if (format === 'raw') {
    test('what it writes goes as references to its memory', { timeout: 240_000 }, async () => {
      const sent = async () => (await until(a, name, whole)).disks[0]!.sent
      const before = await sent()
      await untilRecord(console, 0, lastRecord(console, consoleLength(console)) + 60)
      const after = await sent()
      // QEMU flushes at `stop` what was written since.
      const { epochs } = await a.client.guest(name)
      expect(epochs!.stopFlushUs.max).toBeGreaterThan(0)
      expect(epochs!.stopFlushUs.p50).toBeLessThan(epochs!.pauseUs.max)
      const grew = (way: keyof typeof after) => after[way] - before[way]
      const content = grew('compressedBytes') + grew('plainBytes')
      const written = grew('sharedBytes') + grew('dictionaryBytes') + grew('zeroBytes') + content
      expect(grew('sharedBytes')).toBeGreaterThan(0.5 * written)
      expect(grew('wireBytes')).toBeLessThan(0.2 * written)
    })
  }

  test('a supervisor that stands still keeps no write waiting', { timeout: 240_000 }, async () => {
    const supervisor = await supervisorPid(a, name)
    await standStill(supervisor)
    const from = lastRecord(console, consoleLength(console))
    // Nothing is let out meanwhile but the console, and the guest would wait for the endpoint.
    await untilRecord(console, 0, from + 5)
    process.kill(supervisor, 'SIGCONT')
    // It may answer before it has heard what happened meanwhile, and what it tells is of the seeding before.
    const { disks } = await until(a, name, (now) => whole(now) && now.disks[0]!.seeded?.by === 'map')
    expect(disks[0]).toMatchObject({ cuts: 1 })
    expectLittleRead(disks[0]!)
  })

  test('goes on with the next supervisor', { timeout: 240_000 }, async () => {
    process.kill(await supervisorPid(a, name), 'SIGKILL')
    await untilRecord(console, 0, lastRecord(console, consoleLength(console)) + 10)
    expectLittleRead((await until(a, name, whole)).disks[0]!)
    expect(await a.client.verify(name)).toMatchObject({ equal: true })
  })

  test('and with the next supervisor of its standby', { timeout: 240_000 }, async () => {
    // With its first checkpoints the copy gets a new lineage; one that is lost right then is compared.
    await untilRecord(console, 0, lastRecord(console, consoleLength(console)) + 10)
    process.kill(await supervisorPid(b, name), 'SIGKILL')
    await until(a, name, ({ state }) => state !== 'Protected')
    expectLittleRead((await until(a, name, whole)).disks[0]!)
    expect(await a.client.verify(name)).toMatchObject({ equal: true })
  })

  test('is with its guest after the death of its QEMU, to the record', { timeout: 240_000 }, async () => {
    await untilRecord(console, 0, lastRecord(console, consoleLength(console)) + 20)
    const { pid } = await a.client.guest(name)
    process.kill(pid!, 'SIGKILL')
    const after = await goesOn(console, await until(b, name, ({ takeover }) => takeover !== null))
    if (format === 'qcow2') return await judgeDisk([b, a], name, after)
    console = after
  })

  if (format === 'raw')
    test('goes back by a switchover, and so does its disk', { timeout: 240_000 }, async () => {
      // Both have written to it since the last checkpoint that both had.
      expectLittleRead((await until(b, name, whole)).disks[0]!)
      expect(await b.client.verify(name)).toMatchObject({ equal: true })
      await untilRecord(console, 0, lastRecord(console, consoleLength(console)) + 10)
      await b.client.switchover(name)
      console = await goesOn(console, await until(a, name, ({ takeover }) => takeover !== null))
      // Where it was before, each time.
      expect(diskOf(a, name)).toBe(path)
      const back = (await until(a, name, whole)).disks[0]!
      expect(back.copy).toBe(join(copies(), 'data.raw'))
      expectLittleRead(back)
      expect(await a.client.unprotect(name, true)).toMatchObject({ copies: [join(copies(), 'data.raw')] })
      expect(recordsOn(join(copies(), 'data.raw')).length).toBeGreaterThan(20)
      await protect(a, name, b)
      const { copy } = (await until(a, name, whole)).disks[0]!
      expect(dirname(dirname(copy!))).toBe(join(b.stateDirectory, 'disks'))
      expect(await a.client.unprotect(name)).toMatchObject({ copies: [copy] })
      expect(existsSync(copy!)).toBe(true)
      await protect(a, name, b)
      damage(copy!)
      expect(await a.client.verify(name)).toMatchObject({
        equal: false,
        disks: [{ name: 'data', difference: lastChunk }],
      })
      expect(await a.client.unprotect(name, true)).toMatchObject({ copies: [] })
      await expect.poll(() => existsSync(copy!)).toBe(false)
      await protect(a, name, b, { durability: 'disk' })
      await until(a, name, whole)
      await untilRecord(console, 0, lastRecord(console, consoleLength(console)) + 10)
      // As after a loss of power: what was acknowledged comes from the journal.
      process.kill(await supervisorPid(b, name), 'SIGKILL')
      await expect
        .poll(() => b.client.recentEvents().then((events) => events.map(({ text }) => text)), {
          timeout: 30_000,
        })
        .toContainEqual(expect.stringMatching(/^the copies of its disks are those of checkpoint \d+$/))
      await untilRecord(console, 0, lastRecord(console, consoleLength(console)) + 10)
      await until(a, name, whole)
      expect(await a.client.verify(name)).toMatchObject({ equal: true })
      await judgeDisk([a, b], name, console)
    })
})
