/** A protection that comes and goes under a guest that writes to its disk without a pause: QEMU outlives every way of its end. */
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import {
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

test('while its disk is copied, and afterwards', { timeout: 300_000 }, async () => {
  const random = seededRandom()
  const path = join(hosts.directory, 'data.raw')
  makeDisk(path)
  const { console: log, pid } = await a.client.run({
    ...{ name, ramBytes, accel: 'tcg', options: demoGuestOptions(['workload=idle']) },
    disks: [{ path, name: 'data' }],
  })
  const console = consoleAt(log)
  await untilConsole(console, 0, (said) => /^subpage-guest: ready/m.exec(said) ?? undefined, 120_000)
  await typeLine(console, 'run mkdir -p /mnt && mount -t ext4 /dev/vda /mnt && echo mounted')
  await untilConsole(console, 0, (said) => /^mounted/m.exec(said) ?? undefined, 30_000)
  for (let writer = 0; writer < writers; writer++)
    await typeLine(
      console,
      `run while dd if=/dev/urandom of=/mnt/${writer} bs=64k count=16 conv=fsync 2>/dev/null; do echo wrote; done &`,
    )
  const wrote = () => readConsole(console).match(/^wrote/gm)?.length ?? 0
  const qmp = await Qmp.connect(guestFiles(a.stateDirectory, name).observerQmp)
  onTestFinished(() => qmp.close())
  const events: QmpEvent[] = []
  qmp.on('event', (event) => events.push(event))
  for (let cut = 0; cut < cuts; cut++) {
    await beginProtect(a, name, b)
    // In the midst of copying, or when it is done.
    if (cut % 4 < 2) await delay(random.integer(20, 600))
    else await until(a, name, ({ state }) => state === 'Protected')
    if (cut % 2) process.kill(await supervisorPid(a, name), 'SIGKILL')
    else await a.client.unprotect(name)
    const before = wrote()
    await expect
      .poll(wrote, { timeout: 30_000, message: `seed ${random.seed}, cut ${cut}` })
      .toBeGreaterThan(before)
    expect((await until(a, name, (status) => status.pid !== null)).pid).toBe(pid)
    // By the next supervisor, with what is left of the former one's.
    if (cut % 2) await until(a, name, ({ state }) => state === 'Protected')
    if (cut % 2) await a.client.unprotect(name)
  }
  expect(jobsOutOfPauses(events)).toEqual([])
  expect(events.filter(({ event }) => event === 'BLOCK_JOB_READY').length).toBeGreaterThanOrEqual(cuts)
  await beginProtect(a, name, b)
  await until(a, name, ({ state }) => state === 'Protected')
  expect(await a.client.verify(name)).toMatchObject({ equal: true })
  await a.client.remove(name)
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
