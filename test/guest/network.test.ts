/**
 * Output commit and the network that outlives the guest, on real guests: what a guest sends waits in QEMU until it is
 * released, and a TCP connection to it goes on in the QEMU that takes over.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { consoleAt, demoGuestOptions, typeLine, untilConsole } from '../../src/qemu/demo-guest.ts'
import { type GuestFiles, guestFiles } from '../../src/qemu/guest-files.ts'
import { imageDirectories } from '../../src/qemu/image-files.ts'
import { launch } from '../../src/qemu/launch.ts'
import { addressed, tapName } from '../../src/qemu/nic.ts'
import type { Machine } from '../../src/qemu/options.ts'
import { QemuGuest } from '../../src/qemu/qemu-guest.ts'
import { QemuProcess } from '../../src/qemu/qemu-process.ts'
import { WaitingQemu } from '../../src/qemu/waiting-qemu.ts'
import { realClock } from '../../src/replication/clock.ts'
import { type Connection, framesFrom, ip, TestNetwork } from '../support/network.ts'
import { standStill } from '../support/stand-still.ts'

const guestAddress = '10.77.0.2'
const port = 7070

let network: TestNetwork
let bridge: string
let client: string
let directory: string

beforeAll(async () => {
  network = await TestNetwork.make()
  bridge = network.bridgeName()
  client = await network.namespace()
  directory = mkdtempSync(join(tmpdir(), 'subpage-test-'))
})

afterAll(async () => {
  await network[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true, force: true })
})

/** A guest that adds numbers for its clients, and ends with the test. */
async function startSum(
  name: string,
): Promise<{ guest: QemuGuest; tap: string; [Symbol.asyncDispose](): Promise<void> }> {
  const machine: Machine = {
    type: 'q35',
    ramBytes: 160 * 2 ** 20,
    accel: 'tcg',
    options: demoGuestOptions(['workload=sum', `net=${guestAddress}/24`]),
    nics: addressed(name, [{ bridge }]),
    disks: [],
  }
  const files = guestFiles(join(directory, 'a'), name)
  const qemu = new QemuProcess(files, await launch({ id: name, name, generation: 1 }, machine, files, false))
  if (!attached) {
    expect(qemu.notes.kept).toEqual([expect.stringContaining(`made the bridge ${bridge}`)])
    await network.attach(client, '10.77.0.1/24', bridge)
    attached = true
  } else expect(qemu.notes.kept).toEqual([])
  // The client remembers the network card of the guest before.
  await ip('-netns', client, 'neighbour', 'flush', 'dev', 'eth0')
  await untilConsole(
    consoleAt(files.consoleLog),
    0,
    (text) => (text.includes('sum listening') ? true : undefined),
    60_000,
  )
  return {
    guest: new QemuGuest(qemu),
    tap: tapName(files.directory, 0),
    [Symbol.asyncDispose]: () => qemu.end(),
  }
}
let attached = false

/** As a standby would promise. */
const soon = () => realClock.now() + 20_000

/** A checkpoint without a standby: the pause alone. */
async function seal(guest: QemuGuest): Promise<void> {
  const pause = await guest.pause()
  await pause.deviceState()
  expect((await pause.resume()).valid).toBe(true)
}

/** Where the queue lies is found out at the first question; and the guest's kernel sends things of its own now and then. */
async function untilWatched(guest: QemuGuest): Promise<void> {
  await expect
    .poll(
      async () => {
        await seal(guest)
        await guest.releaseOutputs(soon())
        return guest.outputPending()
      },
      { timeout: 20_000 },
    )
    .toBe(false)
}

async function untilSent(guest: QemuGuest): Promise<void> {
  await expect.poll(() => guest.outputPending(), { timeout: 20_000 }).toBe(true)
}

async function untilAnswered(connection: Connection, answer: string): Promise<void> {
  await connection.until((text) => text === answer)
}

test('nothing leaves before its release, all of it after, in order', async () => {
  await using running = await startSum('held')
  const { guest, tap } = running
  const connection = await network.connect(client, guestAddress, port)
  connection.send('add 5\n')
  await untilAnswered(connection, 'ok 1 5\n')

  await guest.holdOutputs()
  await untilWatched(guest)
  const framesBefore = await framesFrom(tap)
  connection.send('add 7\n')
  await untilSent(guest)
  connection.send('add 8\n')
  await seal(guest)
  connection.send('add 9\n')
  await untilSent(guest)
  expect(await framesFrom(tap)).toBe(framesBefore)
  expect(connection.received).toBe('ok 1 5\n')

  // What was sent before the pause goes; what was sent since goes with a later one, here after one that failed.
  await guest.releaseOutputs(soon())
  await connection.until((text) => text.startsWith('ok 1 5\nok 2 12\n'))
  expect(connection.received).not.toContain('ok 4')
  await seal(guest)
  await seal(guest)
  await guest.releaseOutputs(soon())
  const sums = 'ok 1 5\nok 2 12\nok 3 20\nok 4 29\n'
  // The client's own acknowledgements make the guest send again; each checkpoint lets one step of it out.
  await expect
    .poll(
      async () => {
        await seal(guest)
        await guest.releaseOutputs(soon())
        return connection.received
      },
      { timeout: 20_000 },
    )
    .toBe(sums)

  connection.send('get\n')
  await untilSent(guest)
  await guest.freeOutputs()
  await untilAnswered(connection, `${sums}ok 4 29\n`)
  connection.send('get\n')
  await untilAnswered(connection, `${sums}ok 4 29\nok 4 29\n`)
})

test('a release that QEMU executes too late lets nothing out', async () => {
  await using running = await startSum('late')
  const { guest, tap } = running
  const { fence, record } = guest.qemu
  const connection = await network.connect(client, guestAddress, port)
  await guest.holdOutputs()
  connection.send('add 1\n')
  await untilSent(guest)
  await seal(guest)
  const framesBefore = await framesFrom(tap)
  await standStill(record.process.pid)
  const untilMs = realClock.now() + 100
  const released = guest.releaseOutputs(untilMs)
  await expect.poll(() => realClock.now()).toBeGreaterThan(untilMs)
  process.kill(record.process.pid, 'SIGCONT')
  await released
  expect(fence.silenced).toBeGreaterThan(0)
  expect(await framesFrom(tap)).toBe(framesBefore)
  // What was dropped is sent again by the guest's TCP, and leaves in time.
  await expect
    .poll(
      async () => {
        await seal(guest)
        await guest.releaseOutputs(soon())
        return connection.received
      },
      { timeout: 20_000 },
    )
    .toBe('ok 1 1\n')
})

test('an answer to ARP waits too', async () => {
  await using running = await startSum('arp')
  const { guest, tap } = running
  await seal(guest)
  await guest.holdOutputs()
  await ip('-netns', client, 'neighbour', 'flush', 'dev', 'eth0')
  const framesBefore = await framesFrom(tap)
  const connecting = network.connect(client, guestAddress, port)
  await untilSent(guest)
  await seal(guest)
  expect(await framesFrom(tap)).toBe(framesBefore)
  expect(await ip('-netns', client, 'neighbour', 'show', guestAddress)).toMatch(/INCOMPLETE/)
  await guest.releaseOutputs(soon())
  await expect.poll(() => ip('-netns', client, 'neighbour', 'show', guestAddress)).toMatch(/REACHABLE/)
  await guest.freeOutputs()
  const connection = await connecting
  connection.send('add 1\n')
  await untilAnswered(connection, 'ok 1 1\n')
})

test('a restarted agent finds held output held', async () => {
  await using running = await startSum('restarted')
  const { guest, tap } = running
  const connection = await network.connect(client, guestAddress, port)
  await guest.holdOutputs()
  connection.send('add 1\n')
  await untilSent(guest)
  await seal(guest)
  const framesBefore = await framesFrom(tap)
  const { files, record } = guest.qemu
  guest.qemu.release()

  const found = await QemuProcess.attach(files, record)
  if (!found) throw new Error('it still runs')
  const again = new QemuGuest(found)
  expect(found.devices.outputs.held).toBe(true)
  await again.holdOutputs()
  // There was no commit since: nothing may go.
  expect(await framesFrom(tap)).toBe(framesBefore)
  expect(connection.received).toBe('')
  await seal(again)
  expect(await framesFrom(tap)).toBe(framesBefore)
  await again.releaseOutputs(soon())
  await untilAnswered(connection, 'ok 1 1\n')
  await found.end()
})

test('the watch follows a driver that sets its queues up anew', async () => {
  await using running = await startSum('driver')
  const { guest } = running
  const { socket, log } = consoleAt(guest.qemu.files.consoleLog)
  await untilWatched(guest)
  await typeLine(
    { socket, log },
    `run cd /sys/bus/virtio/drivers/virtio_net && echo virtio0 >unbind && echo virtio0 >bind && ip link set eth0 up && ip addr add ${guestAddress}/24 dev eth0`,
  )
  await untilConsole({ socket, log }, 0, (text) => (/exit \d+/.test(text) ? true : undefined), 20_000)
  await expect
    .poll(
      async () => {
        await seal(guest)
        const before = guest.outputPending()
        await typeLine({ socket, log }, `run ping -c 1 -W 1 10.77.0.1 >/dev/null`)
        await delay(200)
        return [before, guest.outputPending()]
      },
      { timeout: 30_000 },
    )
    .toEqual([false, true])
})

test('a TCP connection survives the death of the QEMU that it was made to', async () => {
  await using running = await startSum('survivor')
  const { guest } = running
  const filesB: GuestFiles = guestFiles(join(directory, 'b'), 'survivor')
  const waiting = await WaitingQemu.start(guest.description, 2, filesB, {
    images: imageDirectories,
    disks: [],
  })
  await using _ = { [Symbol.asyncDispose]: () => waiting.qemu.end() }
  const connection = await network.connect(client, guestAddress, port)
  let sum = 0n
  let answered = 0
  const add = async (from: QemuGuest | undefined, limitMs: number) => {
    const next = ++answered
    sum += BigInt(next)
    connection.send(`add ${next}\n`)
    const expected = `ok ${next} ${sum}\n`
    const deadline = performance.now() + limitMs
    while (!connection.received.endsWith(expected)) {
      expect(connection.ended).toBe(undefined)
      expect(performance.now(), `waiting for ${expected}`).toBeLessThan(deadline)
      if (from) deviceState = await checkpoint(from, waiting)
      else await delay(1)
    }
  }
  let deviceState: Uint8Array = new Uint8Array()
  await guest.holdOutputs()
  for (let n = 0; n < 20; n++) await add(guest, 20_000)
  // The last answer left with a checkpoint that includes it; the guest has done more since, and dies.
  connection.send('add 1000\n')
  await untilSent(guest)
  guest.qemu.kill()
  await guest.ended
  const killedAt = performance.now()
  await waiting.takeOver(deviceState, false, () => undefined)
  const takeoverMs = performance.now() - killedAt
  expect(waiting.qemu.notes.kept).toEqual([])
  // The client never heard of the sum that was lost: its TCP sends the number again.
  sum += 1000n
  answered++
  await connection.until((text) => text.endsWith(`ok ${answered} ${sum}\n`))
  const waitedMs = performance.now() - killedAt
  for (let n = 0; n < 20; n++) await add(undefined, 20_000)
  console.log(`takeover ${takeoverMs.toFixed(1)} ms, the client waited ${waitedMs.toFixed(0)} ms`)
  expect(connection.ended).toBe(undefined)
})

/** All of RAM each time, and a release when it is safe on the other side. */
async function checkpoint(guest: QemuGuest, { qemu: { ram: image } }: WaitingQemu): Promise<Uint8Array> {
  const pause = await guest.pause()
  const step = 8 * 2 ** 20
  for (let at = 0; at < image.bytes; at += step)
    image.write(at, guest.ram.read(at, Math.min(step, image.bytes - at)))
  const deviceState = await pause.deviceState()
  await pause.resume()
  await guest.releaseOutputs(soon())
  return deviceState
}
