/**
 * Recording a real guest: the trace holds what the guest did, a protected guest keeps its marks, and the guest runs on as if
 * nobody had watched.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { applySync } from 'subpage/delta/apply'
import { dataPages } from 'subpage/memory/data-pages'
import { PageRanges } from 'subpage/memory/page-ranges'
import { Region } from 'subpage/memory/region'
import { askVictim, type Console, readConsole, typeLine, untilConsole } from 'subpage/qemu/demo-guest'
import { guestFiles } from 'subpage/qemu/guest-files'
import { PauseLease } from 'subpage/qemu/pause-lease'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Hosts, protect, ramBytes, startVictim } from '../../../test/support/hosts.ts'
import { mainFile, subpage } from '../../../test/support/subpage.ts'
import { openVm } from '../../src/record/vm-target.ts'
import { lineCount, readTrace, type TraceEpoch } from '../../src/trace.ts'

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

/** Says it on the guest's console, and waits for the answer. */
async function ask(line: string, answer: RegExp): Promise<RegExpExecArray> {
  const from = readConsole(console).length
  await typeLine(console, line)
  return await untilConsole(console, from, (text) => answer.exec(text) ?? undefined, 60_000)
}

/**
 * `workset` writes one line of every other page of its memory in each period, only reads the pages between, and lets the rest of each area
 * lie; it says where in the machine's memory they are. The victim stands meanwhile. What else is written is the guest's kernel's, and
 * what `workset` and the kernel need to run it: timers, run queues, stacks, page tables, `counted_in`.
 */
test("a program with known writes under the guest's kernel: these lines of these pages, and little else", async () => {
  await ask('run killall -STOP victim', /exit 0/)
  const options = 'mib=2 mode=mixed order=strided:2 period_ms=20 report_ms=100000 frames=1'
  const [, said] = await ask(
    `run workset ${options} >/dev/ttyS0 & echo started`,
    /workset frames=([0-9a-f,]+)\n(?:.*\n)*workset ready/,
  )
  const frames = said!.split(',').map((frame) => Number.parseInt(frame, 16))
  expect(new Set(frames).size).toBe(1024)
  for (const tracker of ['userfault', 'compare']) {
    const finished = await record(
      'vm:web',
      '--for',
      '1s',
      '--epoch',
      '100ms',
      '--force',
      '--tracker',
      tracker,
    )
    expect(finished).toMatchObject({ status: 0 })
    const lines = new Map<number, bigint>()
    for (const { dirty, changedMaps } of readTrace(traceFile).epochs())
      for (const [index, page] of [...dirty.pages()].entries()) {
        const of = BigInt(changedMaps[2 * index]!) | (BigInt(changedMaps[2 * index + 1]!) << 32n)
        lines.set(page, (lines.get(page) ?? 0n) | of)
      }
    // Page 2i of its memory is used in the period's step i, each odd step writes.
    const expected = frames.flatMap((frame, at): [number, bigint][] =>
      at % 4 === 2 ? [[frame, 1n << BigInt((at / 2) % 64)]] : [],
    )
    const own = new Set(frames)
    const ofProgram = [...lines].filter(([page]) => own.has(page))
    expect(new Map(ofProgram), tracker).toEqual(new Map(expected))
    expect(lines.size - ofProgram.length, tracker).toBeLessThan(idlePagesMax)
    expect(everTouched([...lines.keys()]), tracker).toBe(true)
  }
  await ask('run killall workset; killall -CONT victim', /exit 0/)
  expect(await askVictim(console)).toBe(true)
})

/** Of 40,960: what a Linux of one processor writes in a second in which one program works in its own memory. */
const idlePagesMax = 200

/** Whether the RAM file holds each of the pages. What nobody has touched since the guest began is a hole there. */
function everTouched(pages: number[]): boolean {
  const fd = openSync(guestFiles(state, 'web').ram, 'r')
  const held = dataPages(fd, ramBytes)
  closeSync(fd)
  expect(held.pageCount).toBeLessThan(ramBytes / 4096)
  return PageRanges.of(pages.map((page) => [page, 1])).subtract(held).pageCount === 0
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
  // A program has died in its pause, which the guard ends.
  const dead = PauseLease.open(guestFiles(state, 'web').lease)
  dead.acquire(500)
  await protect(a, 'web', b)
  dead.close()
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
