/**
 * Recording changes nothing in the process: what its system calls return, how long they wait, its restartable sequences, its own
 * dispatching of system calls, how fast its other threads run. And whatever the process does, the recording goes on.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { packageRoot } from 'subpage/memory/native'
import { clearReferences, readReferences } from 'subpage/tracking/referenced'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { openProcess } from '../../src/record/process/process-target.ts'
import { record } from '../../src/record/recorder.ts'
import { readTrace } from '../../src/trace.ts'
import { Epochs } from './oracle.ts'
import { buildVictim, countHolds, ended } from './victim.ts'

let folder: string
let edges: string
let calls: string
let victim: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-unfelt-'))
  edges = buildVictim(folder, 'edges')
  calls = buildVictim(folder, 'calls')
  victim = buildVictim(folder)
})
afterAll(() => rmSync(folder, { recursive: true }))

const undo: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
})

async function start(program: string, ...args: string[]) {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  undo.push(() => void child.kill('SIGKILL'))
  const lines = createInterface({ input: child.stdout })
  const next = async () => ((await once(lines, 'line')) as [string])[0]
  const first = await next()
  const [pid, address] = first.split(' ').map(Number) as [number, number]
  return {
    pid,
    address,
    next,
    async ask(line = '') {
      const answer = next()
      child.stdin.write(`${line}\n`)
      return await answer
    },
    say: (line: string) => void child.stdin.write(`${line}\n`),
    async end() {
      child.stdin.end()
      return await ended(child)
    },
  }
}

/** Holds the process again and again until `enough`. */
async function holdEach(
  ms: number,
  pid: number,
  enough: () => boolean,
  choice: 'userfault' | 'compare' = 'userfault',
) {
  const target = await openProcess({ pid }, choice)
  try {
    while (!enough()) {
      await target.hold(() => target.harvest())
      await delay(ms)
    }
  } finally {
    await target.close()
  }
}

const after = (ms: number) => {
  const end = performance.now() + ms
  return () => performance.now() >= end
}

async function startCalls(kinds: 'all' | 'quiet') {
  const child = spawn(calls, [kinds], { stdio: ['pipe', 'pipe', 'inherit'] })
  undo.push(() => void child.kill('SIGKILL'))
  const lines: string[] = []
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line))
  await expect.poll(() => lines[0]).toBe('begun')
  return {
    pid: child.pid!,
    async results() {
      child.stdin.end()
      expect(await ended(child)).toBe(0)
      const found = lines.slice(1).map((line) => line.split(' '))
      expect(found.length).toBeGreaterThan(15)
      return found.map(([name, rounds, cut]) => ({ name, rounds: Number(rounds), cut: Number(cut) }))
    },
  }
}

test.each([1, 10])('every %i ms: no system call returns EINTR or outlasts its time limit', async (ms) => {
  const process = await startCalls('all')
  const long = after(1200)
  const target = await openProcess({ pid: process.pid }, 'userfault')
  undo.push(() => target.close())
  let holds = 0
  while (!long() || holds <= 10) {
    if (await target.hold(() => target.harvest())) holds++
    await delay(ms)
  }
  const results = await process.results()
  expect(results.filter(({ cut }) => cut > 0)).toEqual([])
  // A limit of 15 ms that began anew with each hold would never be over. The one that sleeps for 3 ms, which the kernel sees to,
  // tells how often a thread of this process could run.
  const sleeps = results.find(({ name }) => name === 'ignored')!.rounds
  for (const { name, rounds } of results) expect(rounds, name).toBeGreaterThan((sleeps * 3) / 15 / 8)
})

test('to begin and to end a recording cuts no system call short', async () => {
  const process = await startCalls('quiet')
  for (let i = 0; i < 10; i++) await holdEach(1, process.pid, after(20))
  expect((await process.results()).filter(({ cut }) => cut > 0)).toEqual([])
})

test.each(['userfault', 'compare'] as const)(
  '%s: a process whose first thread has ended is recorded',
  async (choice) => {
    const process = await start(edges, 'leaderless')
    await process.ask()
    await expect.poll(() => firstThread(process.pid)).toBe('Z')
    await process.ask()
    const epochs = await Epochs.of(process.pid, choice)
    undo.push(() => epochs.close())
    for (let page = 1; page < 4; page++) {
      await process.ask()
      await epochs.next()
      if (choice === 'userfault') expect(epochs.written(process.address, 64)).toEqual([page])
      else expect(epochs.written(process.address, 64)).toContain(page)
    }
    clearReferences(process.pid)
    await process.ask()
    const mapping = readReferences(process.pid).find(
      ({ start, end }) => start <= process.address && process.address < end,
    )
    expect(mapping!.referencedPages).toBeGreaterThan(0)
    await epochs.close()
    expect(await process.end()).toBe(0)
  },
)

test('a first thread that ends while it is recorded', async () => {
  const process = await start(edges, 'leaderless')
  const epochs = await Epochs.of(process.pid)
  undo.push(() => epochs.close())
  await process.ask()
  await expect.poll(() => firstThread(process.pid)).toBe('Z')
  for (let page = 0; page < 4; page++) {
    await process.ask()
    await epochs.next()
    expect(epochs.written(process.address, 64)).toEqual([page])
  }
  await epochs.close()
  expect(await process.end()).toBe(0)
})

const firstThread = (pid: number) => /\) (\w)/.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))![1]

test('restartable sequences are aborted as by the kernel', async () => {
  const process = await start(edges, 'sequences')
  // It is in a sequence nearly all the time; a system call is put in at each start.
  for (let i = 0; i < 8; i++) await holdEach(1, process.pid, after(20))
  expect(await process.end()).toBe(0)
})

test('a process that dispatches its system calls itself sees none of ours', async () => {
  const process = await start(edges, 'dispatch')
  for (let i = 0; i < 8; i++) await holdEach(1, process.pid, after(20))
  expect(await process.end()).toBe(0)
})

test('while one thread waits in vfork, the others run as before', async () => {
  const process = await start(edges, 'vfork')
  const answer = process.ask()
  await expect.poll(() => firstThread(process.pid)).toBe('D')
  const target = await openProcess({ pid: process.pid }, 'userfault')
  undo.push(() => target.close())
  const pausesUs: number[] = []
  for (let i = 0; i < 12; i++) {
    const held = await target.hold(() => target.harvest())
    if (held) pausesUs.push(held.pauseUs)
    await delay(2)
  }
  await target.close()
  expect(firstThread(process.pid)).toBe('D')
  process.say('')
  expect(Number(await answer)).toBeGreaterThan(0)
  // A thread that is waited for would keep the others standing for 100 ms, each time.
  expect(Math.min(...pausesUs)).toBeLessThan(50_000)
  expect(await process.end()).toBe(0)
})

test('a child that tells nobody of its end, and executes a program, is not the target', async () => {
  const process = await start(edges, 'clone')
  const epochs = await Epochs.of(process.pid)
  undo.push(() => epochs.close())
  await process.ask()
  await process.ask()
  await epochs.next()
  expect(epochs.written(process.address, 64)).toContain(0)
  await epochs.close()
  expect(await process.end()).toBe(0)
})

const tiny = `.globl _start
_start: incl count
  movl $4, %eax; movl $1, %ebx; movl $said, %ecx; movl $5, %edx; int $0x80
  movl $3, %eax; movl $0, %ebx; movl $byte, %ecx; movl $1, %edx; int $0x80
  cmpl $1, %eax; je _start
  movl $1, %eax; xorl %ebx, %ebx; int $0x80
.data
count: .long 0
said: .ascii "done\\n"
.bss
byte: .space 8192
`

/** The kernel may be built without them. */
const runs32Bits = () => {
  const folder = mkdtempSync(join(tmpdir(), 'subpage-unfelt-'))
  const program = join(folder, 'nothing')
  // _exit(0)
  writeFileSync(`${program}.S`, '.globl _start\n_start: mov $1, %eax\n xor %ebx, %ebx\n int $0x80\n')
  execFileSync('cc', ['-m32', '-nostdlib', '-static', '-o', program, `${program}.S`])
  const { status } = spawnSync(program)
  rmSync(folder, { recursive: true })
  return status === 0
}

test.each(runs32Bits() ? ['filter', '32 bits'] : ['filter'])(
  'exec into a program that cannot be tracked (%s): comparison goes on',
  async (kind) => {
    const small = join(folder, 'small')
    if (kind === '32 bits') {
      writeFileSync(`${small}.S`, tiny)
      execFileSync('cc', ['-m32', '-nostdlib', '-static', '-o', small, `${small}.S`])
    }
    const process =
      kind === 'filter' ? await start(edges, 'filter', victim) : await start(edges, 'become', small)
    const path = join(folder, 'exec.trace')
    const target = await openProcess({ pid: process.pid }, kind === 'filter' ? 'auto' : 'userfault')
    const holds = countHolds(target)
    const enough = new AbortController()
    const recorded = record(target, {
      path,
      replace: true,
      epochMs: 5,
      forMs: undefined,
      content: true,
      signal: enough.signal,
      progress: () => undefined,
    })
    await expect.poll(holds).toBeGreaterThan(0)
    await process.ask()
    for (let i = 0; i < 5; i++) {
      await process.ask(kind === 'filter' ? 'write 20' : '')
      await delay(10)
    }
    enough.abort()
    const summary = await recorded
    await target.close()
    expect(summary.cause).toBe('interrupted')
    const trace = readTrace(path)
    const gaps = [...trace.epochs()].flatMap(({ gapBefore }) =>
      gapBefore?.cause === 'lost' ? [gapBefore] : [],
    )
    expect(gaps).toHaveLength(1)
    expect(gaps[0]!.reason).toMatch(/executed another program/)
    expect(trace.notes().at(-1)).toMatch(kind === 'filter' ? /seccomp/ : /32 bits/)
    const later = [...trace.epochs()].filter(({ startUs }) => startUs > gaps[0]!.startUs)
    expect(later.some(({ changedBytes }) => changedBytes.some((bytes) => bytes > 0))).toBe(true)
    expect(await process.end()).toBe(0)
  },
)

// Its first thread, of whose number everything in /proc is, goes and another takes its place; its memory goes while it is looked at.
test('a program that any of its threads executes, again and again: a recording begins at any moment, and goes on', async () => {
  const child = spawn(edges, ['executes', '60'], { stdio: ['pipe', 'pipe', 'inherit'] })
  undo.push(() => void child.kill('SIGKILL'))
  let programs = 0
  createInterface({ input: child.stdout }).on('line', () => programs++)
  await expect.poll(() => programs).toBeGreaterThan(0)
  const notes: string[] = []
  do {
    const target = await openProcess({ pid: child.pid! }, 'userfault')
    const short = programs < 30 ? programs + 2 : 61
    while (programs < short) {
      await target.hold(() => notes.push(...(target.harvest().newNotes ?? [])))
      await delay(1)
    }
    await target.close()
  } while (programs < 61)
  expect(notes).toEqual([])
  child.stdin.end()
  expect(await ended(child)).toBe(0)
})

/** Through the shell, as an installed `subpage` is started. */
function recordCommand(before: string, command: string) {
  const main = join(packageRoot, 'dist/src/cli/main.js')
  const line = `${before}; sh ${main} record --force -o ${join(folder, 'command.trace')} -- ${command}`
  return spawn('sh', ['-c', line], { stdio: ['ignore', 'ignore', 'pipe'] })
}

test('a command has the limits and the ignored signals with which record was started', async () => {
  const child = recordCommand("ulimit -Sn 256; trap '' HUP USR1", `${edges} limits`)
  let said = ''
  child.stderr.on('data', (bytes: Buffer) => {
    said += bytes.toString()
  })
  expect(await ended(child)).toBe(0)
  const ignored = Number.parseInt(/^SigIgn:\s+(\w+)/m.exec(said)![1]!, 16)
  expect(said).toMatch(/^files 256$/m)
  expect(ignored & 0x201).toBe(0x201)
})

test.each([
  ["sh -c 'exit 57'", 57],
  ["sh -c 'kill -TERM $$'", 143],
])('record ends with the status of its command: %s, %i', async (command, status) => {
  const child = recordCommand(':', command)
  child.stderr.resume()
  expect(await ended(child)).toBe(status)
})

test('the watcher is killed: one line, and the trace until then', async () => {
  const path = join(folder, 'killed.trace')
  const victimOf = await start(edges, 'vfork')
  const main = join(packageRoot, 'dist/src/cli/main.js')
  const child = spawn(
    process.execPath,
    [main, 'record', `pid:${victimOf.pid}`, '-o', path, '--epoch', '2ms'],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  )
  let said = ''
  child.stderr.on('data', (bytes: Buffer) => {
    said += bytes.toString()
  })
  await expect.poll(() => said).toMatch(/epochs/)
  process.kill(
    Number(/^TracerPid:\s+(\d+)/m.exec(readFileSync(`/proc/${victimOf.pid}/status`, 'latin1'))![1]),
    'SIGKILL',
  )
  expect(await ended(child)).toBe(13)
  const last = said.trimEnd().split('\n').at(-1)!
  expect(last).toMatch(
    /was killed by SIGKILL; the process goes on; what was recorded until then \(\d+ epochs?\) is in/,
  )
  expect(said).not.toMatch(/INTERNAL|\n {4}at /)
  expect([...readTrace(/\) is in (\S+)/.exec(last)![1]!).epochs()].length).toBeGreaterThan(0)
  expect(await victimOf.end()).toBe(0)
})
