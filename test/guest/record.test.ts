/**
 * Recording a real guest: the trace holds what the guest did, a protected guest keeps its marks, and the guest runs on as if
 * nobody had watched.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { applySync } from '../../src/delta/apply.ts'
import { Region } from '../../src/memory/region.ts'
import { askVictim, type Console } from '../../src/qemu/demo-guest.ts'
import { openVm } from '../../src/study/record/vm-target.ts'
import { lineCount, readTrace, type TraceEpoch } from '../../src/study/trace.ts'
import { Hosts, protect, ramBytes, startVictim } from '../support/hosts.ts'
import { mainFile, subpage } from '../support/subpage.ts'

const hosts = new Hosts()
const state = join(hosts.directory, 'a')
const traceFile = join(hosts.directory, 'guest.trace')
let a: Awaited<ReturnType<Hosts['add']>>
let console: Console

beforeAll(async () => {
  a = await hosts.add('a')
  ;({ console } = await startVictim(a, 'web'))
})
afterAll(() => hosts[Symbol.asyncDispose]())

const record = (...args: string[]) => subpage(['record', ...args, '--state', state, '-o', traceFile])

test('a recording with content holds every page as it was; the guest is whole afterwards', async () => {
  const finished = await record('vm:web', '--for', '0.3s', '--epoch', '10ms', '--content', '--json')
  expect(finished).toMatchObject({ status: 0 })
  const trace = readTrace(traceFile)
  expect(trace.header).toMatchObject({
    target: { kind: 'vm', name: 'web' },
    tracker: 'userfault',
    epochUs: 10_000,
    memoryBytes: ramBytes,
    content: true,
  })
  expect(trace.areas()).toEqual([{ firstPage: 0, pageCount: ramBytes / 4096, address: 0, name: 'ram' }])
  const end = trace.end()
  expect(end.cause).toBe('time')
  expect(JSON.parse(finished.out)).toMatchObject({ epochs: end.epochCount, path: traceFile })
  using memory = Region.anonymous(ramBytes)
  for (const delta of trace.base()) applySync(memory, delta)
  let [dirtyPages, changedLines] = [0, 0]
  for (const epoch of trace.epochs()) {
    expect(epoch.lengthUs).toBeGreaterThan(0)
    dirtyPages += epoch.dirty.pageCount
    changedLines += changesAreThose(epoch, memory)
  }
  expect(dirtyPages).toBeGreaterThan(250)
  expect(changedLines).toBeGreaterThan(dirtyPages / 4)
  expect(await askVictim(console)).toBe(true)
})

/** Applies an epoch's content and holds its maps and counts against what that changed. Returns its changed lines. */
function changesAreThose(epoch: TraceEpoch, memory: Region): number {
  const before = [...epoch.dirty.pages()].map((page) => memory.read(page * 4096, 4096))
  for (const delta of epoch.content!) applySync(memory, delta)
  let lines = 0
  for (const [index, page] of [...epoch.dirty.pages()].entries()) {
    const after = memory.read(page * 4096, 4096)
    const map = [0, 0]
    let bytes = 0
    for (let at = 0; at < 4096; at++)
      if (after[at] !== before[index]![at]) {
        bytes++
        const line = at >>> 6
        map[line >>> 5]! |= 1 << (line & 31)
      }
    expect([...epoch.changedMaps.subarray(2 * index, 2 * index + 2)]).toEqual(map.map((word) => word >>> 0))
    expect(epoch.changedBytes[index]).toBe(bytes)
    lines += lineCount(epoch.changedMaps, index)
  }
  return lines
}

test('an interrupted recording is whole', async () => {
  const child = spawn(process.execPath, [
    ...[mainFile, 'record', 'vm:web', '--state', state],
    ...['-o', traceFile, '--force', '--tracker', 'compare', '--epoch', '20ms'],
  ])
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    said += text
    if (/ [1-9]\d* epochs/.test(said)) child.kill('SIGINT')
  })
  const [status] = await once(child, 'close')
  expect(status).toBe(0)
  expect(readTrace(traceFile).end()).toMatchObject({ cause: 'interrupted' })
  expect(readTrace(traceFile).header.tracker).toBe('compare')
})

test('a recorder that is killed leaves the guest running', async () => {
  const child = spawn(process.execPath, [
    ...[mainFile, 'record', 'vm:web', '--state', state],
    ...['-o', traceFile, '--force', '--epoch', '1ms'],
  ])
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    said += text
    if (/ [1-9]\d* epochs/.test(said)) child.kill('SIGKILL')
  })
  await once(child, 'close')
  const part = readTrace(`${traceFile}.part`)
  expect(part.end().cause).toBe('cut-short')
  expect([...part.epochs()].length).toBe(part.end().epochCount)
  // Within the lease the guard inside QEMU resumes it.
  expect(await askVictim(console)).toBe(true)
})

test('a protected guest is recorded beside its protection, which keeps every write', async () => {
  const b = await hosts.add('b')
  await protect(a, 'web', b)
  const finished = await record('vm:web', '--for', '0.3s', '--epoch', '50ms', '--force')
  expect(finished).toMatchObject({ status: 0 })
  const { header } = readTrace(traceFile)
  expect(header.tracker).toBe('compare')
  expect(header.notes.join(' ')).toMatch(/not paused.*another program reads/)
  expect(await a.client.verify('web')).toMatchObject({ equal: true })
  await a.client.unprotect('web')
})

test('what cannot be recorded is said, and no file is left', async () => {
  await expect(openVm(state, 'nobody', 'auto')).rejects.toThrow(/no guest nobody/)
  await expect(openVm(state, '../x', 'auto')).rejects.toThrow(/cannot be a guest name/)
  rmSync(traceFile, { force: true })
  expect((await record('vm:web', '--for', 'soon')).said).toMatch(/is not a time/)
  expect((await record('web:80')).said).toMatch(/"web:80" is no target/)
  expect(existsSync(traceFile)).toBe(false)
  const kept = readFileSync(console.log)
  const finished = await subpage(['record', 'vm:web', '--state', state, '-o', console.log])
  expect(finished.said).toMatch(/exists/)
  expect(readFileSync(console.log).subarray(0, kept.length)).toEqual(kept)
})
