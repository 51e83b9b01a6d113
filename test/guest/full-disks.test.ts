/** Full file systems: beneath a guest's disk, and where its journal has to go. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs'
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
import { expectLittleRead, whole } from '../support/disk-status.ts'
import { makeDisk } from '../support/guest-disk.ts'
import { Hosts, protect, ramBytes, supervisorPid, until } from '../support/hosts.ts'
import { standStill } from '../support/stand-still.ts'

let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent

beforeAll(async () => {
  hosts = new Hosts()
  ;[a, b] = [await hosts.add('a'), await hosts.add('b')]
})

afterAll(async () => hosts[Symbol.asyncDispose]())

async function start(host: EphemeralAgent, name: string, path: string): Promise<Console> {
  const status = await host.client.run({
    ...{ name, ramBytes, accel: 'tcg', options: demoGuestOptions(['workload=idle']) },
    disks: [{ path, name: 'data' }],
  })
  const console = consoleAt(status.console)
  await untilConsole(console, 0, (said) => /^subpage-guest: ready/m.exec(said) ?? undefined, 120_000)
  return console
}

test('a full file system beneath a disk stops the guest until there is room, says so, and loses nothing', {
  timeout: 240_000,
}, async () => {
  const name = 'disk-full'
  const small = join(hosts.directory, 'small')
  mkdirSync(small)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=24m,mode=700', 'subpage-test', small])
  try {
    const path = join(small, 'data.raw')
    makeDisk(path, 'raw')
    const console = await start(a, name, path)
    await protect(a, name, b)
    await typeLine(
      console,
      'run mkdir -p /mnt && mount -t ext4 /dev/vda /mnt && dd if=/dev/urandom of=/mnt/big bs=1M count=30 conv=fsync && sha256sum /mnt/big && echo written',
    )
    const full = await until(a, name, ({ disks: [disk] }) => (disk?.errors ?? 0) > 0)
    expect(full.disks[0]!).toMatchObject({
      lastError: 'write: No space left on device',
      lastErrorCode: 'DISK_FULL',
    })
    const said = () => a.client.recentEvents().then((events) => events.map(({ text }) => text).join('\n'))
    expect(await said()).toMatch(/its disk data: write: No space left.*stands still until/)
    // Checkpoints go on, each of which lets it try once more.
    await until(a, name, ({ committed }) => (committed?.epoch ?? 0) > (full.committed?.epoch ?? 0) + 5)
    expect(readConsole(console)).not.toMatch(/^written/m)
    execFileSync('mount', ['-o', 'remount,size=96m', small])
    await untilConsole(console, 0, (text) => /^written/m.exec(text) ?? undefined, 60_000)
    await until(a, name, whole)
    await a.client.remove(name)
  } finally {
    execFileSync('umount', ['-l', small])
  }
})

test('what the link does not take goes through a file; one that is full costs the protection and nothing else', {
  timeout: 240_000,
}, async () => {
  const name = 'disk-burst'
  const c = await hosts.add('c')
  const small = join(c.stateDirectory, 'disks')
  mkdirSync(small, { recursive: true, mode: 0o700 })
  const mount = (...options: string[]) => execFileSync('mount', [...options, small])
  mount('-t', 'tmpfs', '-o', 'size=200m,mode=700', 'subpage-test')
  try {
    const path = join(hosts.directory, 'burst.raw')
    writeFileSync(path, '')
    truncateSync(path, 160 * 2 ** 20)
    const console = await start(c, name, path)
    await protect(c, name, b, { suspicionMs: 12_000 })
    await until(c, name, whole)
    const standby = await supervisorPid(b, name)
    const goOn = () => process.kill(standby, 'SIGCONT')
    const done = async (command: string) => {
      const from = consoleLength(console)
      await typeLine(console, `run ${command} && echo done`)
      await untilConsole(console, from, (text) => /^done/m.exec(text) ?? undefined, 60_000)
    }
    // What is written is there before: it must be written before the standby counts as lost.
    const burst = async (content: string) => {
      await done(`yes ${content} | dd of=/content bs=1M count=10 iflag=fullblock`)
      await standStill(standby)
      const write = 'dd if=/content of=/dev/vda bs=1M seek=$(($at * 10)) oflag=direct 2>/dev/null'
      await done(`for at in $(seq 0 10); do ${write} || exit; done`)
    }

    await burst('one')
    const { journal, behindBytes } = (await c.client.guest(name)).disks[0]!
    expect(journal.memoryBytes).toBeLessThanOrEqual(64 * 2 ** 20)
    expect(journal.fileBytes).toBeGreaterThan(20 * 2 ** 20)
    expect(journal.memoryBytes + journal.fileBytes).toBe(behindBytes)
    goOn()
    const after = await until(c, name, (now) => whole(now) && now.disks[0]!.journal.fileBytes === 0)
    expect(after.disks[0]!.journal.spilledBytes).toBeGreaterThanOrEqual(journal.fileBytes)
    expect(await c.client.verify(name)).toMatchObject({ equal: true })

    mount('-o', 'remount,size=16m')
    await burst('two')
    // The standby still stands still: the guest has written all the same, and what is wrong is said before that silence.
    const reason = /the copying of disk data broke off: its journal.* no space left on device/i
    await until(c, name, (now) => reason.test(now.reason))
    goOn()
    expectLittleRead({ ...(await until(c, name, whole)).disks[0]!, bytes: 8 * 160 * 2 ** 20 })
    expect(await c.client.verify(name)).toMatchObject({ equal: true })
    await c.client.remove(name)
  } finally {
    execFileSync('umount', ['-l', small])
  }
})
