/**
 * Processes are recorded exactly, and do not feel it: what the trace holds is what the process has in memory, and a process
 * that verifies itself all the time finds nothing, whatever happens to the recorder.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { applySync } from 'subpage/delta/apply'
import { packageRoot } from 'subpage/memory/native'
import { pageBytes } from 'subpage/memory/page'
import { Region } from 'subpage/memory/region'
import type { TrackerChoice } from 'subpage/tracking/tracker'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { summarize } from '../../src/analysis/summary.ts'
import type { Watched } from '../../src/record/process/holder.ts'
import { openProcess } from '../../src/record/process/process-target.ts'
import { record } from '../../src/record/recorder.ts'
import type { RecordTarget } from '../../src/record/target.ts'
import { readTrace, type Trace } from '../../src/trace.ts'
import { buildVictim, countHolds, ended, memoryOf, type Stepper, startStepper, tracesOn } from './victim.ts'

let folder: string
let victim: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-process-'))
  victim = buildVictim(folder)
})
afterAll(() => rmSync(folder, { recursive: true }))

const undo: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
})

async function stepper(pages: number): Promise<Stepper> {
  const started = await startStepper(victim, pages)
  undo.push(() => started.end())
  return started
}

interface Recording {
  target: RecordTarget
  trace: Trace
  summary: Awaited<ReturnType<typeof record>>
}

/** Records while `doing` runs, and ends when it has. */
async function recording(
  watched: Watched,
  doing: (target: RecordTarget, holds: () => number) => Promise<void>,
  { choice = 'userfault', epochMs = 5 }: { choice?: TrackerChoice; epochMs?: number } = {},
): Promise<Recording> {
  const target = await openProcess(watched, choice)
  const holds = countHolds(target)
  const path = join(folder, 'trace')
  const enough = new AbortController()
  try {
    const recorded = record(target, {
      path,
      replace: true,
      epochMs,
      forMs: undefined,
      content: true,
      signal: enough.signal,
      progress: () => undefined,
    })
    await expect.poll(holds).toBeGreaterThan(0)
    await doing(target, holds)
    enough.abort()
    const summary = await recorded
    return { target, trace: readTrace(path), summary }
  } finally {
    await target.close()
  }
}

/** The memory at `address` as the trace has it at its end. */
function rebuilt(trace: Trace, address: number, pages: number): Buffer {
  const areas = trace.areas()
  const total = Math.max(...areas.map(({ firstPage, pageCount }) => firstPage + pageCount))
  using image = Region.anonymous(total * pageBytes)
  for (const delta of trace.base()) applySync(image, delta)
  for (const { content = [] } of trace.epochs()) for (const delta of content) applySync(image, delta)
  const found = Buffer.alloc(pages * pageBytes)
  for (const area of areas) {
    const from = Math.max(area.address, address)
    const to = Math.min(area.address + area.pageCount * pageBytes, address + pages * pageBytes)
    if (from >= to) continue
    const bytes = image.read(area.firstPage * pageBytes + from - area.address, to - from)
    found.set(bytes, from - address)
  }
  return found
}

test.each(['userfault', 'compare'] as const)('%s: the trace holds what the process wrote', async (choice) => {
  const process = await stepper(300)
  let memory: Buffer = Buffer.alloc(0)
  const { trace, summary } = await recording(
    { pid: process.pid },
    async () => {
      for (let i = 0; i < 20; i++) await process.run('write 40')
      await process.run('grow 500')
      for (let i = 0; i < 20; i++) await process.run('write 100')
      memory = process.memory(800)
    },
    { choice },
  )
  expect(trace.header).toMatchObject({ tracker: choice, target: { kind: 'pid' }, content: true })
  expect(rebuilt(trace, process.address, 800).equals(memory)).toBe(true)
  expect(summary.changedLines).toBeGreaterThan(1000)
  expect(trace.end().cause).toBe('interrupted')
})

test('dirty pages are those that were written, changed or not', async () => {
  const process = await stepper(64)
  const { trace } = await recording({ pid: process.pid }, async () => {
    await process.run('same 64')
  })
  const area = trace
    .areas()
    .find(
      ({ address, pageCount }) =>
        address <= process.address && process.address < address + pageCount * pageBytes,
    )!
  const first = area.firstPage + (process.address - area.address) / pageBytes
  let silent = 0
  for (const { dirty, changedBytes } of trace.epochs()) {
    let at = 0
    for (const page of dirty.pages()) {
      if (page >= first && page < first + 64) {
        expect(changedBytes[at]).toBe(0)
        silent++
      }
      at++
    }
  }
  expect(silent).toBeGreaterThanOrEqual(64)
})

test('a process that was let go is as it was', async () => {
  const process = await stepper(100)
  await process.run('write 5')
  const before = tracesOn(process.pid)
  await recording({ pid: process.pid }, async () => {
    await process.run('write 5')
    expect(tracesOn(process.pid).registered).toBeGreaterThan(0)
    expect(tracesOn(process.pid).tracer).toBeGreaterThan(0)
  })
  expect(tracesOn(process.pid)).toEqual(before)
  await process.run('write 5')
})

test('a command is recorded from its first instruction to its end, and verifies itself', async () => {
  const { summary, trace } = await untilEnded({ command: [victim, 'work', '700'] }, 2)
  expect(summary).toMatchObject({ cause: 'target-ended', endedHow: 'it exited with status 0' })
  expect(trace.end().cause).toBe('target-ended')
  expect(summary.epochs).toBeGreaterThan(5)
  expect(summary.held!.startUs).toBe(0)
  const names = trace.areas().map(({ name }) => name)
  expect(names).toContain('[stack]')
  // Its large array is in memory that the program did not have when it began.
  expect(summary.dirtyPages).toBeGreaterThan(400)
})

test('what recording costs the process is measured and said', async () => {
  const process = await stepper(20_000)
  const { trace, summary } = await recording({ pid: process.pid }, async () => {
    for (let i = 0; i < 10; i++) await process.run('write 2000')
  })
  const pauses = [...trace.epochs()].map(({ pauseUs }) => pauseUs)
  const { share, longestUs, startUs } = summary.held!
  expect(Math.round(longestUs)).toBe(Math.max(...pauses))
  expect(share).toBeGreaterThan(0)
  expect(share).toBeLessThan(1)
  expect(startUs).toBeGreaterThan(0)
  expect(trace.notes()).toContainEqual(expect.stringMatching(/^The target was held for .* at the start\.$/))
  expect(summarize(trace).held!.longestUs).toBe(Math.max(...pauses))
})

async function untilEnded(watched: Watched, epochMs: number) {
  const target = await openProcess(watched, 'userfault')
  const path = join(folder, 'ended.trace')
  try {
    const summary = await record(target, {
      path,
      replace: true,
      epochMs,
      forMs: undefined,
      content: false,
      signal: new AbortController().signal,
      progress: () => undefined,
    })
    return { summary, trace: readTrace(path) }
  } finally {
    await target.close()
  }
}

test('a running process with threads, timers and signals verifies itself while it is recorded', async () => {
  const child = await worker()
  const { summary, trace } = await recording(
    { pid: child.pid! },
    async (_, holds) => {
      await expect.poll(holds).toBeGreaterThan(50)
      child.stdin!.end()
      expect(await ended(child)).toBe(0)
    },
    { epochMs: 1 },
  )
  expect(summary).toMatchObject({ cause: 'target-ended', endedHow: 'it exited with status 0' })
  expect(trace.end().epochCount).toBeGreaterThan(40)
})

test('another program in its place: what the former wrote last is marked as lost, the new one is recorded', async () => {
  const process = await stepper(200)
  let memory: Buffer = Buffer.alloc(0)
  const { trace, summary } = await recording({ pid: process.pid }, async () => {
    await process.run('write 50')
    // It prints its pid and address anew in place of an answer.
    await process.run('exec 0')
    await process.run('write 50')
    memory = memoryOf(process.pid, addressNow(process.pid), 200)
  })
  expect(rebuilt(trace, addressNow(process.pid), 200).equals(memory)).toBe(true)
  const gaps = [...trace.epochs()].flatMap(({ gapBefore }) =>
    gapBefore?.cause === 'lost' ? [gapBefore] : [],
  )
  expect(gaps).toHaveLength(1)
  expect(gaps[0]!.reason).toMatch(/executed another program/)
  expect(summary.gaps).toBeGreaterThanOrEqual(1)
})

/** Where `steps` has its buffer: the only mapping of 200 readable pages before a reserve. */
function addressNow(pid: number): number {
  for (const line of readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')) {
    const [range = '', permissions] = line.split(' ')
    const [start, end] = range.split('-').map((hex) => Number.parseInt(hex, 16)) as [number, number]
    if (permissions === 'rw-p' && end - start === 200 * pageBytes) return start
  }
  throw new Error('no buffer')
}

test('a process that waits in the kernel: epochs go on, nothing is lost', async () => {
  const process = await stepper(100)
  let memory: Buffer = Buffer.alloc(0)
  const { trace } = await recording(
    { pid: process.pid },
    async (_, holds) => {
      await process.run('write 30')
      const before = holds()
      await process.run('wait 300')
      expect(holds() - before).toBeGreaterThan(3)
      await process.run('write 30')
      memory = process.memory(100)
    },
    { epochMs: 10 },
  )
  expect(rebuilt(trace, process.address, 100).equals(memory)).toBe(true)
})

test('a process that dies', async () => {
  const child = await worker()
  const { summary } = await recording({ pid: child.pid! }, async () => {
    child.kill('SIGKILL')
    await ended(child)
  })
  expect(summary).toMatchObject({ cause: 'target-ended', endedHow: 'it was killed by SIGKILL' })
})

/** Works until its input ends. */
async function worker(): Promise<ChildProcess> {
  const child = spawn(victim, ['work', '0'], { stdio: ['pipe', 'ignore', 'inherit'] })
  undo.push(() => void child.kill('SIGKILL'))
  await expect.poll(() => readdirSync(`/proc/${child.pid}/task`).length).toBeGreaterThan(6)
  return child
}

test.each(['SIGKILL', 'SIGINT'] as const)('the recorder gets %s: the process goes on', async (signal) => {
  const child = await worker()
  const recorder = spawn(
    process.execPath,
    [
      join(packageRoot, 'dist/src/cli/main.js'),
      'record',
      `pid:${child.pid}`,
      '--epoch',
      '1ms',
      '--force',
      '-o',
      join(folder, signal),
    ],
    { stdio: 'ignore' },
  )
  await expect.poll(() => tracesOn(child.pid!).registered).toBeGreaterThan(0)
  recorder.kill(signal)
  await ended(recorder)
  expect(recorder.signalCode).toBe(signal === 'SIGKILL' ? signal : null)
  await expect.poll(() => tracesOn(child.pid!).tracer).toBe(0)
  expect(tracesOn(child.pid!)).toMatchObject({ registered: 0, stopped: false })
  child.stdin!.end()
  expect(await ended(child)).toBe(0)
})

test('refusals say why, and the process goes on', async () => {
  const stepped = await stepper(50)
  await expect(openProcess({ pid: process.pid }, 'auto')).rejects.toMatchObject({
    code: 'BAD_ARGUMENT',
    message: expect.stringMatching(/is this one/),
  })
  await expect(openProcess({ pid: 2 ** 22 + 1 }, 'auto')).rejects.toMatchObject({
    code: 'BAD_ARGUMENT',
    message: expect.stringMatching(/no process/),
  })
  await expect(openProcess({ command: ['/no/such/program'] }, 'auto')).rejects.toMatchObject({
    code: 'BAD_ARGUMENT',
    message: expect.stringMatching(/no such program/),
  })
  const first = await openProcess({ pid: stepped.pid }, 'auto')
  try {
    await expect(openProcess({ pid: stepped.pid }, 'auto')).rejects.toMatchObject({
      code: 'PROCESS_REFUSED',
      message: expect.stringMatching(/\(holder\) traces it already/),
    })
  } finally {
    await first.close()
  }
  await stepped.run('write 10')
})
