/**
 * The plugin inside a real QEMU, with two vCPUs: each changed line was seen being written, and the models agree with the
 * exact record of accesses.
 */
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  askVictim,
  type Console,
  consoleAt,
  demoGuestOptions,
  untilConsole,
  victimLines,
} from '../../src/qemu/demo-guest.ts'
import { lineCount, readTrace } from '../../src/study/trace.ts'
import { Hosts, ramBytes } from '../support/hosts.ts'
import { subpage } from '../support/subpage.ts'

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

test('recorded with lines: what changed was seen being written, and silent stores too', async () => {
  expect(await record('--for', '0.3s', '--epoch', '20ms', '--tracker', 'lines')).toMatchObject({ status: 0 })
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
  expect(written).toBeLessThan(1.5 * changed)
  expect(await askVictim(console)).toBe(true)
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

test('what cannot be tracked is said', async () => {
  const other = { name: 'other', ramBytes, options: [] as string[] }
  await expect(a.client.run({ ...other, accel: 'kvm', track: ['lines'] })).rejects.toThrow(/--accel tcg/)
  other.options = ['-machine', 'microvm']
  await expect(a.client.run({ ...other, accel: 'tcg', track: ['lines'] })).rejects.toThrow(/type microvm/)
  const said = await subpage(['run', 'x', '--track', 'loads', '--state', state])
  expect(said.said).toMatch(/cannot track "loads": choose of lines, pml, prl, accesses/)
})
