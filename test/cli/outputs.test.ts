/**
 * What the command line writes to where a user says, as a user would see it: nothing of theirs is destroyed, and what was
 * recorded is not lost, however a recording ends.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { readTrace } from '../../lab/src/trace.ts'
import { exitStatus } from '../../src/errors.ts'
import { mainFile, subpage } from '../support/subpage.ts'

let folder: string
let path: string
const children: ChildProcess[] = []
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-outputs-'))
  path = join(folder, 'a.trace')
})
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
  rmSync(folder, { recursive: true })
})

/** What is recorded goes on when its recorder has failed or was killed; these programs end then. */
const endsWithRecorder =
  'const p = process.ppid; setInterval(() => (process.ppid === p && p !== 1) || process.exit(), 100);'
/** Writes a page again and again. */
const busy = [
  process.execPath,
  '-e',
  `${endsWithRecorder} const b = Buffer.alloc(4096); setInterval(() => b.fill(Date.now() & 255), 1)`,
]

/** @param group it, and what it starts, are a process group of their own */
function recording(options: string[] = [], env: Record<string, string> = {}, group = false) {
  const child = spawn(
    process.execPath,
    [mainFile, 'record', '-o', path, '--epoch', '10ms', '--tracker', 'compare', ...options, '--', ...busy],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env }, detached: group },
  )
  children.push(child)
  let said = ''
  child.stdout.resume()
  child.stderr.setEncoding('utf8').on('data', (text) => {
    said += text
  })
  return { child, said: () => said, begun: () => expect.poll(() => said).toMatch(/ [1-9]\d* epochs/) }
}

describe('a recording ends whole', () => {
  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('by %s', async (signal) => {
    const { child, begun } = recording()
    await begun()
    child.kill(signal)
    expect((await once(child, 'exit'))[0]).toBe(exitStatus.ok)
    expect(readTrace(path).end()).toMatchObject({ cause: 'interrupted' })
    expect(readdirSync(folder)).toEqual(['a.trace'])
  })

  test('by a signal to its process group, as timeout(1) and service managers send it', async () => {
    const { child, begun } = recording([], {}, true)
    await begun()
    process.kill(-child.pid!, 'SIGTERM')
    // The command may have ended by it before.
    expect([exitStatus.ok, 128 + constants.signals.SIGTERM]).toContain((await once(child, 'exit'))[0])
    expect(['interrupted', 'target-ended']).toContain(readTrace(path).end().cause)
    expect(readdirSync(folder)).toEqual(['a.trace'])
  })

  test('though nobody reads what it says any more', async () => {
    const { child, begun } = recording()
    await begun()
    child.stderr!.destroy()
    child.stdout!.destroy()
    // It has to say something in the meantime.
    const size = () => (existsSync(`${path}.part`) ? statSync(`${path}.part`).size : 0)
    const before = size()
    await expect.poll(size).toBeGreaterThan(before + 4096)
    expect(child.exitCode).toBeNull()
    child.kill('SIGINT')
    expect((await once(child, 'exit'))[0]).toBe(exitStatus.ok)
    expect(readTrace(path).end().epochCount).toBeGreaterThan(1)
  })

  test('and one that was killed has its whole epochs, which report says', async () => {
    writeFileSync(path, 'old')
    const { child, begun } = recording(['--force'])
    await begun()
    child.kill('SIGKILL')
    await once(child, 'exit')
    expect(readFileSync(path, 'utf8')).toBe('old')
    const { status, out, said } = await subpage(['report', `${path}.part`])
    expect([status, said]).toEqual([exitStatus.ok, ''])
    // Wherever its lines are broken.
    expect(out).toMatch(/cut\s+short/)
    expect(JSON.parse((await subpage(['report', `${path}.part`, '--json'])).out)).toMatchObject({
      ended: 'cut-short',
    })
  })

  test('on a file system that fills up', () => {
    const script = `
      mount -t tmpfs -o size=300k none "$1" && cd "$1" || exit 99
      shift; "$@" 2>said; echo "$?"; ls; cat said`
    const said = execFileSync(
      'unshare',
      [
        ...[
          '-rm',
          'sh',
          '-c',
          script,
          'sh',
          folder,
          process.execPath,
          mainFile,
          'record',
          '-o',
          'full.trace',
        ],
        ...['--content', '--for', '60s', '--tracker', 'compare', '--', process.execPath, '-e'],
        `${endsWithRecorder} const b = Buffer.alloc(1 << 16); setInterval(() => crypto.getRandomValues(b), 1)`,
      ],
      { encoding: 'utf8' },
    )
    expect(said).toMatch(/^1\n/)
    expect(said).toMatch(/NO_SPACE/)
    expect(said).not.toMatch(/^ +at /m)
  })
})

describe('what stands in the way is said before anything is started', () => {
  const command = () => ['--', '/bin/sh', '-c', `touch ${folder}/started`]

  test('a file that exists, a folder that is not there, a directory, a pipe', async () => {
    writeFileSync(path, 'old')
    execFileSync('mkfifo', [join(folder, 'pipe')])
    for (const [place, code] of [
      [path, 'FILE_EXISTS'],
      [join(folder, 'none/x'), 'BAD_ARGUMENT'],
      [folder, 'BAD_ARGUMENT'],
      [join(folder, 'pipe'), 'BAD_ARGUMENT'],
      ['/dev/stdout', 'BAD_ARGUMENT'],
    ] as const) {
      const { status, said } = await subpage(['record', '-o', place, ...command()])
      expect([status, said]).toEqual([code === 'FILE_EXISTS' ? 1 : 2, expect.stringContaining(code)])
    }
    expect([existsSync(join(folder, 'started')), readFileSync(path, 'utf8')]).toEqual([false, 'old'])
  })

  test('SUBPAGE_FORCE=0 replaces nothing', async () => {
    writeFileSync(path, 'old')
    const { status, said } = await subpage(['record', '-o', path, ...command()], { SUBPAGE_FORCE: '0' })
    expect([status, said]).toEqual([1, expect.stringContaining('FILE_EXISTS')])
    expect(readFileSync(path, 'utf8')).toBe('old')
  })

  test('a recording that fails leaves the older file', async () => {
    writeFileSync(path, 'old')
    const { status } = await subpage(['record', '-o', path, '--force', '--', join(folder, 'no-such-program')])
    expect(status).not.toBe(0)
    expect([readFileSync(path, 'utf8'), readdirSync(folder)]).toEqual(['old', ['a.trace']])
  })

  test.each([
    ['wss', [`pid:${process.pid}`, '--for', '1h']],
    ['study', ['sync']],
  ])('the page and the tables of %s', async (name, args) => {
    const page = join(folder, 'page.html')
    writeFileSync(page, 'old')
    writeFileSync(join(folder, 'old.csv'), 'old')
    for (const [flags, code] of [
      [['--html', page], 'FILE_EXISTS'],
      [['--html', join(folder, 'none/x')], 'BAD_ARGUMENT'],
      [['--html', '/dev/full', '--force'], 'BAD_ARGUMENT'],
      [['--csv', folder], 'FILE_EXISTS'],
      [['--csv', page], 'BAD_ARGUMENT'],
      [['--csv', '/proc/x'], 'BAD_ARGUMENT'],
    ] as const) {
      const { status, out, said } = await subpage([name, ...args, ...flags])
      expect([status, out, said]).toEqual([code === 'FILE_EXISTS' ? 1 : 2, '', expect.stringContaining(code)])
    }
    expect(readFileSync(page, 'utf8')).toBe('old')
  })
})

test('wss writes its page and its tables, interrupted by SIGHUP as well', async () => {
  const page = join(folder, 'page.html')
  const child = spawn(
    process.execPath,
    [
      mainFile,
      'wss',
      `pid:${process.pid}`,
      '--watch',
      '--interval',
      '100ms',
      '--html',
      page,
      '--csv',
      join(folder, 'csv'),
    ],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  )
  children.push(child)
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    out += text
  })
  await expect.poll(() => out.split('\n').length).toBeGreaterThan(3)
  child.kill('SIGHUP')
  expect((await once(child, 'exit'))[0]).toBe(exitStatus.interrupted)
  expect(readFileSync(page, 'utf8')).toMatch(/^<!doctype html>/i)
  expect(readdirSync(join(folder, 'csv')).length).toBeGreaterThan(1)
})

test('what was measured is printed though its page and its tables find no room', () => {
  const script = `
    mount -t tmpfs -o size=8k none "$1" && cd "$1" || exit 99
    shift; for as in --html --csv; do
      "$@" wss pid:$$ --for 300ms --interval 100ms $as page 2>&1; echo "status $?"; ls; rm -rf page
    done`
  const arguments_ = ['-rm', 'sh', '-c', script, 'sh', folder, process.execPath, mainFile]
  const said = execFileSync('unshare', arguments_, { encoding: 'utf8' })
  expect(said.match(/ resident, .* used over the last /g)).toHaveLength(2)
  expect(
    said.match(/cannot write \S+: no room on its file system \(ENOSPC\) \(NO_SPACE\)\nstatus 1$/gm),
  ).toHaveLength(2)
  expect(said).not.toMatch(/page\.html\.part|^ +at /m)
})

test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)(
  '%s before there is anything to show is said',
  async (signal) => {
    const child = spawn(
      process.execPath,
      [mainFile, 'wss', `pid:${process.pid}`, '--for', '2h', '--interval', '1h'],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    )
    children.push(child)
    let said = ''
    child.stderr.setEncoding('utf8').on('data', (text) => {
      said += text
    })
    // Node.js itself catches the other two; ours are there at about the same time as this one's.
    const catchesHangup = () =>
      /^SigCgt:.*[13579bdf]$/m.test(readFileSync(`/proc/${child.pid}/status`, 'utf8'))
    await expect.poll(catchesHangup, { interval: 1 }).toBe(true)
    child.kill(signal)
    expect((await once(child, 'close'))[0]).toBe(exitStatus.interrupted)
    expect(said).toMatch(/nothing was (done|measured) \(INTERRUPTED\)\n$/)
  },
)
