/** A study that ends before its time, by a signal that it hears and by one that it does not. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Reaper } from '../src/reaper.ts'
import { makeTrace } from './analysis/made-trace.ts'

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-ending-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

interface Started {
  study: ChildProcess
  /** Its folder for whatever it makes. */
  own: string
  said: () => string
  printed: () => string
}

function start(name: string, ...args: string[]): Started {
  const own = join(folder, name)
  mkdirSync(own)
  const study = spawn(process.execPath, ['dist/src/cli/main.js', 'study', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, TMPDIR: own },
  })
  let [errors, output] = ['', '']
  study.stderr!.on('data', (text) => {
    errors += text
  })
  study.stdout!.on('data', (text) => {
    output += text
  })
  return { study, own, said: () => errors, printed: () => output }
}

/** Processes whose working directory is below. */
const inside = (path: string) =>
  readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false
    try {
      return readlinkSync(`/proc/${pid}/cwd`).startsWith(path)
    } catch {
      // It has ended, or is somebody else's.
      return false
    }
  })

/** Pages that are written again and again. */
function makeSmallTrace(path: string): void {
  const program = (store: (at: number, bytes: Uint8Array) => void, step: number) => {
    for (let page = 0; page < 32; page++) store(page * 4096 + 8 * (step % 4), Uint8Array.of(step, page))
  }
  makeTrace({ path, pages: 256, epochs: 60, content: true, written: false, program })
}

test('killed: its programs and files are gone', async () => {
  const { study, own } = start('killed', 'amplification', '--only', 'sort')
  await expect.poll(() => inside(own).length).toBeGreaterThan(0)
  study.kill('SIGKILL')
  await once(study, 'exit')
  await expect.poll(() => [inside(own), readdirSync(own)]).toEqual([[], []])
})

test('interrupted: it shows what it has', async () => {
  const traces = ['first', 'second'].map((name) => join(folder, `${name}.trace`))
  for (const path of traces) makeSmallTrace(path)
  const { study, said, printed } = start('interrupted', 'sync', '--trace', traces.join())
  await expect.poll(said).toMatch(/second, epochs of/)
  study.kill('SIGTERM')
  const [status] = await once(study, 'close')
  expect(status).toBe(130)
  expect(printed()).toContain('interrupted: this is what was measured until then')
  const workloads = printed().match(/^(first|second) .*$/gm) ?? []
  expect(workloads.length).toBeGreaterThan(0)
  expect(workloads.filter((row) => row.startsWith('second'))).toEqual([])
})

test('interrupted before there is anything to show: an error says so', async () => {
  const { study, own, said } = start('early', 'amplification', '--only', 'sort')
  await expect.poll(said).toMatch(/\n/)
  study.kill('SIGINT')
  const [status] = await once(study, 'close')
  expect(status).toBe(130)
  expect(said()).toMatch(/INTERRUPTED/)
  expect([inside(own), readdirSync(own)]).toEqual([[], []])
})

test('the reaper leaves alone what runs elsewhere', async () => {
  const [own, other] = [join(folder, 'reaped'), join(folder, 'reaped-not')]
  for (const path of [own, other]) mkdirSync(path)
  const asleep = (cwd: string) => spawn('/bin/sleep', ['60'], { cwd, detached: true, stdio: 'ignore' })
  const [ours, theirs] = [asleep(own), asleep(other)]
  try {
    const ended = once(ours, 'exit')
    const reaper = new Reaper(own, [join(folder, 'was-never-there')])
    await reaper.end()
    expect((await ended)[1]).toBe('SIGKILL')
    expect(inside(other)).toEqual([String(theirs.pid)])
    expect(readdirSync(folder)).not.toContain('reaped')
  } finally {
    theirs.kill('SIGKILL')
  }
})
