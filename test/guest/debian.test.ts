/**
 * A whole Debian, started by firmware and grub from its own disk, with systemd, a screen, PostgreSQL and SQLite, loses its QEMU twice under
 * the load of clients outside; started by `subpage run`, and as a domain of libvirt that virt-install has made. No row that they were told
 * of is lost, no connection breaks, and databases and file system are whole.
 */
import { expect, test } from 'vitest'
import { managers } from '../support/debian-hosts.ts'
import { DebianPair } from '../support/debian-pair.ts'

// The guest is built first where it is missing.
test.each(managers)(
  'clients of its databases outlast two failovers, and all is whole: by %s',
  { timeout: 1_200_000 },
  async (manager) => {
    await using pair = await DebianPair.start(manager)
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
  },
)
