/**
 * The plugin inside a real QEMU, with two vCPUs: each changed line was seen being written, and the models agree with the
 * exact record of accesses.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { PageRanges } from 'subpage/memory/page-ranges'
import { Region } from 'subpage/memory/region'
import {
  askVictim,
  type Console,
  consoleAt,
  consoleLength,
  demoGuestOptions,
  typeLine,
  untilConsole,
  victimLines,
} from 'subpage/qemu/demo-guest'
import { guestFiles } from 'subpage/qemu/guest-files'
import { Qmp } from 'subpage/qemu/qmp'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Hosts, protect, ramBytes } from '../../../test/support/hosts.ts'
import { subpage } from '../../../test/support/subpage.ts'
import { openExact } from '../../src/plugin/exact.ts'
import { openLines } from '../../src/plugin/lines.ts'
import { openPml } from '../../src/plugin/pml.ts'
import { loggedMoreThan, openPrl } from '../../src/plugin/prl.ts'
import { PluginShare } from '../../src/plugin/share.ts'
import { lineCount, readTrace } from '../../src/trace.ts'

const hosts = new Hosts()
const state = join(hosts.directory, 'a')
const traceFile = join(hosts.directory, 'guest.trace')
let a: Awaited<ReturnType<Hosts['add']>>
let console: Console

beforeAll(async () => {
  a = await hosts.add('a')
  const status = await a.client.run({
    name: 'seen',
    ramBytes,
    accel: 'auto',
    track: ['lines', 'pml', 'prl', 'accesses'],
    options: [...demoGuestOptions([]), '-smp', '2'],
  })
  expect(status.accel).toBe('tcg')
  console = consoleAt(status.console)
  await untilConsole(console, 0, (text) => victimLines(text)[0], 120_000)
})
afterAll(() => hosts[Symbol.asyncDispose]())

const record = (...args: string[]) =>
  subpage(['record', 'vm:seen', ...args, '--force', '--state', state, '-o', traceFile])

/** Runs `look` while the guest stands still. */
async function paused<T>(name: string, look: () => T): Promise<T> {
  const qmp = await Qmp.connect(guestFiles(state, name).observerQmp)
  try {
    await qmp.run('stop')
    const seen = look()
    await qmp.run('cont')
    return seen
  } finally {
    qmp.close()
  }
}

test('stores across lines and pages are seen whole, and all parts tell of the same pages', async () => {
  const from = consoleLength(console)
  await typeLine(console, 'run workset mib=1 order=straddling period_ms=20 >/dev/ttyS0 &')
  await untilConsole(console, from, (text) => /workset ready/.exec(text) ?? undefined, 60_000)
  using share = PluginShare.open(guestFiles(state, 'seen').accesses)
  await share.untilActive()
  const [lines, pml, prl, exact] = [openLines(share), openPml(share), openPrl(share), openExact(share)]
  const harvest = () => {
    const pages = lines.pages()
    return { pages, maps: lines.take(pages), pml: pml.harvest(), prl: prl.harvest(), exact: exact.harvest() }
  }
  await paused('seen', harvest)
  const said = consoleLength(console)
  await untilConsole(console, said, (text) => /workset periods=/.exec(text) ?? undefined, 60_000)
  const { pages, maps, ...models } = await paused('seen', harvest)
  // Silent stores: lines 0, 31, 32 and 63 of all its pages but the first and the one after the last.
  let across = 0
  for (let page = 0; page < pages.pageCount; page++)
    if (maps[2 * page] === 0x80000001 && maps[2 * page + 1] === 0x80000001) across++
  expect(across).toBeGreaterThanOrEqual(255)
  expect(across).toBeLessThan(300)
  const list = (some: PageRanges) => [...some]
  expect(list(models.pml.pages)).toEqual(list(pages))
  expect(list(models.exact.written)).toEqual(list(pages))
  expect(list(loggedMoreThan(0, models.prl.counts))).toEqual(list(pages.union(models.exact.read)))
  expect(models.exact.read.pageCount).toBeGreaterThan(pages.pageCount)
  expect(share.unknown).toBe(0)
  expect(() => PluginShare.open(guestFiles(state, 'seen').accesses)).toThrow(/another program reads/)
})

test('recorded with lines: what changed was seen being written, and silent stores too', async () => {
  expect(await record('--for', '1s', '--epoch', '20ms', '--tracker', 'lines')).toMatchObject({ status: 0 })
  const trace = readTrace(traceFile)
  expect(trace.header).toMatchObject({ tracker: 'lines', written: true })
  expect(trace.header.notes.join(' ')).toMatch(/DMA.*found with userfault/)
  let [changed, written] = [0, 0]
  for (const epoch of trace.epochs())
    for (let page = 0; page < epoch.dirty.pageCount; page++) {
      changed += lineCount(epoch.changedMaps, page)
      written += lineCount(epoch.writtenMaps!, page)
    }
  expect(changed).toBeGreaterThan(5000)
  expect(written).toBeGreaterThan(changed)
  expect(written).toBeLessThan(3 * changed)
  const report = await subpage(['report', traceFile, '--json'])
  expect(JSON.parse(report.out)).toMatchObject({ changedLines: changed, writtenLines: written })
  expect((await subpage(['report', traceFile])).out).toMatch(/Silent lines +\d/)
  expect(await askVictim(console)).toBe(true)
})

test('a guest with the plugin is protected as any other, and recorded beside its protection', async () => {
  const b = await hosts.add('b')
  await protect(a, 'seen', b)
  expect(await record('--for', '0.3s', '--epoch', '50ms', '--tracker', 'lines')).toMatchObject({ status: 0 })
  const { header } = readTrace(traceFile)
  expect(header).toMatchObject({ tracker: 'lines', written: true })
  expect(header.notes.join(' ')).toMatch(/not paused.*missing from this recording.*another program reads/)
  expect(await a.client.verify('seen')).toMatchObject({ equal: true })
  await a.client.unprotect('seen')
})

test('recorded with pml and prl: their counters are those of the guest', async () => {
  for (const tracker of ['pml', 'prl']) {
    const args = ['--for', '0.3s', '--epoch', '50ms', '--tracker', tracker]
    expect(await record(...args)).toMatchObject({ status: 0 })
    const trace = readTrace(traceFile)
    expect(trace.header.tracker).toBe(tracker)
    for (const { dirty, counters } of trace.epochs()) {
      const { logged = 0, logFull128 = 0, logFull512 = 0 } = counters
      // Two vCPUs have a log each, and none is full while it has room.
      expect(logFull128).toBeLessThanOrEqual(Math.floor(logged / 128))
      expect(logFull128).toBeGreaterThanOrEqual(Math.ceil(logged / 128) - 2)
      expect(logFull512).toBeLessThanOrEqual(logFull128)
      if (tracker === 'pml') expect(dirty.pageCount).toBeGreaterThanOrEqual(logged)
      else expect(counters.accessedPages).toBeGreaterThanOrEqual(dirty.pageCount)
    }
  }
})

test('memory above 4 GiB: the marks are where the data is', async () => {
  await a.client.remove('seen')
  // From 2.75 GiB on q35 has 2 GiB below the hole.
  const bytes = 2816 * 2 ** 20
  const status = await a.client.run({
    ...{ name: 'large', ramBytes: bytes, accel: 'tcg', track: ['lines'] },
    options: demoGuestOptions([]),
  })
  console = consoleAt(status.console)
  await untilConsole(console, 0, (text) => victimLines(text)[0], 120_000)
  const files = guestFiles(state, 'large')
  using share = PluginShare.open(files.accesses)
  using ram = Region.map(files.ram, { writable: false })
  await share.untilActive()
  const from = consoleLength(console)
  await untilConsole(console, from, (text) => victimLines(text).at(20), 60_000)
  const pages = [...openLines(share).pages().pages()]
  const victims = pages.filter(
    (page) => Buffer.from(ram.read(page * 4096, 8)).toString('latin1') === 'SUBPGVIC',
  )
  expect(victims.length).toBeGreaterThan(100)
  expect(victims.filter((page) => page * 4096 >= 2 ** 31).length).toBeGreaterThan(100)
  expect(pages.length).toBeLessThan(5000)
  await a.client.remove('large')
  expect(existsSync(files.accesses)).toBe(false)
})

test('what cannot be tracked is said', async () => {
  const other = { name: 'other', ramBytes, options: [] as string[] }
  await expect(a.client.run({ ...other, accel: 'kvm', track: ['lines'] })).rejects.toThrow(/--accel tcg/)
  other.options = ['-machine', 'microvm']
  await expect(a.client.run({ ...other, accel: 'tcg', track: ['lines'] })).rejects.toThrow(/type microvm/)
  const said = await subpage(['run', 'x', '--track', 'loads', '--state', state])
  expect(said.said).toMatch(/cannot track "loads": choose of lines, pml, prl, accesses/)
})
