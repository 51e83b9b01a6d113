/**
 * A state directory whose file system is really full: protections, a takeover and a restart of the agent go on, and what fails for want of room fails for one guest and recovers by itself.
 */
import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { judge } from '../../src/agent/demo.ts'
import { type EphemeralAgent, startEphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { type Console, consoleAt, consoleLength, typeLine, untilConsole } from '../../src/qemu/demo-guest.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { killHost, protect, startVictim, until } from '../support/hosts.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-full-'))
const images = join(directory, 'images')
const agents: EphemeralAgent[] = []
let a: EphemeralAgent
let b: EphemeralAgent
const mounted: string[] = []
const stateOf = (host: string) => join(directory, host)

async function hostWithSmallDisk(name: string): Promise<EphemeralAgent> {
  mkdirSync(stateOf(name), { mode: 0o700 })
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64m,mode=700', 'subpage-test', stateOf(name)])
  mounted.push(stateOf(name))
  return await start(name)
}

async function start(host: string): Promise<EphemeralAgent> {
  const agent = await startEphemeralAgent({
    stateDirectory: stateOf(host),
    host,
    env: { SUBPAGE_IMAGES: images },
  })
  agents.push(agent)
  return agent
}

/** Takes all room that is left. */
function fillUp(directory: string): string {
  const path = join(directory, 'filler')
  const fd = openSync(path, 'w')
  try {
    for (let size = 2 ** 20; size >= 1; )
      try {
        writeSync(fd, Buffer.alloc(size))
      } catch {
        // No room for so much at once.
        size >>= 1
      }
  } finally {
    closeSync(fd)
  }
  return path
}

async function goesOn(name: string): Promise<void> {
  const { committed } = await until(a, name, ({ state }) => state === 'Protected')
  await until(a, name, (now) => (now.committed?.epoch ?? 0) > (committed?.epoch ?? 0) + 5)
}

/** A console that has been talked to for long, and is again: its log is cut in the middle of it. */
async function talksEndlessly(console: Console): Promise<void> {
  appendFileSync(console.log, `${'x'.repeat(63)}\n`.repeat((4 * 2 ** 20) / 64 - 1))
  const from = consoleLength(console)
  // Whole lines: what the guest says next must begin one.
  await typeLine(console, 'run yes 0123456789012345678901234567890123456789 | head -n 2500')
  const text = await untilConsole(
    console,
    from,
    (said) => (/^subpage-guest: exit 0$/m.test(said) && existsSync(`${console.log}.1`) ? said : undefined),
    60_000,
  )
  // The victim talks beside it.
  expect(text.length).toBeGreaterThan(100_000)
  expect(text.replaceAll(/^(victim|subpage-guest).*\n/gm, '').match(/[0-9]/g)!.length).toBeGreaterThan(95_000)
  expect(consoleLength(console)).toBeGreaterThanOrEqual(from + text.length)
  // What was moved away is cut off after that.
  await expect.poll(() => statSync(console.log).size).toBeLessThan(2 ** 20)
}

beforeAll(async () => {
  mkdirSync(images)
  a = await hostWithSmallDisk('a')
  b = await hostWithSmallDisk('b')
})

afterAll(async () => {
  await Promise.all(agents.map((agent) => agent.end()))
  for (const disk of mounted) execFileSync('umount', ['-l', disk])
  rmSync(directory, { recursive: true, force: true })
})

test('full: two protected guests go on, through a restart of the agent and a takeover', async () => {
  const { status, console } = await startVictim(a, 'victim')
  const small = { ramBytes: 32 * 2 ** 20, accel: 'tcg' as const, options: [] }
  await a.client.run({ ...small, name: 'other' })
  for (const name of ['victim', 'other']) await protect(a, name, b)

  await talksEndlessly(console)
  for (const name of ['victim', 'other']) await goesOn(name)

  const fillers = ['a', 'b'].map((host) => fillUp(stateOf(host)))
  for (const name of ['victim', 'other']) await goesOn(name)
  await expect(a.client.run({ ...small, name: 'third' })).rejects.toMatchObject({
    code: 'NO_SPACE',
    message: expect.stringContaining(stateOf('a')),
  })
  expect(existsSync(guestFiles(stateOf('a'), 'third').directory)).toBe(false)

  // Its record changes with each of these.
  await a.client.unprotect('other')
  await killHost(a)
  a = await start('a')
  await goesOn('victim')
  expect(await a.client.guest('other')).toMatchObject({ state: 'Running' })

  process.kill(status.pid ?? Number.NaN, 'SIGKILL')
  const taken = await until(b, 'victim', ({ takeover }) => takeover !== null)
  for (const filler of fillers) rmSync(filler)
  expect(await judge(console, consoleAt(taken.console), taken.takeover!.consoleBytes)).toMatchObject({
    ...{ continued: true, lost: 0, verified: true },
  })
  // With room again, what could not be begins by itself.
  await until(b, 'victim', ({ role, state }) => role === 'Primary' && state === 'Protected')
  await b.client.remove('victim')
  await a.client.remove('other')
})
