/** Files that are written to where a user says: what becomes of what was there, whatever happens meanwhile. */
import { execFileSync } from 'node:child_process'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { checkOutput, makeOutputFolder, OutputFile, writeOutput } from '../src/output-file.ts'

let folder: string
let path: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-output-'))
  path = join(folder, 'out')
})
afterEach(() => rmSync(folder, { recursive: true }))

const code = (name: string) => expect.objectContaining({ code: name })
const content = (at = path) => readFileSync(at, 'utf8')

describe('a regular file', () => {
  test('has its name when it is whole, and not before', () => {
    const file = new OutputFile(path, { replace: false, mode: 0o600 })
    file.write(Buffer.from('half'))
    expect(existsSync(path)).toBe(false)
    expect(content(`${path}.part`)).toBe('half')
    file.finish()
    expect([content(), readdirSync(folder)]).toEqual(['half', ['out']])
    expect(statSync(path).mode & 0o777).toBe(0o600)
  })

  test('that exists is refused without replace, and replaced in one step with it', () => {
    writeFileSync(path, 'old')
    for (const write of [
      () => writeOutput(path, 'new', { replace: false }),
      () => checkOutput(path, { replace: false }),
    ])
      expect(write).toThrow(code('FILE_EXISTS'))
    const file = new OutputFile(path, { replace: true })
    file.write(Buffer.from('new'))
    expect(content()).toBe('old')
    file.finish()
    expect([content(), readdirSync(folder)]).toEqual(['new', ['out']])
  })

  test('that is given up leaves the old one, and no part', () => {
    writeFileSync(path, 'old')
    const file = new OutputFile(path, { replace: true })
    file.write(Buffer.from('new'))
    file.abandon()
    file.abandon()
    checkOutput(path, { replace: true })
    expect([content(), readdirSync(folder)]).toEqual(['old', ['out']])
  })

  test('that somebody else makes meanwhile stays, and so does what was written', () => {
    const file = new OutputFile(path, { replace: false })
    file.write(Buffer.from('ours'))
    writeFileSync(path, 'theirs')
    expect(() => file.finish()).toThrow(code('FILE_EXISTS'))
    expect([content(), content(`${path}.part`)]).toEqual(['theirs', 'ours'])
  })

  test('a part that a killed command left stays as well', () => {
    writeFileSync(`${path}.part`, 'precious')
    writeOutput(path, 'new', { replace: false })
    expect([content(), content(`${path}.part`), readdirSync(folder).length]).toEqual(['new', 'precious', 2])
  })

  test('cut, then written on', () => {
    const file = new OutputFile(path, { replace: false })
    file.write(Buffer.from('0123456789'))
    file.cut(4)
    file.write(Buffer.from('x'))
    expect(file.leave()).toBe(path)
    expect(content()).toBe('0123x')
  })
})

describe('links', () => {
  test('one to a file is followed and stays', () => {
    const target = join(folder, 'target')
    writeFileSync(target, 'old')
    symlinkSync('target', path)
    expect(() => checkOutput(path, { replace: false })).toThrow(code('FILE_EXISTS'))
    writeOutput(path, 'new', { replace: true })
    expect([lstatSync(path).isSymbolicLink(), content(target)]).toEqual([true, 'new'])
  })

  test.each([
    ['to nowhere', 'nothing'],
    ['to itself', 'out'],
  ])('one %s is refused and stays', (_, to) => {
    symlinkSync(to, path)
    for (const replace of [false, true])
      expect(() => checkOutput(path, { replace })).toThrow(code('BAD_ARGUMENT'))
    expect([lstatSync(path).isSymbolicLink(), readdirSync(folder)]).toEqual([true, ['out']])
  })
})

describe('what is no file is refused and stays', () => {
  const kinds: Record<string, () => unknown> = {
    'a directory': () => mkdirSync(path),
    'a pipe': () => execFileSync('mkfifo', [path]),
    'a socket': () =>
      new Promise((resolve) =>
        createServer()
          .unref()
          .listen(path, () => resolve(undefined)),
      ),
    'a link to a directory': () => symlinkSync('.', path),
    'a link to a device': () => symlinkSync('/dev/full', path),
  }
  test.each(Object.keys(kinds))('%s', async (kind) => {
    await kinds[kind]!()
    const before = lstatSync(path)
    for (const replace of [false, true]) {
      expect(() => checkOutput(path, { replace })).toThrow(code('BAD_ARGUMENT'))
      expect(() => writeOutput(path, 'x', { replace })).toThrow(code('BAD_ARGUMENT'))
    }
    expect([lstatSync(path).ino, lstatSync(path).mode, readdirSync(folder)]).toEqual([
      before.ino,
      before.mode,
      ['out'],
    ])
  })

  test.each([
    '/dev/stdout',
    '/dev/stderr',
    '/dev/fd/1',
    '/proc/self/fd/1',
    '/dev/full',
    '/dev/zero',
    '/',
    'x/',
    '/proc/x',
  ])('%s', (place) => {
    for (const replace of [false, true])
      expect(() => checkOutput(place, { replace })).toThrow(expect.objectContaining({ exit: 2 }))
  })
})

test('/dev/null takes anything and stays a device', () => {
  for (const replace of [false, true]) writeOutput('/dev/null', 'x'.repeat(10_000), { replace })
  expect(statSync('/dev/null').isCharacterDevice()).toBe(true)
})

test('a folder that is not there, a file in place of a folder, a name that is too long', () => {
  writeFileSync(path, '')
  for (const wrong of [join(folder, 'none', 'x'), join(path, 'x'), join(folder, 'n'.repeat(300))])
    expect(() => checkOutput(wrong, { replace: false })).toThrow(code('BAD_ARGUMENT'))
})

test('a folder that is there, and takes nothing, is not said to be missing', () => {
  expect(() => checkOutput('/proc/x', { replace: false })).toThrow(/nothing can be made in its folder/)
  expect(() => makeOutputFolder('/proc/x')).toThrow(/nothing can be made in its folder/)
  expect(() => checkOutput(join(folder, 'none', 'x'), { replace: false })).toThrow(/its folder is not there/)
})

test('folders are made as needed; where none can be made it says so at once', () => {
  makeOutputFolder(join(folder, 'a/b/c'))
  expect(statSync(join(folder, 'a/b/c')).isDirectory()).toBe(true)
  for (const wrong of ['/proc/x/y', '/dev/null', '/dev/null/x', '/sys/x'])
    expect(() => makeOutputFolder(wrong), wrong).toThrow(code('BAD_ARGUMENT'))
})

test('a full file system is NO_SPACE, and the older file stays', () => {
  // In a mount namespace of its own, so that nothing is left behind.
  const script = `
    mount -t tmpfs -o size=64k none "$1" && cd "$1" && printf old > out && head -c 1M /dev/zero > filler
    exec "$2" --input-type=module -e '
      import { checkOutput, writeOutput } from "${join(import.meta.dirname, '../dist/src/output-file.js')}"
      import { readFileSync, readdirSync } from "node:fs"
      const codes = [checkOutput, (path, options) => writeOutput(path, "x".repeat(100_000), options)].map((write) => {
        try { write("out", { replace: true }) } catch ({ code }) { return code }
      })
      console.log(JSON.stringify([codes, readFileSync("out", "utf8"), readdirSync(".")]))
    '`
  const said = execFileSync('unshare', ['-rm', 'sh', '-c', script, 'sh', folder, process.execPath], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  expect(JSON.parse(said)).toEqual([['NO_SPACE', 'NO_SPACE'], 'old', ['filler', 'out']])
})
