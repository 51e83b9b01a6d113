/** A protection that comes and goes under a guest that writes to its disk without a pause: QEMU outlives every way of its end. */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import {
  type Console,
  consoleAt,
  demoGuestOptions,
  readConsole,
  typeLine,
  untilConsole,
} from '../../src/qemu/demo-guest.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { Qmp, type QmpEvent } from '../../src/qemu/qmp.ts'
import { makeDisk } from '../support/guest-disk.ts'
import { beginProtect, Hosts, ramBytes, supervisorPid, until } from '../support/hosts.ts'
import { seededRandom } from '../support/random.ts'
import { standStill } from '../support/stand-still.ts'
import { finished, mainFile } from '../support/subpage.ts'

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent

beforeAll(async () => {
  hosts = new Hosts()
  ;[a, b] = [await hosts.add('a'), await hosts.add('b')]
})

afterAll(async () => hosts[Symbol.asyncDispose]())

const name = 'cuts'
const writers = 2
const cuts = 4
/** A guest that writes without a pause takes its share of a slow machine. */
const seededMsMax = 150_000

/** It boots, and mounts the first of its disks. */
async function start(guest: string, disks: { path: string; name: string }[]) {
  const { console: log, pid } = await a.client.run({
    ...{ name: guest, ramBytes, accel: 'tcg', options: demoGuestOptions(['workload=idle']), disks },
  })
  const console = consoleAt(log)
  await untilConsole(console, 0, (said) => /^subpage-guest: ready/m.exec(said) ?? undefined, 120_000)
  await typeLine(console, 'run mkdir -p /mnt && mount -t ext4 /dev/vda /mnt && echo mounted')
  await untilConsole(console, 0, (said) => /^mounted/m.exec(said) ?? undefined, 30_000)
  return { console, pid }
}

/** Says of each mebibyte that it was written. @param restS between two */
const write = (console: Console, file: number, restS?: number) =>
  typeLine(
    console,
    `run while dd if=/dev/urandom of=/mnt/${file} bs=64k count=16 conv=fsync 2>/dev/null; do echo wrote;${restS ? ` sleep ${restS};` : ''} done &`,
  )

async function untilWritten(console: Console, message: string): Promise<void> {
  const wrote = () => readConsole(console).match(/^wrote/gm)?.length ?? 0
  const before = wrote()
  await expect.poll(wrote, { timeout: 30_000, message }).toBeGreaterThan(before)
}

test('while its disk is copied, and afterwards', { timeout: 600_000 }, async () => {
  const random = seededRandom()
  const path = join(hosts.directory, 'data.raw')
  makeDisk(path)
  const { console, pid } = await start(name, [{ path, name: 'data' }])
  for (let writer = 0; writer < writers; writer++) await write(console, writer)
  const qmp = await Qmp.connect(guestFiles(a.stateDirectory, name).observerQmp)
  onTestFinished(() => qmp.close())
  const events: QmpEvent[] = []
  qmp.on('event', (event) => events.push(event))
  const untilSeeded = () => until(a, name, ({ state }) => state === 'Protected', seededMsMax)
  for (let cut = 0; cut < cuts; cut++) {
    await beginProtect(a, name, b)
    // In the midst of copying, or when it is done.
    if (cut % 4 < 2) await delay(random.integer(20, 600))
    else await untilSeeded()
    if (cut % 2) process.kill(await supervisorPid(a, name), 'SIGKILL')
    else await a.client.unprotect(name)
    await untilWritten(console, `seed ${random.seed}, cut ${cut}`)
    expect((await until(a, name, (status) => status.pid !== null)).pid).toBe(pid)
    // By the next supervisor, with what is left of the former one's.
    if (cut % 2) await untilSeeded()
    if (cut % 2) await a.client.unprotect(name)
  }
  expect(jobsOutOfPauses(events)).toEqual([])
  expect(events.filter(({ event }) => event === 'BLOCK_JOB_READY').length).toBeGreaterThanOrEqual(cuts)
  await beginProtect(a, name, b)
  await untilSeeded()
  expect(await a.client.verify(name)).toMatchObject({ equal: true })
  await a.client.remove(name)
})

test('cancelled while its disks are copied: nothing stays unless it is said', {
  timeout: 240_000,
}, async () => {
  const guest = 'cancelled'
  // Takes long enough to copy to be met in the midst of it.
  const ballastBytes = 64 * 2 ** 20
  const [path, ballast] = [join(hosts.directory, 'other.raw'), join(hosts.directory, 'ballast.raw')]
  makeDisk(path)
  writeFileSync(ballast, randomBytes(ballastBytes))
  const { console, pid } = await start(guest, [
    { path, name: 'data' },
    { path: ballast, name: 'ballast' },
  ])
  await write(console, 0, 0.2)
  const untilForgotten = () =>
    expect
      .poll(() => b.client.guest(guest).catch(({ code }) => code), { timeout: 30_000 })
      .toBe('GUEST_UNKNOWN')
  const runsOn = async (message: string) => {
    expect(await a.client.guest(guest)).toMatchObject({ reasonCode: 'NOT_PROTECTED', operation: null, pid })
    await untilWritten(console, message)
  }
  /** The supervisor of the standby stands still in the midst of it. */
  const halfCopied = async () => {
    const begun = await until(
      a,
      guest,
      ({ operation, disks }) => (operation?.progress?.doneBytes ?? 0) > 0 && disks[1]!.copy !== null,
    )
    const standby = await supervisorPid(b, guest)
    await standStill(standby)
    const { operation } = await a.client.guest(guest)
    expect(operation).toMatchObject({ kind: 'protect', cancellable: true })
    expect(operation!.progress!.doneBytes).toBeLessThan(ballastBytes)
    return { standby, made: begun.disks.map(({ copy }) => copy!) }
  }

  // With a standby that hears of it.
  await beginProtect(a, guest, b, { suspicionMs: 60_000 })
  const first = await halfCopied()
  expect(first.made.map((copy) => existsSync(copy))).toEqual([true, true])
  const cancelled = a.client.cancel(guest)
  process.kill(first.standby, 'SIGCONT')
  expect(await cancelled).toEqual({ cancelled: 'protect', copies: [] })
  await runsOn('cancelled')
  await untilForgotten()
  expect(first.made.map((copy) => existsSync(copy))).toEqual([false, false])

  // With one that does not, by an interruption of the command.
  const to = ['--to', b.address, '--suspicion', '60s', '--state', a.stateDirectory]
  const command = spawn(process.execPath, [mainFile, 'protect', guest, ...to], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = finished(command)
  const { standby, made } = await halfCopied()
  command.kill('SIGINT')
  const { status, said } = await ended
  expect(said).toContain(
    `the protect of ${guest} was cancelled: it runs on without a standby, and what the other host had of its memory is discarded; copies of its disks may stay on the other host: ${made.join(', ')}`,
  )
  expect(status).toBe(130)
  await runsOn('interrupted')
  process.kill(standby, 'SIGCONT')
  // It may yet hear what it was told, and take them away, or find the word that was left with the arbiter.
  await untilForgotten()

  await beginProtect(a, guest, b)
  await until(a, guest, ({ state }) => state === 'Protected')
  expect(await a.client.guest(guest)).toMatchObject({ peer: b.address, peerHost: 'b' })
  expect(await b.client.guest(guest)).toMatchObject({ peer: a.address, peerHost: 'a' })
  expect(await a.client.verify(guest)).toMatchObject({ equal: true })
  await a.client.remove(guest)
})

/** A job that begins or is cancelled while the guest runs: a write that is under way then can be the end of QEMU. */
function jobsOutOfPauses(events: QmpEvent[]): string[] {
  let running = true
  return events.flatMap(({ event, data }) => {
    if (event === 'STOP') running = false
    if (event === 'RESUME') running = true
    const status = event === 'JOB_STATUS_CHANGE' ? data?.status : undefined
    return running && (status === 'created' || event === 'BLOCK_JOB_CANCELLED')
      ? [`${event} ${status ?? ''}`]
      : []
  })
}
