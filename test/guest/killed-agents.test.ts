/** What a killed agent leaves is in nobody's way: not in the next one's, not in a user's. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { sweepOwnedDirectories } from '../../src/agent/owned-directory.ts'
import { type GuestFiles, guestFiles } from '../../src/qemu/guest-files.ts'
import { endHost, Hosts, idle, killHost, runState } from '../support/hosts.ts'
import { processesWith } from '../support/processes.ts'
import { seededRandom } from '../support/random.ts'
import { standStill } from '../support/stand-still.ts'
import { traces } from '../support/traces.ts'

const random = seededRandom()

let hosts: Hosts

beforeAll(() => {
  hosts = new Hosts()
})

afterAll(async () => hosts[Symbol.asyncDispose]())

const { stateOf, filesOf, expectNothingOf } = traces(() => hosts)

/** Starts an agent again where one was. */
const restart = (host: string, env: Record<string, string> = {}) => hosts.add(host, env)

describe('what a killed agent leaves behind', () => {
  let c: EphemeralAgent

  test('sockets, memory and half a directory are not in the way', async () => {
    c = await hosts.add('c')
    await c.client.run({ ...idle, name: 'kept' })
    await c.client.run({ ...idle, name: 'garbled' })
    const [kept, garbled, ghost] = ['kept', 'garbled', 'ghost'].map((name) => filesOf('c', name)) as [
      GuestFiles,
      GuestFiles,
      GuestFiles,
    ]
    const before = await c.client.guest('kept')
    await killHost(c)
    expect(existsSync(join(stateOf('c'), 'api.sock'))).toBe(true)
    mkdirSync(ghost.directory)
    writeFileSync(ghost.ram, 'old')
    writeFileSync(ghost.qmp, 'not even a socket')
    mkdirSync(join(stateOf('c'), 'guests', 'lost+found'))
    writeFileSync(garbled.record, '{"format":1,"na')

    c = await restart('c')
    expect(await c.client.guest('kept')).toMatchObject({ state: 'Running', pid: before.pid })
    expect(await runState(kept)).toBe('running')
    await expect(c.client.guest('ghost')).rejects.toMatchObject({ code: 'GUEST_UNKNOWN' })
    expectNothingOf('c', 'ghost')
    expect(await c.client.guest('garbled')).toMatchObject({
      state: 'Failed',
      reason: expect.stringMatching(/its record .*guest\.json is damaged/),
    })
    // Its QEMU may still run, and does.
    await expect(c.client.run({ ...idle, name: 'garbled' })).rejects.toMatchObject({
      code: 'GUEST_EXISTS',
      message: expect.stringMatching(/subpage remove garbled/),
    })
    expect(processesWith(garbled.ram)).toHaveLength(1)
    await c.client.remove('garbled')
    await expect.poll(() => processesWith(garbled.ram)).toEqual([])
    expectNothingOf('c', 'garbled')
  })

  test('a guest that was just being started is there whole, or not at all', async () => {
    const files = filesOf('c', 'hasty')
    for (let n = 0; n < 4; n++) {
      const asked = c.client.run({ ...idle, name: 'hasty' }).catch(({ code }) => code)
      await new Promise((resolve) => setTimeout(resolve, random.integer(0, 250)))
      await killHost(c)
      await asked
      c = await restart('c')
      // Not there, as if nobody had asked.
      const found = await c.client.guest('hasty').catch(() => undefined)
      if (found) {
        expect(found, `seed ${random.seed}`).toMatchObject({ state: 'Running' })
        expect(await runState(files)).toBe('running')
        await c.client.remove('hasty')
      }
      await expect.poll(() => processesWith(files.ram), { message: `seed ${random.seed}` }).toEqual([])
      expectNothingOf('c', 'hasty')
    }
  })

  test('a QEMU that hangs does not keep the others waiting, and can be removed', {
    timeout: 90_000,
  }, async () => {
    await c.client.run({ ...idle, name: 'hung' })
    const { pid } = await c.client.guest('hung')
    await killHost(c)
    await standStill(pid ?? Number.NaN)
    c = await restart('c')
    expect(await c.client.guest('hung')).toMatchObject({
      state: 'Hung',
      reason: expect.stringMatching(/gives no answer/),
    })
    expect(await c.client.guest('kept')).toMatchObject({ state: 'Running' })
    await c.client.remove('hung')
    expectNothingOf('c', 'hung')
  })

  test('what a killed test run or demo leaves is swept', async () => {
    const lost = new Hosts()
    const agent = await lost.add('x')
    await agent.client.run({ ...idle, name: 'orphan' })
    await killHost(agent)
    const mounted = join(lost.directory, 'x', 'mounted')
    mkdirSync(mounted)
    execFileSync('mount', ['-t', 'tmpfs', 'subpage-test', mounted])
    const { ram } = guestFiles(join(lost.directory, 'x'), 'orphan')
    expect(await sweepOwnedDirectories(['subpage-test-'])).not.toContain(basename(lost.directory))
    expect(processesWith(ram)).toHaveLength(1)
    // As if another process had owned it, and were gone.
    writeFileSync(join(lost.directory, 'owner'), JSON.stringify({ pid: process.pid, startTime: '1' }))
    expect(await sweepOwnedDirectories(['subpage-test-'])).toContain(basename(lost.directory))
    expect([existsSync(lost.directory), existsSync(ram), processesWith(ram)]).toEqual([false, false, []])
  })

  test('SIGTERM: guests run on', async () => {
    const { pid } = await c.client.guest('kept')
    await endHost(c, 'SIGTERM')
    expect(c.process.exitCode).toBe(0)
    expect(existsSync(join(stateOf('c'), 'api.sock'))).toBe(false)
    expect(await runState(filesOf('c', 'kept'))).toBe('running')
    c = await restart('c')
    expect(await c.client.guest('kept')).toMatchObject({ state: 'Running', pid })
    await c.client.remove('kept')
  })
})
