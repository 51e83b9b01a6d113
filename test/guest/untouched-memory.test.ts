/** Memory that a guest has never touched is not seeded; once the guest writes it, it is protected as all other. */
import { afterAll, expect, test } from 'vitest'
import {
  type Console,
  consoleAt,
  demoGuestOptions,
  typeLine,
  untilConsole,
} from '../../src/qemu/demo-guest.ts'
import { beginProtect, Hosts, until } from '../support/hosts.ts'

const hosts = new Hosts()
afterAll(() => hosts[Symbol.asyncDispose]())

const name = 'sparse'
const ramBytes = 512 * 2 ** 20

/** Runs a line of shell. @returns what it says behind `mark` */
async function say(console: Console, line: string, mark: string): Promise<string> {
  await typeLine(console, `run ${line}`)
  return await untilConsole(
    console,
    0,
    (said) => new RegExp(`^${mark} (\\S+)\\r?\\n`, 'm').exec(said)?.[1],
    60_000,
  )
}

test('of a guest that uses a part of its memory, that part is seeded', async () => {
  const [a, b] = [await hosts.add('a'), await hosts.add('b')]
  const { console: log } = await a.client.run({
    ...{ name, ramBytes, accel: 'tcg', options: demoGuestOptions(['workload=idle']) },
  })
  const console = consoleAt(log)
  await untilConsole(console, 0, (said) => /^subpage-guest: ready/m.exec(said) ?? undefined, 120_000)
  await beginProtect(a, name, b)
  const { seeding } = await until(a, name, ({ seeding }) => (seeding?.totalBytes ?? 0) > 0)
  // Kernel, programs, tables of pages.
  expect(seeding!.totalBytes).toBeGreaterThan(16 * 2 ** 20)
  expect(seeding!.totalBytes).toBeLessThan(ramBytes / 2)
  await until(a, name, ({ state }) => state === 'Protected')
  expect(await a.client.verify(name)).toMatchObject({ equal: true })

  const content = 'dd if=/dev/urandom of=/tmp/new bs=1M count=200 2>/dev/null'
  const digest = 'sha256sum /tmp/new | cut -c1-64'
  const written = await say(console, `${content}; echo written $(${digest})`, 'written')
  expect(written).toMatch(/^[0-9a-f]{64}$/)
  const { epochs } = await a.client.guest(name)
  const { pid } = await until(
    a,
    name,
    (now) => now.state === 'Protected' && now.epochs!.checkpoints > epochs!.checkpoints + 1,
  )
  expect(await a.client.verify(name)).toMatchObject({ equal: true })
  process.kill(pid!, 'SIGKILL')
  const { console: there } = await until(b, name, ({ takeover }) => takeover !== null)
  expect(await say(consoleAt(there), `echo found $(${digest})`, 'found')).toBe(written)
}, 180_000)
