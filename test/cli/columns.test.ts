/** What people read fits in 80 columns, and breaks between words. The report of `check`: test/guest/host-check.test.ts. */
import { describe, expect, test } from 'vitest'
import type { HostDensityStatus } from '../../src/agent/density-status.ts'
import { type DiskStatus, diskStatus } from '../../src/agent/disk-status.ts'
import type { GuestStatus, HostStatus } from '../../src/agent/status.ts'
import { commands } from '../../src/cli/commands.ts'
import { densityTable } from '../../src/cli/density-report.ts'
import { parseCommandLine } from '../../src/cli/parse.ts'
import { details, overview, ratesText } from '../../src/cli/status-text.ts'
import { cellsOf, wrapText } from '../../src/text-layout.ts'

const columns = 80
const tooWide = (text: string) =>
  text.split('\n').filter((line) => cellsOf(line) > columns && line.trim().includes(' '))

const us = { p50: 3000, p99: 12_345, max: 32_000 }
const guest = (name: string): GuestStatus => ({
  name,
  role: 'Primary',
  verified: { at: 1.8e12, equal: true },
  seeding: { doneBytes: 2 ** 29, totalBytes: 2 ** 31, bytesPerSecond: 2 ** 28, secondsLeft: 6.2 },
  operation: null,
  state: 'Connecting',
  reason: 'the standby on host b is lost, and the arbiter does not answer: what the guest sends is held back',
  reasonCode: 'ARBITER_UNREACHABLE',
  peer: '192.0.2.10:7475',
  peerHost: null,
  ramBytes: 2 ** 30,
  auxBytes: 0,
  consoleSocket: '/run/subpage/guests/web/console.sock',
  firmware: null,
  suspended: false,
  devicesDiffer: false,
  vnc: null,
  accel: 'tcg',
  qemu: '7.2.22',
  pid: 4711,
  console: '/run/subpage/guests/web/console.log',
  disks: [],
  tracker: 'userfault',
  codec: 'masked',
  epochMs: 25,
  pauseShareMax: null,
  latencyMs: null,
  outputs: 'held',
  durability: 'memory',
  spill: null,
  memory: { shadow: 'full', shadowBytes: 2 ** 30, reducerBytes: 15e6 },
  hotPages: { now: 12_345, faultsSaved: 1_234_567_890, comparisons: 1_234_567_890 },
  fence: { on: false, silenced: 0 },
  generation: 3,
  supervisor: { process: 4712, ownBytes: 40 * 2 ** 20, loopDelayMs: 3 },
  arbiter: 'etcd:https://e1:2379,https://e2:2379,https://e3:2379',
  arbiterTrouble: null,
  epochs: {
    checkpoints: 100,
    failed: 1,
    pauseUs: us,
    ownUs: us,
    harvestUs: us,
    stopFlushUs: us,
    commitUs: us,
    gapUs: us,
    bytes: { dirtyPages: 4e8, changedLines: 4e7, sent: 1e7, final: 1e7 },
    earlyPages: 10,
    earlyPagesAgain: 1,
    cost: { pauses: 0.1234, faults: 0.0567, outputWaitMs: 123.4 },
    amplification: 11.1,
  } as unknown as GuestStatus['epochs'],
  last: null,
  shimMissing: null,
  committed: { epoch: 99, consoleBytes: 10 },
  takeover: { at: 0, ms: 44.1, reason: 'the primary and its guest are gone', epoch: 244, consoleBytes: 0 },
})
const host: HostStatus = {
  host: 'alpha',
  release: '0.1.0',
  pid: 1,
  address: '[2001:db8::4711:2]:7475',
  certificate: { name: 'alpha', validTo: '2030-01-01T00:00:00Z' },
  arbiter: { description: 'etcd', trouble: null },
  clock: { at: 1.7e12, synchronized: true },
  ownBytes: 1,
  guests: [guest('web'), { ...guest('mail'), peer: '192.0.2.11:7475' }],
}

describe('fits in 80 columns', () => {
  test.each(commands.map(({ name }) => name))('help of %s', (name) => {
    const parsed = parseCommandLine([name, '--help'], commands)
    expect(parsed.kind).toBe('shown')
    expect(tooWide(wrapText((parsed as { out: string }).out, columns))).toEqual([])
  })

  test('the list of commands', () => {
    const parsed = parseCommandLine(['help'], commands)
    expect(tooWide(wrapText((parsed as { out: string }).out, columns))).toEqual([])
  })

  test('status of a host, and of a guest', () => {
    const table = overview(host, true, columns)
    expect(tooWide(wrapText(table, columns))).toEqual([])
    // The table itself is not broken by the width.
    expect(table.split('\n').find((line) => line.startsWith('web '))).toMatch(/Connecting.*tcg +userfault/)
    expect(table).toContain('web: the standby on host b is lost')
    expect(tooWide(details(host.guests[0]!, columns))).toEqual([])
  })

  test('a quiet host needs no second line for a guest', () => {
    const quiet = { ...guest('web'), peer: '192.0.2.2:7475', reason: '', state: 'Protected' }
    expect(
      overview({ ...host, guests: [quiet] }, false, columns)
        .split('\n')
        .slice(-2),
    ).toEqual([
      expect.stringMatching(/^GUEST .*TRACKER {4}REASON$|^GUEST .*TRACKER$/),
      expect.stringMatching(/^web .*userfault$/),
    ])
  })

  test('the other host goes by its name; its address, which commands take, is with the guest', () => {
    const peer = '/tmp/subpage-0123456789/b/pair.sock'
    const named = { ...guest('web'), peer, peerHost: 'beta' }
    const table = overview({ ...host, guests: [named] }, false, columns)
    expect(table).toMatch(/^web .* beta /m)
    expect(table).not.toContain(peer)
    expect(details(named, columns)).toContain(`beta (${peer})`)
    expect(details({ ...named, peerHost: null }, columns)).toMatch(new RegExp(`peer +${peer}`))
  })

  test('a disk: what was sent of it, once anything was', () => {
    const quiet = { ...diskStatus({ name: 'data', bytes: 2 ** 30, path: '/disks/data' }, false) }
    const of = (disk: Partial<DiskStatus>) =>
      details({ ...guest('web'), disks: [{ ...quiet, state: 'Protected', ...disk }] }, columns).replace(
        /\n */g,
        ' ',
      )
    expect(of({})).toMatch(/data, 1.0 GiB, Protected, 0 B behind; .*; nothing sent yet: \/disks\/data/)
    expect(
      of({
        behindBytes: 4096,
        writtenBytes: 2 ** 21,
        equalBytes: 2 ** 20,
        sent: { ...quiet.sent, wireBytes: 2 ** 10, sharedBytes: 3 * 2 ** 18, plainBytes: 2 ** 18 },
      }),
    ).toMatch(/sent 1.0 KiB for 1.0 MiB, of which 75 % were in its memory, 0 % known, 0 % zeros/)
  })

  test('density status', () => {
    const status = {
      guests: [
        {
          name: 'web',
          standby: true,
          settings: { targetBytes: 2 ** 29, trustDomain: 'shop' },
          split: { resident: 9999, filled: 9999, shared: 9, patched: 9, packed: 9, whole: 9, swapped: 9 },
          savedBytes: 5e8,
          savedShare: 0.5,
          pager: null,
        },
      ],
      store: null,
      error: '',
    } as unknown as HostDensityStatus
    expect(tooWide(densityTable(status, columns))).toEqual([])
  })
})

test('rates are of the time between two looks, and of one protection', () => {
  const [then, now] = [guest('web'), structuredClone(guest('web'))]
  now.epochs!.checkpoints += 80
  now.epochs!.bytes.sent += 2 ** 21
  expect(ratesText(now, then, 2000)).toBe(
    'web: 40.0 checkpoints/s, dirty pages 0 B/s, changed lines 0 B/s, sent 1.0 MiB/s',
  )
  expect(ratesText(then, now, 2000)).toBeUndefined()
  expect(ratesText(now, undefined, 2000)).toBeUndefined()
})
