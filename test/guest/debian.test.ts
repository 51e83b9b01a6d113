/**
 * A whole Debian, started by firmware and grub from its own disk, with systemd, a screen, PostgreSQL and SQLite, loses its QEMU twice under
 * the load of clients outside. No row that they were told of is lost, no connection breaks, and databases and file system are whole.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DebianPair } from '../support/debian-pair.ts'

let pair: DebianPair

beforeAll(async () => {
  pair = await DebianPair.start()
  // Where it is built first.
}, 900_000)

afterAll(async () => pair?.[Symbol.asyncDispose]())

test('clients of its databases outlast two failovers, and all is whole', { timeout: 500_000 }, async () => {
  await pair.protect()
  await pair.load()
  for (const kind of ['QEMU', 'supervisor and QEMU'] as const) {
    const outcome = await pair.kill(kind)
    console.log(JSON.stringify(outcome))
    expect(outcome).toMatchObject({ problems: [] })
    // Of something else than one colour.
    expect((await pair.screen()).length).toBeGreaterThan(1000)
  }
  // Its time of day stands still with it; the clock that a battery feeds is right on either host.
  const { rtcBehindMs } = await pair.clocks()
  await pair.setClock()
  const { behindMs } = await pair.clocks()
  for (const ms of [rtcBehindMs, behindMs]) expect(Math.abs(ms)).toBeLessThan(5_000)
  expect(await pair.end()).toEqual([])
})
