/**
 * Processes that do what is hard on a watcher, without end (storms.c): they go on unharmed, the recording does too, and whenever they
 * rest what was recorded is their memory, byte for byte.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay, setImmediate } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { openProcess } from '../../src/record/process/process-target.ts'
import { Epochs } from './oracle.ts'
import { buildVictim, ended } from './victim.ts'

let folder: string
let program: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-storms-'))
  program = buildVictim(folder, 'storms')
})
afterAll(() => rmSync(folder, { recursive: true }))

const undo: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
})

async function start(kind: string) {
  const child = spawn(program, [kind], { stdio: ['pipe', 'pipe', 'inherit'] })
  undo.push(() => void child.kill('SIGKILL'))
  const lines = createInterface({ input: child.stdout })
  const next = async () => ((await once(lines, 'line')) as [string])[0]
  const pid = Number(await next())
  const ask = async (line: string, answer: string) => {
    const said = next()
    child.stdin.write(`${line}\n`)
    expect(await Promise.race([said, ended(child)])).toBe(answer)
  }
  return {
    pid,
    child,
    /** All of it stands then, so that its memory can be looked at. */
    async rest() {
      await ask('rest', 'resting')
      child.kill('SIGSTOP')
      await expect.poll(() => threadStates(pid)).toMatch(/^[Tt]+$/)
    },
    async goOn() {
      child.kill('SIGCONT')
      await ask('', 'going')
    },
    async end() {
      child.kill('SIGCONT')
      child.stdin.end()
      expect(await ended(child)).toBe(0)
    },
  }
}

/** A letter for each thread; those of io_uring, which write nothing by themselves, are left out. */
const threadStates = (pid: number) =>
  readdirSync(`/proc/${pid}/task`)
    .map((tid) => readFileSync(`/proc/${pid}/task/${tid}/stat`, 'latin1'))
    .filter((stat) => !/\(iou-/.test(stat))
    .map((stat) => /\) (\w)/.exec(stat)![1])
    .join('')

const stateOf = (pid: number) => /\) (\w)/.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))![1]

/** Epochs of about a millisecond for so long. */
async function hold(epochs: Epochs, ms: number): Promise<void> {
  const end = performance.now() + ms
  while (performance.now() < end) {
    await epochs.next()
    await delay(1)
  }
}

const kinds = [
  ...['threads', 'mappings', 'children', 'downwards', 'moved', 'collapse'],
  ...['uring', 'sqpoll', 'outside', 'sharers', 'signals', 'writeonly'],
]

// In a storm the first moment may be any: before a signal is taken, when a thread has just been made, while all of it is asleep.
test.each(['signals', 'threads', 'children', 'uring', 'sqpoll'])(
  '%s: a recording begins at any moment, and is exact',
  async (kind) => {
    const storm = await start(kind)
    for (let i = 0; i < 25; i++) {
      const epochs = await Epochs.of(storm.pid)
      await epochs.close()
    }
    await storm.end()
  },
)

test('a process that job control has stopped is recorded, and stays stopped', async () => {
  const storm = await start('mappings')
  const state = () => stateOf(storm.pid)
  for (let i = 0; i < 3; i++) {
    storm.child.kill('SIGSTOP')
    await expect.poll(state).toBe('T')
    const epochs = await Epochs.of(storm.pid)
    undo.push(() => epochs.close())
    await epochs.next()
    expect(epochs.unlike()).toEqual([])
    expect(epochs.written(0, 2 ** 47)).toEqual([])
    expect(state()).toMatch(/[Tt]/)
    storm.child.kill('SIGCONT')
    await hold(epochs, 60)
    await expect.poll(state).not.toMatch(/[Tt]/)
    storm.child.kill('SIGSTOP')
    await hold(epochs, 20)
    await epochs.close()
    await expect.poll(state).toBe('T')
    storm.child.kill('SIGCONT')
  }
  await storm.end()
})

test('a process that is stopped just when a recording begins is stopped afterwards', async () => {
  const storm = await start('signals')
  for (let i = 0; i < 20; i++) {
    const opening = Epochs.of(storm.pid)
    for (let stops = 0; stops < 5; stops++) {
      storm.child.kill('SIGSTOP')
      await setImmediate()
    }
    const epochs = await opening
    await epochs.close()
    await expect.poll(() => stateOf(storm.pid)).toBe('T')
    storm.child.kill('SIGCONT')
  }
  await storm.end()
})

/** A group of its own in version 2 of the kernel's control groups; undefined where we may make none. */
function controlGroup(pid: number): string | undefined {
  const root = /^cgroup2 (\S+)/m.exec(readFileSync('/proc/mounts', 'utf8'))?.[1]
  const group = join(root ?? '/nowhere', `subpage-test-${pid}`)
  try {
    mkdirSync(group)
    writeFileSync(join(group, 'cgroup.procs'), String(pid))
    return group
  } catch (error) {
    expect((error as NodeJS.ErrnoException).code).toMatch(/EACCES|EPERM|EROFS|ENOENT|EOPNOTSUPP/)
    return undefined
  }
}

test('a frozen process is compared, which a note says, stays frozen, and goes on unharmed', async () => {
  const storm = await start('mappings')
  const group = controlGroup(storm.pid)
  if (group === undefined) return storm.end()
  undo.unshift(() => rmdirSync(group))
  const freeze = (on: boolean) => writeFileSync(join(group, 'cgroup.freeze'), on ? '1' : '0')
  undo.push(() => freeze(false))
  freeze(true)
  await expect.poll(() => readFileSync(join(group, 'cgroup.events'), 'utf8')).toMatch(/frozen 1/)
  const target = await openProcess({ pid: storm.pid }, 'auto')
  expect(target.tracker).toBe('compare')
  expect(target.notes.at(-1)).toMatch(/frozen/)
  await target.close()
  freeze(false)
  await storm.rest()
  const epochs = await Epochs.of(storm.pid)
  undo.push(() => epochs.close())
  expect(epochs.unlike()).toEqual([])
  await epochs.close()
  await storm.goOn()
  await storm.end()
})

test('a process that dies at any moment of a recording: that is said, and nothing hangs', async () => {
  for (let i = 0; i < 60; i++) {
    const storm = await start(i % 2 === 0 ? 'mappings' : 'threads')
    const dying = delay(i % 10).then(() => storm.child.kill('SIGKILL'))
    const recording = async () => {
      const target = await openProcess({ pid: storm.pid }, 'userfault')
      undo.push(() => target.close())
      for (;;) await target.hold(() => target.harvest())
    }
    await expect(recording()).rejects.toMatchObject({
      code: expect.stringMatching(/GUEST_DIED|BAD_ARGUMENT/),
    })
    await dying
    for (const step of undo.splice(0).reverse()) await step()
  }
})

test.each(kinds)('%s', async (kind) => {
  const storm = await start(kind)
  for (let recording = 0; recording < 2; recording++) {
    const epochs = await Epochs.of(storm.pid)
    undo.push(() => epochs.close())
    for (let turn = 0; turn < 2; turn++) {
      await hold(epochs, 50)
      await storm.rest()
      await epochs.next()
      expect(epochs.unlike()).toEqual([])
      await storm.goOn()
    }
    await epochs.close()
  }
  await storm.end()
})
